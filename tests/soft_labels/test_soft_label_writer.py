"""The writer: any order and any interruption give the same bytes, and no finished block is asked for again."""

import json
import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
from file_limit import largest_file
from hypothesis import given, settings
from hypothesis import strategies as st
from soft_label_examples import (
    IDS,
    PROVENANCE,
    STORAGE,
    VIEWS,
    draw,
    draw_beside,
    make_header,
    path_of,
    read_all,
    small_blocks,
    write,
)

from edpipe.errors import BusyError, EdpipeError, OverwriteError, StaleJournalError, TeacherError
from edpipe.soft_labels.encoding.softmax import row_kl
from edpipe.soft_labels.file.format import lay_out
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.writer import create_soft_labels
from edpipe.storage.journal import Journal
from edpipe.storage.records import read_record
from edpipe.views.spec import ViewRange

BLOCKS = 9
"""Three views of three blocks."""


@pytest.fixture(autouse=True, scope="module")
def blocks_of_three_rows():
    with small_blocks():
        yield


class StopError(Exception):
    """What interrupts a dump."""


def store(writer, block, logits, features, views=VIEWS):
    rows = (block.view - views.first, slice(block.start, block.stop))
    writer.write(block, logits[rows], {name: values[rows] for name, values in features.items()})


def dump(path, header, order=None, stop_after=None, code="code"):
    """Writes the missing blocks in this order; the blocks that were written."""
    logits, features = draw(header), draw_beside(header)
    with create_soft_labels(path, header, code) as writer:
        blocks = writer.missing
        if order is not None:
            blocks = [blocks[i] for i in order]
        for number, block in enumerate(blocks):
            if number == stop_after:
                raise StopError
            store(writer, block, logits, features, header.views)
    return [(block.view, block.index) for block in blocks]


def interrupt(path, header, after, order=None, code="code"):
    with pytest.raises(StopError):
        dump(path, header, order, after, code)


def refused(error, write_it):
    with pytest.raises(error) as caught:
        write_it()
    text = str(caught.value)
    assert "\n" not in text
    return text


def resume_folders(path):
    """What waits for another call, by name."""
    folder = path.parent.parent / ".resume"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def left_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture(params=sorted(STORAGE))
def header(request):
    return make_header(request.param, with_maps=request.param in ("float32", "uint8"))


@pytest.fixture
def path(tmp_path):
    return path_of(tmp_path)


# Order


@pytest.mark.slow
def test_blocks_in_any_order_give_equal_bytes(tmp_path, header):
    expected = write(path_of(tmp_path / "a"), header).read_bytes()
    for seed in range(5):
        path = path_of(tmp_path / str(seed))
        dump(path, header, np.random.default_rng(seed).permutation(BLOCKS))
        assert path.read_bytes() == expected


def test_writing_leaves_the_file_alone(path, header):
    write(path, header)
    assert left_in(path.parent.parent) == ["primary/views_0-2.h5"]
    assert [p.name for p in path.parent.parent.iterdir()] == ["primary"]


def test_views_of_a_file_need_not_begin_at_0(tmp_path):
    header = make_header("float32", views=ViewRange(5, 7))
    path = write(path_of(tmp_path, header.views), header)
    labels = open_soft_labels(path)
    assert str(labels.views) == "5-6"
    found = np.stack([labels.logits(IDS, np.full(len(IDS), view)) for view in (5, 6)])
    assert np.array_equal(found, draw(header))


def test_a_block_may_be_written_again(tmp_path, header):
    expected = write(path_of(tmp_path / "a"), header).read_bytes()
    path, logits, features = path_of(tmp_path), draw(header), draw_beside(header)
    with create_soft_labels(path, header, "code") as writer:
        for block in [*writer.missing, *writer.missing[::-1]]:
            store(writer, block, logits, features)
    assert path.read_bytes() == expected


# Interruption


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(0, BLOCKS), max_size=4), st.permutations(range(BLOCKS)))
def test_interrupted_dumps_go_on_with_what_is_missing_and_end_with_the_same_bytes(tmp_path_factory, stops, order):
    folder = tmp_path_factory.mktemp("interrupted")
    header = make_header("uint8")
    expected = write(path_of(folder / "a"), header).read_bytes()
    path = path_of(folder / "b")
    wanted = [(view, block) for view in range(3) for block in range(3)]
    written = []
    for stop in stops:
        left = BLOCKS - len(written)
        now = [i for i in order if i < left]
        if stop >= left:
            break
        with create_soft_labels_expecting(path, header, wanted, written) as missing:
            chosen = [missing[i] for i in now[:stop]]
        interrupt(path, header, stop, now)
        assert not path.exists()
        written += chosen
    last = dump(path, header)
    assert sorted(written + last) == wanted
    assert path.read_bytes() == expected
    assert resume_folders(path) == []
    shutil.rmtree(folder)


