"""What a process holds of the files that it maps: pages that it has read count as its memory until it lets go of them.

The system's page cache keeps them all the same: to read them again costs a page fault, no disk. Containers and people
who look at a process count them, though, and one touched row may bring in 2 MB around it.
"""

import mmap
from collections.abc import Mapping
from threading import Lock
from weakref import WeakSet

import numpy as np
from jaxtyping import Int64

WHOLE_BYTES = 2**30
"""Files of up to so many bytes together stay as they are: rows are gathered fastest from pages at hand."""
HELD_BYTES = 2**28
"""Read in order before letting go."""
PIECE_ROWS = 64
"""Gathered from larger files before letting go: up to 128 MB where Linux keeps a file in pieces of 2 MB."""


class _Watched:
    """The mappings that there are, and how large they are together: counted when one is added, not at each gather."""

    def __init__(self) -> None:
        self._mapped: WeakSet[mmap.mmap] = WeakSet()
        self._lock = Lock()
        self.num_bytes = 0

    def add(self, mapped: mmap.mmap) -> None:
        with self._lock:
            self._mapped.add(mapped)
            self.num_bytes = sum(map(len, self._mapped))


_WATCHED = _Watched()


def watch(mapped: mmap.mmap) -> mmap.mmap:
    """The mapping itself, which counts from now on for as long as it is there."""
    _WATCHED.add(mapped)
    return mapped


def let_go(mapped: mmap.mmap) -> None:
    """The pages are this process's no longer; reading goes on, also in other threads that are at it."""
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def gather_rows(
    mapped: mmap.mmap, columns: Mapping[str, np.ndarray], positions: Int64[np.ndarray, " row"]
) -> dict[str, np.ndarray]:
    """The rows at these positions of each mapped column, in arrays of the caller's own."""
    if _WATCHED.num_bytes <= WHOLE_BYTES:
        return {name: column.take(positions, axis=0) for name, column in columns.items()}
    found = {name: np.empty((len(positions), *c.shape[1:]), c.dtype) for name, c in columns.items()}
    for start in range(0, len(positions), PIECE_ROWS):
        piece = slice(start, start + PIECE_ROWS)
        for name, column in columns.items():
            column.take(positions[piece], axis=0, out=found[name][piece])
        let_go(mapped)
    return found
