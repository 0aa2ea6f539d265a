"""Packing that is killed by SIGKILL, at any act upon the disk, decodes no finished block again and ends alike."""

import os
import shutil
import signal
from functools import partial

import pytest
from layouts import make_fashion_mnist, make_image_folder

from edpipe.errors import BusyError, DataError, OverwriteError
from edpipe.params.dataset import DatasetKnobs
from edpipe.steps import pack_dataset as step
from edpipe.storage.records import record_path
from edpipe.storage.unfinished import lock

BLOCK, NUM_IMAGES = 5, 36
NUM_BLOCKS = 8
ACTS = ("pwrite", "write", "fdatasync", "fsync", "ftruncate", "replace", "unlink", "rmdir", "mkdir")
"""What packing does to the disk, all in the module os."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(step, "BLOCK", BLOCK)
    monkeypatch.setenv("EDPIPE_THREADS", "1")


@pytest.fixture
def raw(tmp_path):
    return make_image_folder(tmp_path / "raw", per_class=NUM_IMAGES // 3)


def knobs(reader="folder", **values):
    return DatasetKnobs(reader=reader, image_size=8, download=False, **values)


def pack(root, out_path, reader="folder", **values):
    """Packs; gives the number of blocks that were made, and the bytes of file and record."""
    made = []
    make_block = step.make_block
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "make_block", lambda *block: made.append(1) or make_block(*block))
        step.pack_dataset("tiny", knobs(reader, **values), root, out_path)
    return len(made), (out_path.read_bytes(), record_path(out_path).read_bytes())


def in_child(work):
    """Runs it in a process of its own; gives how that ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dies_before(last, work):
    """Counts what is done to the disk, and kills this process before that act."""
    shutil._use_fd_functions = False  # rmtree then removes files one by one, by os.unlink
    count = 0

    def act(original, *arguments, **options):
        nonlocal count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    for name in ACTS:
        setattr(os, name, partial(act, getattr(os, name)))
    work()


def finished(folder):
    """Blocks that the journal tells of."""
    journals = list((folder / ".resume").glob("*/journal"))
    return max(len(journals[0].read_bytes().splitlines()) - 1, 0) if journals else 0


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "every"), [("raw", 1), ("jpeg", 3)])
def test_a_kill_before_any_act_costs_no_finished_block(tmp_path, raw, encoding, every):
    _, expected = pack(raw, tmp_path / "whole/datasets/tiny.h5", encoding=encoding)
    for act in range(1, 200, every):
        folder = tmp_path / str(act)
        out_path = folder / "datasets/tiny.h5"
        ended = in_child(lambda out=out_path, n=act: dies_before(n, lambda: pack(raw, out, encoding=encoding)))
        assert ended in (0, -signal.SIGKILL)
        if record_path(out_path).exists():
            assert (out_path.read_bytes(), record_path(out_path).read_bytes()) == expected
        kept = finished(folder)
        made, contents = pack(raw, out_path, encoding=encoding)
        # A journal that is gone was removed after the record was written: then all is made again, as it was asked for.
        assert made == NUM_BLOCKS - kept
        assert contents == expected
        assert not (folder / ".resume").exists()
        if ended == 0:
            break
    assert act > 2 * NUM_BLOCKS


def stop_after(num_blocks):
    """An interruption once so many blocks are stored."""

    def append(blocks, data, facts, original=step.PackedBlocks.append):
        original(blocks, data, facts)
        if len(blocks.done) == num_blocks:
            raise KeyboardInterrupt

    return append


def interrupted(root, out_path, num_blocks=4, reader="folder", **values):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step.PackedBlocks, "append", stop_after(num_blocks))
        with pytest.raises(KeyboardInterrupt):
            pack(root, out_path, reader, **values)


def test_what_is_packed_already_is_told(tmp_path, raw, capsys):
    out_path = tmp_path / "a/datasets/tiny.h5"
    interrupted(raw, out_path)
    assert pack(raw, out_path)[0] == NUM_BLOCKS - 4
    assert "pack tiny: 20 of 36 images were packed by an interrupted run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("change", ["touch", "content", "new", "gone", "label"])