@contextmanager
def create_soft_labels_expecting(path, header, wanted, written):
    """Opens and leaves a dump: it must ask for what is not written, view by view, and for nothing else."""
    with suppress(StopError), create_soft_labels(path, header, "code") as writer:
        missing = [(block.view, block.index) for block in writer.missing]
        assert missing == [block for block in wanted if block not in written]
        assert (writer.num_kept, writer.num_damaged) == (len(written), 0)
        raise StopError
    yield missing


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, EdpipeError, ConnectionError])
def test_an_error_inside_the_block_is_the_one_that_is_seen_and_keeps_what_is_finished(path, error):
    header = make_header()

    def write_it():
        with create_soft_labels(path, header, "code") as writer:
            store(writer, writer.missing[0], draw(header), {})
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write_it()
    assert not path.exists()
    assert len(dump(path, header)) == BLOCKS - 1


def test_an_old_file_stays_until_the_new_one_is_whole(path):
    header = make_header()
    write(path, header)
    old = path.read_bytes()
    other = replace(header, provenance=replace(PROVENANCE, teacher_digest="f" * 16))
    interrupt(path, other, 5)
    assert path.read_bytes() == old
    dump(path, other)
    assert open_soft_labels(path).provenance.teacher_digest == "f" * 16


def test_a_cached_object_behind_a_hard_link_is_not_touched(path):
    header = make_header()
    write(path, header)
    old = path.read_bytes()
    os.link(path, path.with_name("cached"))
    other = replace(header, provenance=replace(PROVENANCE, teacher_digest="f" * 16))
    write(path, other)
    assert path.with_name("cached").read_bytes() == old


def test_a_cached_object_behind_a_symbolic_link_is_not_taken_back_for_a_partial_file(path, monkeypatch):
    """After a kill between naming the file and removing the journal, DVC may put a link in the file's place."""
    header = make_header()

    def stop(folder):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr("edpipe.soft_labels.file.writer.remove_folder", stop)
        with pytest.raises(StopError):
            write(path, header)
    expected, cached = path.read_bytes(), path.with_name("cached")
    path.unlink()
    write(cached, replace(header, provenance=replace(PROVENANCE, teacher_digest="f" * 16)))
    old = cached.read_bytes()
    path.symlink_to(cached)
    assert len(dump(path, header)) == BLOCKS
    assert cached.read_bytes() == old
    assert path.read_bytes() == expected
    assert not path.is_symlink()


def row_offset(header, column, view, row):
    """Where a row lies in the file."""
    start, _ = lay_out(header, None).large[column]
    return start + (view * len(IDS) + row) * header.columns()[column].row_bytes


@pytest.mark.parametrize("column", ["logits", "scale", "attention/2", "hint"])
def test_a_finished_block_that_was_damaged_meanwhile_is_made_again(tmp_path, column):
    header = make_header("uint8", with_maps=True, with_hint=True)
    expected = write(path_of(tmp_path / "a"), header).read_bytes()
    path = path_of(tmp_path)
    interrupt(path, header, 7)
    partial = resume_folders(path)[0] / "partial.h5"
    data = bytearray(partial.read_bytes())
    # Row 4 of view 1 lies in block 1 of that view.
    offset = row_offset(header, column, 1, 4)
    data[offset] ^= 1
    partial.write_bytes(data)
    with suppress(StopError), create_soft_labels(path, header, "code") as writer:
        assert (writer.num_kept, writer.num_damaged) == (6, 1)
        assert [(b.view, b.index) for b in writer.missing] == [(1, 1), (2, 1), (2, 2)]
        raise StopError
    assert dump(path, header) == [(1, 1), (2, 1), (2, 2)]
    assert path.read_bytes() == expected


@pytest.mark.parametrize("damage", ["truncated", "emptied"])
def test_a_file_that_lost_its_rows_is_made_again(tmp_path, damage):
    header = make_header("float32")
    expected = write(path_of(tmp_path / "a"), header).read_bytes()
    path = path_of(tmp_path)
    interrupt(path, header, 7)
    partial = resume_folders(path)[0] / "partial.h5"
    partial.write_bytes(b"" if damage == "emptied" else partial.read_bytes()[: row_offset(header, "logits", 1, 4)])
    redone = dump(path, header)
    assert redone == [(v, b) for v in range(3) for b in range(3)][0 if damage == "emptied" else 4 :]
    assert path.read_bytes() == expected


