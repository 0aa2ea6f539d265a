"""Checkpoints: what comes back is what was written, or nothing; the last two are kept."""

import errno
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edpipe.errors import OverwriteError
from edpipe.storage import atomic, unfinished
from edpipe.storage.digests import digest_bytes
from edpipe.training.checkpoint import FORMAT, Checkpoints

KEY, OTHER_KEY = "0123456789abcdef", "fedcba9876543210"
DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
FACTS = st.fixed_dictionaries(
    {"iteration": st.integers(0, 10**10 - 1)},
    optional={"first_losses": st.lists(st.floats(allow_nan=False)), "tail_sum": st.floats(allow_nan=False)},
)


def checkpoints(folder, key=KEY, stem="1_primary"):
    return Checkpoints(folder / "seed0" / f"{stem}.safetensors", key)


@pytest.fixture
def kept(tmp_path):
    return checkpoints(tmp_path)


def write(kept, *iterations):
    """A checkpoint of each iteration, whose weights are its number; their paths."""
    for iteration in iterations:
        kept.write({"weight": torch.full((3, 4), float(iteration))}, {"iteration": iteration})
    return [next(kept.folder.glob(f"{iteration:010d}-*")) for iteration in iterations[-2:]]


def iterations(kept):
    return sorted(int(path.name[:10]) for path in kept.folder.glob("[!.]*"))


def newest(kept):
    """Iteration of the newest whole one, or None; paths of those that are damaged."""
    found, damaged = kept.newest()
    if found is None:
        return None, damaged
    assert torch.equal(found.tensors["weight"], torch.full((3, 4), float(found.facts["iteration"])))
    return found.facts["iteration"], damaged


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