def test_blocks_from_a_changed_raw_file_on_are_made_again(tmp_path, raw, change):
    out_path = tmp_path / "a/datasets/tiny.h5"
    interrupted(raw, out_path)
    path = raw / "cat/0007.png"  # in the second block
    if change == "touch":
        os.utime(path, ns=(1, 1))
    elif change == "content":
        path.write_bytes((raw / "owl/0003.png").read_bytes())
    elif change == "new":
        shutil.copyfile(path, raw / "cat/0006b.png")
    elif change == "gone":
        path.unlink()
    else:
        path.rename(raw / "owl/0007b.png")
    made, contents = pack(raw, out_path)
    # The splits of a class are drawn anew when its number of images changes: the first block may differ as well.
    num_blocks = NUM_BLOCKS - (change == "gone")
    assert num_blocks - 1 <= made <= num_blocks
    assert contents == pack(raw, tmp_path / "whole/datasets/tiny.h5")[1]


def test_packing_goes_on_from_a_damaged_image_that_was_replaced(tmp_path, raw):
    sound = (raw / "dog/0009.png").read_bytes()  # in the fifth block
    (raw / "dog/0009.png").write_bytes(b"")
    out_path = tmp_path / "a/datasets/tiny.h5"
    with pytest.raises(DataError):
        pack(raw, out_path)
    (raw / "dog/0009.png").write_bytes(sound)
    made, contents = pack(raw, out_path)
    assert made == NUM_BLOCKS - 4
    assert contents == pack(raw, tmp_path / "whole/datasets/tiny.h5")[1]


def test_samples_without_files_of_their_own_are_packed_anew_when_any_raw_file_changed(tmp_path):
    root = make_fashion_mnist(tmp_path / "raw", 20, 20)
    out_path = tmp_path / "a/datasets/tiny.h5"
    interrupted(root, out_path, reader="fashion_mnist")
    assert pack(root, out_path, "fashion_mnist")[0] == 4
    interrupted(root, out_path, reader="fashion_mnist")
    os.utime(next(path for path in root.rglob("*") if path.is_file()), ns=(1, 1))
    assert pack(root, out_path, "fashion_mnist")[0] == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "values", [{"image_size": 9}, {"channels": 1}, {"encoding": "jpeg"}, {"unreadable": "leave_aside"}]
)
def test_blocks_of_other_knobs_are_removed_and_not_taken_over(tmp_path, raw, values):
    out_path = tmp_path / "a/datasets/tiny.h5"
    interrupted(raw, out_path)
    other = knobs().model_copy(update=values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step.PackedBlocks, "append", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            step.pack_dataset("tiny", other, raw, out_path)
    assert len(list((tmp_path / "a/.resume").iterdir())) == 1
    assert pack(raw, out_path)[0] == NUM_BLOCKS


@pytest.mark.parametrize("damage", ["flip", "cut", "journal"])
def test_damaged_blocks_and_those_after_them_are_made_again(tmp_path, raw, damage):
    out_path = tmp_path / "a/datasets/tiny.h5"
    interrupted(raw, out_path)
    [folder] = (tmp_path / "a/.resume").iterdir()
    path = folder / ("journal" if damage == "journal" else "images")
    data = bytearray(path.read_bytes())
    if damage == "journal":
        lines = bytes(data).splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:3], lines[3].replace(b"stamp", b"stomp"), *lines[4:]]))
    elif damage == "flip":
        data[len(data) * 5 // 8] ^= 1  # in the third of four blocks
        path.write_bytes(data)
    else:
        path.write_bytes(data[: len(data) * 5 // 8])
    made, contents = pack(raw, out_path)
    assert made == NUM_BLOCKS - 2
    assert contents == pack(raw, tmp_path / "whole/datasets/tiny.h5")[1]


def test_two_at_once_are_refused(tmp_path, raw):
    out_path = tmp_path / "a/datasets/tiny.h5"
    interrupted(raw, out_path)
    [folder] = (tmp_path / "a/.resume").iterdir()
    with lock(folder / "lock", "it"), pytest.raises(BusyError, match="another process is writing this dataset; wait"):
        pack(raw, out_path)


def test_a_full_disk_is_one_line_and_finished_blocks_stay(tmp_path, raw, monkeypatch):
    out_path = tmp_path / "a/datasets/tiny.h5"
    written = []

    def full(descriptor, data, offset):
        written.append(offset)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return os_pwrite(descriptor, data, offset)

    os_pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(
        OverwriteError, match=r"tiny.h5: cannot be written: No space left on device; finished blocks stay"
    ):
        pack(raw, out_path)
    monkeypatch.setattr(os, "pwrite", os_pwrite)
    assert pack(raw, out_path)[0] == NUM_BLOCKS - 3