def test_a_journal_without_its_file_counts_for_nothing(path):
    header = make_header()
    interrupt(path, header, 7)
    (resume_folders(path)[0] / "partial.h5").unlink()
    assert len(dump(path, header)) == BLOCKS


def test_entries_that_are_none_of_this_file_count_for_nothing(path):
    header = make_header()
    interrupt(path, header, 4)
    journal = resume_folders(path)[0] / "journal"
    entry = json.loads(journal.read_bytes().splitlines()[1].rpartition(b" ")[0])
    own = Journal(journal, journal.parent.name)
    for change in ({"view": 3}, {"view": -1}, {"block": 3}, {"block": -1}, {"more": 1}):
        own.append(entry | change)
    own.append({"block": 8})
    own.close()
    assert len(dump(path, header)) == BLOCKS - 4


def test_another_dumps_journal_is_refused(path):
    header = make_header()
    interrupt(path, header, 4)
    folder = resume_folders(path)[0]
    (folder / "journal").unlink()
    Journal(folder / "journal", "another").close()
    text = refused(StaleJournalError, lambda: dump(path, header))
    assert text.startswith(f"{folder}/journal: belongs to another dump")


# What it is made from


OTHERS = {
    "code": {"code": "other"},
    "teacher": {"provenance": replace(PROVENANCE, teacher_digest="f" * 16)},
    "views": {"provenance": replace(PROVENANCE, view_spec="{}")},
    "labels": {"labels": np.array([2, 4, 7, 8, 11, 2, 8], dtype=np.int32)},
    "keys": {"sample_keys": np.arange(7, dtype=np.uint64)},
    "storage": {"storage": STORAGE["float16"]},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_dump_of_something_else_starts_anew_and_removes_what_was_left(tmp_path, what):
    changes = dict(OTHERS[what])
    code = changes.pop("code", "code")
    header = make_header()
    path = path_of(tmp_path)
    interrupt(path, header, 5)
    [old] = resume_folders(path)
    other = replace(header, **changes)
    interrupt(path, other, 2, code=code)
    [new] = resume_folders(path)
    assert new != old
    assert len(dump(path, other, code=code)) == BLOCKS - 2
    assert path.read_bytes() == write(path_of(tmp_path / "a"), other).read_bytes()


def test_what_waits_for_other_files_stays(tmp_path):
    header = make_header()
    paths = [path_of(tmp_path, "0-2"), path_of(tmp_path, "0-20"), path_of(tmp_path, "0-2", subset="more")]
    headers = [header, replace(header, views=ViewRange(0, 21)), replace(header, labels=header.labels[::-1].copy())]
    for each, about in zip(paths, headers, strict=True):
        interrupt(each, about, 2)
    assert len(resume_folders(paths[0])) == 3
    dump(paths[0], header)
    assert [p.name.rpartition("-")[0] for p in resume_folders(paths[0])] == ["more-views_0-2", "primary-views_0-20"]


def test_max_kl_is_not_what_a_file_is_made_from(path):
    header = make_header("uint8")
    interrupt(path, header, 5)
    larger = replace(header, storage=header.storage.model_copy(update={"max_kl": 1.0}))
    assert len(dump(path, larger)) == BLOCKS - 5


# Two at once


def test_two_writers_at_once_are_refused(path):
    header = make_header()
    with create_soft_labels(path, header, "code") as writer:
        for block in writer.missing[:4]:
            store(writer, block, draw(header), {})
        text = refused(BusyError, lambda: dump(path, header))
        assert text == f"{resume_folders(path)[0]}: another process is writing these soft labels; wait for it"
        # Nor is its work swept away by a dump of something else.
        interrupt(path, replace(header, class_ids=header.class_ids + 1, labels=header.labels + 1), 1)
        for block in writer.missing:
            store(writer, block, draw(header), {})
    assert np.array_equal(read_all(open_soft_labels(path)).argmax(axis=2), draw(header).argmax(axis=2))


def test_dumps_of_two_files_of_one_teacher_may_run_at_once(tmp_path):
    first, second = make_header(views=ViewRange(0, 2)), make_header(views=ViewRange(2, 4))
    paths = [path_of(tmp_path, header.views) for header in (first, second)]
    with create_soft_labels(paths[0], first, "code") as writer:
        dump(paths[1], second)
        for block in writer.missing:
            store(writer, block, draw(first), {}, first.views)
    assert [open_soft_labels(path).views for path in paths] == [first.views, second.views]
    assert resume_folders(paths[0]) == []


# What is refused


def with_budget(precision, max_kl):
    header = make_header(precision)
    return replace(header, storage=header.storage.model_copy(update={"max_kl": max_kl}))


def test_a_dump_over_budget_stops_at_once_and_a_larger_budget_goes_on_from_there(tmp_path):
    path = path_of(tmp_path)
    bound = open_soft_labels(write(path_of(tmp_path / "a"), make_header("uint4"))).seal.statistics["kl_bound"]
    text = refused(TeacherError, lambda: dump(path, with_budget("uint4", bound * 0.999)))
    assert text == (
        f"{path}: storing these logits may cost {bound:.3g} nats of KL at temperature 4, storage.max_kl allows "
        f"{bound * 0.999:g}; choose a finer precision or a larger max_kl"
    )
    assert not path.exists()
    assert len(dump(path, with_budget("uint4", bound))) < BLOCKS
    assert path.read_bytes() == path_of(tmp_path / "a").read_bytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", sorted(STORAGE))
def test_a_logit_that_is_not_finite_is_refused_by_sample_and_view(path, precision, value):
    header = make_header(precision)
    logits = draw(header)
    logits[1, 4, 2] = value

    def write_it():
        with create_soft_labels(path, header, "code") as writer:
            for block in writer.missing:
                store(writer, block, logits, {})

    assert refused(TeacherError, write_it) == (
        "old/primary: gives a logit that is not finite for sample 12, view 1; train or fetch the teacher again"
    )
    assert not path.exists()


@pytest.mark.parametrize("precision", ["float16", "uint8", "uint4", "top_k"])
def test_a_logit_that_does_not_fit_is_refused(path, precision):
    header = make_header(precision)
    logits = draw(header)
    logits[1, 4] = [1e6, -1e6, 0, 0, 0]

    def write_it():
        with create_soft_labels(path, header, "code") as writer:
            for block in writer.missing:
                store(writer, block, logits, {})

    text = refused(TeacherError, write_it)
    assert re.fullmatch(r"old/primary: .*1e\+06.*; use precision: float32", text)
    assert not path.exists()


@pytest.mark.parametrize("num_bytes", [0, 10, 100, 5000, 9000])
def test_a_full_disk_is_one_line_at_the_start(path, num_bytes):
    header = make_header("float32", with_maps=True)
    with largest_file(num_bytes):
        text = refused(OverwriteError, lambda: dump(path, header))
    [folder] = resume_folders(path)
    assert text == f"{path}: cannot be written: File too large; finished blocks stay in {folder.parent}"
    assert not path.exists()
    assert len(dump(path, header)) == BLOCKS


def test_a_disk_that_fills_up_meanwhile_is_one_line_and_keeps_what_is_finished(tmp_path):
    header = make_header("float32", with_maps=True)
    expected = write(path_of(tmp_path / "a"), header).read_bytes()
    path, logits, features = path_of(tmp_path), draw(header), draw_beside(header)

    def write_it():
        with create_soft_labels(path, header, "code") as writer:
            for block in writer.missing[:4]:
                store(writer, block, logits, features)
            with largest_file(row_offset(header, "logits", 1, 4)):
                store(writer, writer.missing[0], logits, features)

    text = refused(OverwriteError, write_it)
    assert text.startswith(f"{path}: cannot be written: File too large; finished blocks stay in ")
    assert dump(path, header) == [(v, b) for v in range(3) for b in range(3)][4:]
    assert path.read_bytes() == expected


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "primary").write_text("in the way")
    text = refused(OverwriteError, lambda: dump(path_of(tmp_path), make_header()))
    assert text.startswith(f"{path_of(tmp_path)}: cannot be written: ")


