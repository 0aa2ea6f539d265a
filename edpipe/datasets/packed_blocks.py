"""Blocks of stored images, kept until all of them are packed: what a killed process has finished is not made again.

They lie one after the other in a file of a hidden folder (`edpipe.storage.journalled_blocks`), next to a journal that
has a line for each. The next call takes over all blocks from the first on whose bytes are those of the journal and
whose raw files are unchanged.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO

import numpy as np

from edpipe.datasets.dataset_writer import Contents
from edpipe.storage.digests import digest_bytes
from edpipe.storage.journalled_blocks import JournalledBlocks, open_journalled_blocks
from edpipe.storage.unfinished import disk_errors, remove_folder


@dataclass(frozen=True)
class BlockFacts:
    """What is known of a block's samples; those that are left aside have no place in the lists."""

    stamp: str
    """Of its raw files: another one, other files."""
    lengths: list[int]
    """Bytes of each image, as stored."""
    keys: list[int]
    """Of their pixels."""
    stored_keys: list[int]
    """Of their bytes, as stored."""
    counts: list[list[int]]
    """How often each value 0 … 255 occurs in each channel of its train images."""
    rules: dict[str, int]
    """How many images each rule for odd images was applied to."""
    left_aside: dict[str, str]
    """Why, by source."""


_ENTRY = {"block", "digest", *(field.name for field in fields(BlockFacts))}


class PackedBlocks:
    """The blocks of one dataset, in order; use through `open_blocks`."""

    def __init__(self, blocks: JournalledBlocks, stamps: Iterator[str]) -> None:
        self._blocks = blocks
        self.done: list[BlockFacts] = []
        """Facts of the blocks that are finished."""
        self._size = 0
        entries = {entry["block"]: entry for entry in blocks.entries if set(entry) == _ENTRY}
        for number, stamp in enumerate(stamps):
            if number not in entries or not self._take_over(entries[number], stamp):
                break
        os.ftruncate(blocks.descriptor, self._size)

    def _take_over(self, entry: dict, stamp: str) -> bool:
        facts = BlockFacts(**{name: entry[name] for name in _ENTRY - {"block", "digest"}})
        data = self._blocks.read(self._size, sum(facts.lengths))
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
        self._blocks.finish([(self._size, memoryview(data))], entry)
        self._size += len(data)
        self.done.append(facts)

    def contents(self) -> Contents:
        """What is known of all images of all blocks."""
        counts = np.sum([np.array(block.counts, np.int64) for block in self.done], axis=0)
        keys, stored_keys, lengths = (
            [value for block in self.done for value in getattr(block, name)]
            for name in ("keys", "stored_keys", "lengths")
        )
        return Contents(keys, stored_keys, lengths, counts)

    def stored(self) -> IO[bytes]:
        """A file with the bytes of all images."""
        return os.fdopen(os.dup(self._blocks.descriptor), "rb")


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
    with open_journalled_blocks(target, key, "images", "this dataset") as kept:
        with disk_errors(target):
            blocks = PackedBlocks(kept, stamps())
        yield blocks
        with disk_errors(target):
            remove_folder(kept.folder)