@settings(deadline=None, max_examples=40)
@given(FACTS, st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=4), st.integers(0, 99))
def test_what_comes_back_is_what_was_written(facts, dtype, shape, seed):
    num_bytes = torch.Size(shape).numel() * dtype.itemsize
    drawn = torch.randint(0, 2, (num_bytes,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    tensor = (drawn if dtype == torch.bool else drawn * 177).view(dtype).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoints(Path(folder))
        kept.write({"one": tensor, "two": torch.tensor(7)}, facts)
        found, damaged = kept.newest()
    assert damaged == []
    assert found.facts == facts
    assert list(found.tensors) == ["one", "two"]
    assert (found.tensors["one"].dtype, found.tensors["one"].shape) == (dtype, tensor.shape)
    assert bits(found.tensors["one"]) == bits(tensor)


def test_the_order_in_memory_does_not_matter(kept):
    tensor = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    kept.write({"a": tensor.to(memory_format=torch.channels_last), "b": tensor.transpose(0, 3)}, {"iteration": 1})
    found, _ = kept.newest()
    assert torch.equal(found.tensors["a"], tensor)
    assert torch.equal(found.tensors["b"], tensor.transpose(0, 3))


def test_the_last_two_are_kept_and_the_newest_comes_first(kept):
    assert newest(kept) == (None, [])
    for iteration, expected in [(3, [3]), (9, [3, 9]), (10, [9, 10]), (100, [10, 100])]:
        write(kept, iteration)
        assert iterations(kept) == expected
        assert newest(kept) == (iteration, [])


def test_equal_states_give_equal_files(tmp_path):
    first, second = (write(checkpoints(tmp_path / name), 5)[0] for name in ("a", "b"))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def swap(older, newer):
    data = older.read_bytes()
    older.write_bytes(newer.read_bytes())
    newer.write_bytes(data)


def write_foreign(path, metadata=(("facts", '{"iteration": 9}'),)):
    """A sound safetensors file of another program, under a name that fits it."""
    data = safetensors.torch.save({"weight": torch.zeros(3, 4)}, metadata=dict(metadata))
    path.unlink()
    path.with_name(f"{path.name[:10]}-{digest_bytes(data)}.safetensors").write_bytes(data)


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "foreign": write_foreign,
    "no JSON": lambda path: write_foreign(path, [(FORMAT, "{")]),
    "other JSON": lambda path: write_foreign(path, [(FORMAT, '["key"]')]),
    "text": lambda path: path.write_text("no safetensors file"),
    "renamed": lambda path: path.rename(path.with_name(f"{10:010d}-{path.name[11:]}")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a dead link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_is_taken(kept, damage):
    _, path = write(kept, 8, 9)
    DAMAGES[damage](path)
    [damaged] = [path for path in kept.folder.iterdir() if not path.name.startswith(f"{8:010d}")]
    assert newest(kept) == (8, [damaged])


def test_two_whose_contents_were_swapped_are_both_left_out(kept):
    older, newer = write(kept, 8, 9)
    swap(older, newer)
    assert newest(kept) == (None, [newer, older])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_flipped_bit_is_found(data):
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoints(Path(folder))
        _, path = write(kept, 8, 9)
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        assert newest(kept) == (8, [path])


def test_those_of_other_keys_are_neither_read_nor_removed_until_all_are(tmp_path):
    mine, other, neighbour = checkpoints(tmp_path), checkpoints(tmp_path, OTHER_KEY), checkpoints(tmp_path, stem="all")
    write(other, 50, 60)
    write(neighbour, 70)
    assert newest(mine) == (None, [])
    write(mine, 1, 2, 3)
    assert [iterations(each) for each in (mine, other, neighbour)] == [[2, 3], [50, 60], [70]]
    mine.clear()
    assert [newest(each)[0] for each in (mine, other, neighbour)] == [None, None, 70]
    neighbour.clear()
    assert list((tmp_path / "seed0").iterdir()) == []


def test_one_that_was_copied_from_another_key_is_left_out(tmp_path):
    mine, other = checkpoints(tmp_path), checkpoints(tmp_path, OTHER_KEY)
    [path] = write(other, 60)
    write(mine, 5)
    shutil.copy(path, mine.folder)
    assert newest(mine) == (5, [mine.folder / path.name])


@pytest.mark.parametrize("num_damaged", [1, 2])
def test_after_damage_the_new_ones_are_kept_though_training_is_not_as_far_as_it_was(kept, num_damaged):
    for path in write(kept, 80, 90)[-num_damaged:]:
        path.write_bytes(b"")
    write(kept, 81 if num_damaged == 1 else 1)
    assert newest(kept) == (81 if num_damaged == 1 else 1, [])
    write(kept, 82)
    assert newest(kept) == (82, [])
    assert len(iterations(kept)) == 2


def test_clearing_nothing_is_no_error(kept, tmp_path):
    kept.clear()
    (tmp_path / "seed0").mkdir()
    kept.clear()
    write(kept, 1)
    kept.clear()
    kept.clear()
    assert list((tmp_path / "seed0").iterdir()) == []


def refused(act):
    """The one line of the error."""
    with pytest.raises(OverwriteError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_full_disk_is_one_line_and_keeps_those_before(kept, monkeypatch):
    write(kept, 1, 2)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        text = refused(lambda: write(kept, 3))
    assert re.fullmatch(
        r".*/0000000003-[0-9a-f]{16}\.safetensors: cannot be written: No space left on device; nothing was changed",
        text,
    )
    assert len(list(kept.folder.iterdir())) == 2
    assert newest(kept) == (2, [])


@pytest.mark.parametrize("place", ["folder", "folder.parent", "folder.parent.parent"])
def test_a_file_in_the_place_of_a_folder_is_one_line(kept, place):
    in_the_way = {"folder": kept.folder, "folder.parent": kept.folder.parent}.get(place, kept.folder.parent.parent)
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("in the way")
    assert "cannot be written: " in refused(lambda: write(kept, 1))
    assert newest(kept) == (None, [])
    assert in_the_way.read_text() == "in the way"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_an_unwritable_place_is_one_line_and_keeps_those_before(kept, monkeypatch, number):
    write(kept, 1, 2)

    def unwritable(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    for name in ("mkdir", "write_bytes", "unlink"):
        monkeypatch.setattr(atomic.Path, name, unwritable)
    assert f"cannot be written: {os.strerror(number)}; nothing was changed" in refused(lambda: write(kept, 3))
    assert newest(kept) == (2, [])


def test_what_cannot_be_removed_is_one_line(kept, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept.folder.parent.parent.mkdir(parents=True)
    kept.folder.parent.symlink_to(elsewhere)
    text = refused(kept.clear)
    assert text == f"{kept.folder.parent}: cannot be removed: Cannot call rmtree on a symbolic link; remove it by hand"


def test_a_folder_that_another_output_began_to_use_meanwhile_is_left(tmp_path, monkeypatch):
    mine, other = checkpoints(tmp_path), checkpoints(tmp_path, stem="2_middle")
    write(mine, 1)
    rmtree = shutil.rmtree

    def slow(path):
        rmtree(path)
        write(other, 2)

    monkeypatch.setattr(unfinished.shutil, "rmtree", slow)
    mine.clear()
    assert newest(other) == (2, [])


def test_leftovers_of_killed_writers_are_removed_by_the_next_write(kept):
    [path] = write(kept, 1)
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    host = re.sub(r"\W", "_", socket.gethostname())
    names = [
        f".{path.name.replace('1-', '7-')}.{end}.partial" for end in (f"{host}-{killed.pid}", f"{host}-1", "other-1")
    ]
    for name in names:
        (kept.folder / name).write_text("half")
    assert newest(kept) == (1, [])
    write(kept, 2)
    assert [(kept.folder / name).exists() for name in names] == [False, True, True]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("dump", [pickle.dumps, lambda bomb: _saved_by_torch(bomb)])
def test_nothing_is_unpickled(kept, tmp_path, dump):
    write(kept, 1)
    sign = tmp_path / "exploded"
    data = dump(Bomb(sign))
    assert FORMAT.encode() not in data
    for name in (f"{2:010d}-{digest_bytes(data)}.safetensors", "3.pt", "optimizer.pkl"):
        (kept.folder / name).write_bytes(data)
    found, [damaged] = newest(kept)
    assert (found, damaged.name[:10]) == (1, "0000000002")
    write(kept, 4)
    kept.clear()
    assert not sign.exists()
    pickle.loads(pickle.dumps(Bomb(sign)))  # it would have
    assert sign.exists()


def _saved_by_torch(bomb):
    with tempfile.TemporaryFile() as file:
        torch.save(bomb, file)
        file.seek(0)
        return file.read()