def test_a_folder_in_the_way_is_one_line_and_costs_no_block(path):
    header = make_header()
    (path / "something").mkdir(parents=True)
    text = refused(OverwriteError, lambda: dump(path, header))
    assert text.startswith(f"{path}: cannot be written: Is a directory; finished blocks stay in ")
    shutil.rmtree(path)
    assert dump(path, header) == []


# Its record, and the moments around it


def test_a_record_is_made_of_the_whole_file_before_it_gets_its_name(path):
    header, seen = make_header(), []

    def describe(file):
        assert not path.exists()
        seen.append(open_soft_labels(file).digest)
        return {"digest": seen[0]}

    with create_soft_labels(path, header, "code", describe) as writer:
        for block in writer.missing:
            store(writer, block, draw(header), {})
    assert seen == [open_soft_labels(path).digest]
    assert read_record(path.with_suffix(".json")) == {"digest": seen[0]}
    assert resume_folders(path) == []


def test_a_failure_while_the_record_is_made_costs_no_block(path):
    header = make_header()

    def fail(file):
        raise StopError

    def write_it():
        with create_soft_labels(path, header, "code", fail) as writer:
            for block in writer.missing:
                store(writer, block, draw(header), {})

    with pytest.raises(StopError):
        write_it()
    assert not path.exists()
    assert dump(path, header) == []
    assert open_soft_labels(path)


