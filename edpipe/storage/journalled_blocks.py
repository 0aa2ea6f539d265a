"""Finished blocks of one artifact, kept from a kill: their bytes in one file, and a journal with a line for each.

Both lie in the hidden folder of `edpipe.storage.unfinished`. A block's bytes are written before its line, so that the
journal never speaks of what is not there; who takes a block over holds its bytes against the digest in its line.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from edpipe.storage.journal import Journal
from edpipe.storage.unfinished import blocks_folder, disk_errors, lock, remove_others

JOURNAL = "journal"
SYNC_EVERY_S = 1.0
"""So much work at most is lost to a power cut; a kill only what is being made."""


class JournalledBlocks:
    """The file and its journal; use through `open_journalled_blocks`.

    Args:
        target: the artifact that they are for, which errors name.
        folder: where both lie.
        descriptor: of the file.
        journal: of its blocks.
    """

    def __init__(self, target: Path, folder: Path, descriptor: int, journal: Journal) -> None:
        self.folder, self.descriptor = folder, descriptor
        self.entries = journal.entries
        """What was said of each block when it was finished, by earlier calls."""
        self._target, self._journal = target, journal
        self._synced_s = time.monotonic()

    def read(self, offset: int, num_bytes: int) -> bytes:
        """What lies there, as far as the file goes."""
        return os.pread(self.descriptor, num_bytes, offset)

    def finish(self, pieces: Iterable[tuple[int, memoryview]], entry: dict[str, Any]) -> None:
        """Stores one block.

        Args:
            pieces: its bytes, each with the place where they begin in the file.
            entry: what the journal says of it, with a digest of its bytes.

        Raises:
            OverwriteError: the disk fails.
        """
        with disk_errors(self._target):
            for offset, data in pieces:
                write_all(self.descriptor, data, offset)
            self._journal.append(entry)
            if time.monotonic() - self._synced_s >= SYNC_EVERY_S:
                self.sync()

    def sync(self) -> None:
        """Waits until all blocks, and then the journal that vouches for them, are on disk."""
        os.fdatasync(self.descriptor)
        self._journal.sync()
        self._synced_s = time.monotonic()


@contextmanager
def open_journalled_blocks(
    target: Path, key: str, name: str, what: str, prepare: Callable[[Path], None] = lambda _folder: None
) -> Iterator[JournalledBlocks]:
    """The blocks of `target`, for one process at a time; those that were made of something else are removed.

    Args:
        target: the artifact that is to be made of them.
        key: digest of all that decides it.
        name: of the file in the hidden folder.
        what: as a second process is told what the first one is writing.
        prepare: is called with the hidden folder before anything in it is opened.

    Raises:
        BusyError: another process is at it.
        StaleJournalError: the journal belongs to something else.
        OverwriteError: the disk fails.
    """
    folder = blocks_folder(target, key)
    with ExitStack() as stack:
        with disk_errors(target):
            remove_others(folder)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(folder / "lock", what))
            prepare(folder)
            descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
            stack.callback(os.close, descriptor)
            journal = stack.enter_context(closing(Journal(folder / JOURNAL, folder.name)))
        yield JournalledBlocks(target, folder, descriptor, journal)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """All of these bytes at this place of a file."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
