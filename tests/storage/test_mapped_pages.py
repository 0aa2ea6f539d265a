"""A process lets go of the pages of mapped soft labels that it has read, and reads on as if it had not."""

import gc
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from soft_label_examples import IDS, draw_beside, make_header, path_of, read_all, small_blocks, write

from edpipe.soft_labels.file import checks
from edpipe.soft_labels.file.checks import map_file
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.storage import mapped_pages

SMAPS = Path("/proc/self/smaps")


@pytest.fixture
def labels(tmp_path):
    with small_blocks():
        yield open_soft_labels(write(path_of(tmp_path), make_header("uint8")))


@pytest.fixture
def nothing_stays(monkeypatch):
    """Every file is a large one, read in pieces of two rows."""
    monkeypatch.setattr(mapped_pages, "WHOLE_BYTES", 0)
    monkeypatch.setattr(mapped_pages, "PIECE_ROWS", 2)


def resident_kb(path):
    """Of the file's pages, how much counts as this process's memory."""
    if not SMAPS.exists():
        pytest.skip("only Linux tells")
    lines = iter(SMAPS.read_text().splitlines())
    found = [next(line for line in lines if line.startswith("Rss:")) for line in lines if line.endswith(str(path))]
    assert found, "the file is mapped"
    return sum(int(line.split()[1]) for line in found)


def test_pages_that_were_checked_are_let_go(labels):
    assert resident_kb(labels.path) == 0
    read_all(labels)
    assert resident_kb(labels.path) > 0  # this file is small


@pytest.mark.usefixtures("nothing_stays")
def test_rows_of_large_files_are_let_go(labels):
    read_all(labels)
    assert resident_kb(labels.path) == 0


def test_rows_of_large_files_are_those_of_small_ones(labels, monkeypatch):
    ids, views = np.repeat(IDS, 3), np.tile(np.arange(3), len(IDS))
    expected = labels.gather(ids, views)
    monkeypatch.setattr(mapped_pages, "WHOLE_BYTES", 0)
    for pieces in (1, 2, len(ids), len(ids) + 1):
        monkeypatch.setattr(mapped_pages, "PIECE_ROWS", pieces)
        found = labels.gather(ids, views)
        assert {name: part.tolist() for name, part in found.items()} == {n: p.tolist() for n, p in expected.items()}
        assert [part.dtype for part in found.values()] == [part.dtype for part in expected.values()]
    assert len(labels.gather(ids[:0], views[:0])["logits"]) == 0


@pytest.mark.usefixtures("nothing_stays")
def test_threads_read_while_others_let_go(labels):
    expected = read_all(labels)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read_all(labels), range(40)))
    assert all(np.array_equal(one, expected) for one in found)


@pytest.mark.usefixtures("nothing_stays")
def test_what_lies_beside_the_logits_is_let_go_too(tmp_path):
    header = make_header("uint8", with_maps=True, with_hint=True)
    with small_blocks():
        labels = open_soft_labels(write(path_of(tmp_path), header))
    found = labels.attention(1, IDS, np.zeros_like(IDS))
    assert np.array_equal(found, draw_beside(header)["attention/1"][0].astype(np.float32))
    found = labels.hint(IDS, np.zeros_like(IDS))
    assert np.array_equal(found, draw_beside(header)["hint"][0].astype(np.float32))
    assert resident_kb(labels.path) == 0


def test_a_long_check_lets_go_on_the_way(labels, monkeypatch):
    monkeypatch.setattr(checks, "HELD_BYTES", 1)
    gone = []
    content = labels.path, labels.header, labels.seal, labels.parts
    with small_blocks():
        checks.check_rows(*content, lambda: gone.append(1))
    assert len(gone) == labels.seal.block_digest.size + 1


@pytest.mark.slow
def test_small_files_are_large_together_while_they_are_there(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(bytes(100))
    gc.collect()
    first = map_file(paths[0])
    monkeypatch.setattr(mapped_pages, "WHOLE_BYTES", mapped_pages._WATCHED.num_bytes + 99)
    gone = []
    monkeypatch.setattr(mapped_pages, "let_go", gone.append)
    column = np.frombuffer(first, np.uint8)
    for path in paths[1:]:  # two more one after the other, never three at once
        other = map_file(path)
        mapped_pages.gather_rows(first, {"any": column}, np.array([3]))
        assert gone == [first]
        gone.clear()
        del other
    monkeypatch.setattr(mapped_pages, "WHOLE_BYTES", mapped_pages.WHOLE_BYTES + 1)
    mapped_pages.gather_rows(first, {"any": column}, np.array([3]))
    assert gone == []


@pytest.mark.usefixtures("nothing_stays")
def test_systems_that_cannot_let_go_read_all_the_same(labels, monkeypatch):
    expected = read_all(labels)
    monkeypatch.delattr(mmap, "MADV_DONTNEED")
    assert np.array_equal(read_all(labels), expected)
