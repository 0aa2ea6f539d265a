"""One process at a time uses what is unfinished; a killed one lets go of it; blocks come back as they were finished."""

import os
import signal
import threading
from pathlib import Path

import pytest

from edpipe.errors import BusyError, OverwriteError, StaleJournalError
from edpipe.storage.journalled_blocks import open_journalled_blocks
from edpipe.storage.unfinished import blocks_folder, lock, remove_folder

KEY, OTHER_KEY = "0a", "0b"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "datasets" / "tiny.h5"


def holding(path, ready):
    """A process of its own that holds the lock until it is killed."""
    child = os.fork()
    if child == 0:
        with lock(path, "it"):
            os.write(ready, b"1")
            signal.pause()
    return child


def test_a_lock_is_held_until_its_process_is_killed(tmp_path):
    path = tmp_path / "lock"
    told, ready = os.pipe()
    child = holding(path, ready)
    os.read(told, 1)
    with pytest.raises(BusyError, match=f"^{tmp_path}: another process is writing it; wait for it$"), lock(path, "it"):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with lock(path, "it"):
        pass
    assert path.exists()
    os.close(told)
    os.close(ready)


def test_a_lock_keeps_out_other_threads_and_the_same_one(tmp_path):
    path, refused = tmp_path / "lock", []

    def try_it():
        try:
            with lock(path, "it"):
                pass
        except BusyError:
            refused.append(1)

    with lock(path, "it"):
        try_it()
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    try_it()
    assert refused == [1, 1]


def finish(target, *numbers, key=KEY):
    with open_journalled_blocks(target, key, "bytes", "it") as blocks:
        for number in numbers:
            blocks.finish([(2 * number, memoryview(b"ab")), (10 + number, memoryview(b"c"))], {"block": number})
        return blocks.folder


def kept(target, key=KEY):
    with open_journalled_blocks(target, key, "bytes", "it") as blocks:
        return blocks.entries, blocks.read(0, 100)


def test_blocks_come_back_as_they_were_finished(target):
    folder = finish(target, 0)
    finish(target, 1)
    assert kept(target) == ([{"block": 0}, {"block": 1}], b"abab" + bytes(6) + b"cc")
    assert folder == blocks_folder(target, KEY)


def test_blocks_of_another_key_are_removed_unless_they_are_in_use(target):
    other = finish(target, 0, key=OTHER_KEY)
    with lock(other / "lock", "it"):
        assert kept(target) == ([], b"")
        assert other.is_dir()
    assert kept(target) == ([], b"")
    assert not other.exists()


def test_a_second_process_is_refused(target):
    with (
        open_journalled_blocks(target, KEY, "bytes", "this set"),
        pytest.raises(BusyError, match=r"another process is writing this set; wait for it$"),
        open_journalled_blocks(target, KEY, "bytes", "this set"),
    ):
        pass


def test_what_is_prepared_is_there_before_the_file_is_opened(target):
    def prepare(folder: Path) -> None:
        (folder / "bytes").write_bytes(b"taken back")

    with open_journalled_blocks(target, KEY, "bytes", "it", prepare) as blocks:
        assert blocks.read(0, 100) == b"taken back"


def test_the_journal_of_something_else_is_refused(target):
    folder = finish(target, 0)
    (folder / "journal").write_text("foreign\n")
    with pytest.raises(StaleJournalError, match=f"{folder}/journal: belongs to another dump, or is no journal; remove"):
        kept(target)


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(target, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    finish(target, 0)
    line = (
        f"{target}: cannot be written: No space left on device; finished blocks stay in {target.parent.parent}/.resume"
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OverwriteError) as caught:
            finish(target, 1)
    assert str(caught.value) == line
    assert kept(target)[0] == [{"block": 0}]


def test_the_folder_goes_with_the_last_of_its_folders(target):
    first, second = finish(target, 0), finish(target.with_stem("small"), 0)
    remove_folder(first)
    assert second.is_dir()
    remove_folder(second)
    assert not second.parent.exists()