@pytest.mark.parametrize("name", ["write_record", "remove_folder"])
def test_an_end_after_the_file_got_its_name_costs_no_block(tmp_path, monkeypatch, name):
    header = make_header()
    expected = write(path_of(tmp_path / "a"), header).read_bytes()
    path = path_of(tmp_path)

    def stop(*_):
        raise StopError

    def write_it():
        with create_soft_labels(path, header, "code", lambda _: {"a": 1}) as writer:
            for block in writer.missing:
                store(writer, block, draw(header), {})

    monkeypatch.setattr(f"edpipe.soft_labels.file.writer.{name}", stop)
    with pytest.raises(StopError):
        write_it()
    monkeypatch.undo()
    assert path.read_bytes() == expected
    assert dump(path, header) == []
    assert path.read_bytes() == expected
    assert resume_folders(path) == []


def test_an_object_of_a_cache_is_not_taken_back_to_be_written_to(path, monkeypatch):
    header = make_header()

    def stop(*_):
        raise StopError

    monkeypatch.setattr("edpipe.storage.unfinished.shutil.rmtree", stop)
    with pytest.raises(StopError):
        dump(path, header)
    monkeypatch.undo()
    cached = path.with_name("cached")
    os.link(path, cached)
    inode = cached.stat().st_ino
    assert len(dump(path, header)) == BLOCKS
    assert cached.stat().st_ino == inode != path.stat().st_ino
    assert cached.read_bytes() == path.read_bytes()


# Statistics


@pytest.mark.parametrize("precision", sorted(set(STORAGE) - {"sampled"}))
def test_statistics_are_those_of_stored_against_exact_logits(path, precision):
    header = make_header(precision)
    exact = draw(header)
    dump(path, header, np.random.default_rng(0).permutation(BLOCKS))
    labels = open_soft_labels(path)
    stored, found = read_all(labels), labels.seal.statistics
    error = stored.astype(np.float64) - exact
    kl = row_kl(exact.reshape(-1, 5), stored.reshape(-1, 5), 4.0)
    assert found["max_abs_error"] == np.abs(error).max()
    assert found["max_error_range"] == (error.max(axis=2) - error.min(axis=2)).max()
    assert found["kl_bound"] == pytest.approx(found["max_error_range"] ** 2 / 128, rel=1e-12)
    assert found["measured_mean_kl"] == pytest.approx(kl.mean(), rel=1e-9, abs=1e-15)
    assert found["measured_max_kl"] == kl.max() <= found["kl_bound"]
    assert labels.seal.agreement.sum() == (stored.argmax(axis=2) == header.local_labels).sum()


def test_of_samples_drawn_from_the_teacher_no_error_is_certified(path):
    found = open_soft_labels(write(path, make_header("sampled"))).seal.statistics
    assert all(value == np.inf for value in found.values())


def test_statistics_do_not_depend_on_who_wrote_the_blocks(tmp_path):
    header = make_header("uint8")
    expected = write(path_of(tmp_path / "a"), header).read_bytes()
    path = path_of(tmp_path)
    for _ in range(BLOCKS):
        interrupt(path, header, 1) if len(resume_folders(path)) == 0 or left(path) > 1 else dump(path, header)
    assert path.read_bytes() == expected


def left(path):
    """Blocks that no journal holds."""
    [folder] = resume_folders(path)
    return BLOCKS - (len((folder / "journal").read_bytes().splitlines()) - 1)


# Power cuts


def test_rows_are_on_disk_before_the_journal_that_vouches_for_them(path, monkeypatch):
    blocks, module = "edpipe.storage.journalled_blocks", "edpipe.soft_labels.file.writer"
    steps = []
    monkeypatch.setattr(f"{blocks}.SYNC_EVERY_S", 0.0)
    monkeypatch.setattr(f"{blocks}.os.fdatasync", lambda _: steps.append("rows"))
    monkeypatch.setattr(f"{blocks}.Journal.sync", lambda _: steps.append("journal"))
    monkeypatch.setattr(f"{module}.sync_to_disk", lambda _: steps.append("folder"))
    replace_file = os.replace
    monkeypatch.setattr(f"{module}.os.replace", lambda *paths: (steps.append("rename"), replace_file(*paths)))
    dump(path, make_header())
    assert steps == ["rows", "journal"] * (BLOCKS + 1) + ["rename", "folder"]
