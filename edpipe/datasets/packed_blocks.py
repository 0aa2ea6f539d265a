"""Blocks of stored images, kept until all of them are packed: what a killed process has finished is not made again.

They lie one after the other in a file of a hidden folder (`edpipe.storage.unfinished`), next to a journal that has a
line for each. The next call takes over all blocks from the first on whose bytes are those of the journal and whose
raw files are unchanged.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO

import numpy as np

from edpipe.datasets.dataset_writer import Contents
from edpipe.storage.digests import digest_bytes
from edpipe.storage.journal import Journal
from edpipe.storage.unfinished import disk_errors, lock, remove_folder, remove_others, resume_folder, write_all

SYNC_EVERY_S = 1.0
"""So much work at most is lost to a power cut; a kill only what is being made."""


@dataclass(frozen=True)
class BlockFacts:
    """What is known of a block's samples; those that are left aside have no place in the lists."""

    stamp: str
    """Of its raw files: another one, other files."""
    lengths: list[int]
    """Bytes of each image, as stored."""
    keys: list[int]
    counts: list[list[int]]
    """How often each value 0 … 255 occurs in each channel of its train images."""
    rules: dict[str, int]
    """How many images each rule for odd images was applied to."""
    left_aside: dict[str, str]
    """Why, by source."""


_ENTRY = {"block", "digest", *(field.name for field in fields(BlockFacts))}


class PackedBlocks:
    """The blocks of one dataset, in order; use through `open_blocks`."""

    def __init__(self, target: Path, descriptor: int, journal: Journal, stamps: Iterator[str]) -> None:
        self._target, self._descriptor, self._journal = target, descriptor, journal
        self.done: list[BlockFacts] = []
        """Facts of the blocks that are finished."""
        self._size = 0
        self._synced_s = time.monotonic()
        entries = {entry["block"]: entry for entry in journal.entries if set(entry) == _ENTRY}
        for number, stamp in enumerate(stamps):
            if number not in entries or not self._take_over(entries[number], stamp):
                break
        os.ftruncate(descriptor, self._size)

    def _take_over(self, entry: dict, stamp: str) -> bool:
        facts = BlockFacts(**{name: entry[name] for name in _ENTRY - {"block", "digest"}})
        data = os.pread(self._descriptor, sum(facts.lengths), self._size)
        if facts.stamp != stamp or digest_bytes(data) != entry["digest"]:
            return False
        self._size += len(data)
        self.done.append(facts)
        return True

    def append(self, data: bytes, facts: BlockFacts) -> None:
        """Stores the next block.

        Raises:
            OverwriteError: the disk fails.
        """
        entry = {"block": len(self.done), "digest": digest_bytes(data), **asdict(facts)}
        with disk_errors(self._target):
            write_all(self._descriptor, memoryview(data), self._size)
            self._journal.append(entry)  # after its bytes: the journal never speaks of what is not there
            if time.monotonic() - self._synced_s >= SYNC_EVERY_S:
                self._sync()
        self._size += len(data)
        self.done.append(facts)

    def _sync(self) -> None:
        os.fdatasync(self._descriptor)
        self._journal.sync()
        self._synced_s = time.monotonic()

    def contents(self) -> Contents:
        """What is known of all images of all blocks."""
        counts = np.sum([np.array(block.counts, np.int64) for block in self.done], axis=0)
        keys = [key for block in self.done for key in block.keys]
        return Contents(keys, [length for block in self.done for length in block.lengths], counts)

    def stored(self) -> IO[bytes]:
        """A file with the bytes of all images."""
        return os.fdopen(os.dup(self._descriptor), "rb")


@contextmanager
def open_blocks(target: Path, key: str, stamps: Callable[[], Iterator[str]]) -> Iterator[PackedBlocks]:
    """The blocks of `target`, with those that an earlier call has finished; they are removed when the block ends well.

    Args:
        target: the file that is to be made of them.
        key: digest of all that decides what is packed, but for the raw files; blocks of another key are removed.
        stamps: gives the stamp of each block's raw files as they are now, in order.

    Raises:
        BusyError: another process is packing the same.
        StaleJournalError: the journal belongs to something else.
        OverwriteError: the disk fails.
    """
    folder = resume_folder(target, key)
    with disk_errors(target):
        remove_others(folder)
        folder.mkdir(parents=True, exist_ok=True)
        locked = lock(folder / "lock", "this dataset")
    with locked, closing(Journal(folder / "journal", folder.name)) as journal:
        with disk_errors(target):
            descriptor = os.open(folder / "images", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with disk_errors(target):
                blocks = PackedBlocks(target, descriptor, journal, stamps())
            yield blocks
        finally:
            os.close(descriptor)
        with disk_errors(target):
            remove_folder(folder)
