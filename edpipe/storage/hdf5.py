"""HDF5 files that appear whole or not at all, even when the disk is full."""

import io
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from edpipe.storage.atomic import write_atomically

VERSIONS = ("v108", "v108")
"""Object headers with checksums and without time stamps or a limit on attributes; read by HDF5 1.8 (2008) and later."""
ALIGNMENT = 64
"""Bytes: where large arrays start, so that mapped rows of whole cache lines stay whole."""


class _Disk(io.FileIO):
    """A file that raises its first failure and after it takes all writes without writing them.

    HDF5 writes again when it closes a file; if that fails, the process crashes at its end.
    """

    failure: OSError | None = None
    is_closing = False

    def write(self, data: Any, /) -> int:
        """All of data, or nothing once a write has failed."""
        rest = memoryview(data)
        try:
            while rest and self.failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
            if not self.is_closing:
                raise
        return len(data)


@contextmanager
def write_hdf5_atomically(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to write to, which becomes `path` only if the block succeeds; equal writes give equal bytes.

    Raises:
        OverwriteError: the file cannot be written.
    """
    with write_atomically(path) as partial, _Disk(partial, "w+") as disk:
        try:
            with h5py.File(disk, "w", libver=VERSIONS) as file:
                try:
                    yield file
                finally:
                    disk.is_closing = True
        finally:
            if disk.failure is not None:
                raise disk.failure


class _Memory(io.RawIOBase):
    """A file in memory that keeps what is written and nothing for what is not: large arrays cost no byte."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[int, bytes]] = []
        self.size = 0
        self._position = 0

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As any file does."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """As any file does."""
        return self._position

    def write(self, data: Any, /) -> int:
        """Keeps a copy."""
        self.writes.append((self._position, bytes(data)))
        self._position += len(data)
        self.size = max(self.size, self._position)
        return len(data)

    def readinto(self, buffer: Any, /) -> int:
        """What was written last at each place, zeros elsewhere."""
        stop = min(self._position + len(buffer), max(self.size, self._position))
        data = _overlay(self.writes, self._position, stop)
        buffer[: len(data)] = data
        self._position = stop
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        """Longer or shorter."""
        self.size = self._position if size is None else size
        return self.size


class MappedFile(io.RawIOBase):
    """Reads a mapped file, for h5py: a file that is replaced meanwhile stays the one that was mapped."""

    def __init__(self, mapped: mmap.mmap) -> None:
        super().__init__()
        self._mapped, self._position = mapped, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As any file does."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._mapped)}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """As any file does."""
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """What lies there, as far as the file goes."""
        data = self._mapped[self._position : self._position + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _overlay(writes: list[tuple[int, bytes]], start: int, stop: int) -> bytearray:
    data = bytearray(stop - start)
    for offset, written in writes:
        low, high = max(start, offset), min(stop, offset + len(written))
        if low < high:
            data[low - start : high - start] = written[low - offset : high - offset]
    return data


@dataclass(frozen=True)
class Image:
    """An HDF5 file whose large arrays are still to be written: their places, and all other bytes."""

    size: int
    """Of the whole file, bytes."""
    large: Mapping[str, tuple[int, int]]
    """Where each large array starts and stops."""
    writes: tuple[tuple[int, bytes], ...]

    def extents(self, start: int) -> tuple[tuple[int, int], ...]:
        """Everything from `start` on that no large array covers: half-open, ascending."""
        found = []
        for low, high in sorted(self.large.values()):
            if start < low:
                found.append((start, low))
            start = max(start, high)
        return (*found, (start, self.size)) if start < self.size else tuple(found)

    def read(self, start: int, stop: int) -> bytes:
        """Bytes outside the large arrays; zeros where nothing was written."""
        return bytes(_overlay(list(self.writes), start, stop))

    def with_bytes(self, offset: int, data: bytes) -> "Image":
        """The same with these bytes on top."""
        return Image(self.size, self.large, (*self.writes, (offset, data)))


def hdf5_image(
    user_block_bytes: int,
    attributes: Mapping[str, Any],
    small: Mapping[str, np.ndarray],
    large: Mapping[str, tuple[tuple[int, ...], np.dtype]],
) -> Image:
    """Lays out a file; equal arguments give equal bytes, and values of equal size the same places.

    Args:
        user_block_bytes: left free at the start of the file.
        attributes: of the root group.
        small: arrays that are written now.
        large: shape and type of the arrays that are not; contiguous and aligned.
    """
    memory = _Memory()
    with h5py.File(
        memory,
        "w",
        libver=VERSIONS,
        userblock_size=user_block_bytes,
        alignment_threshold=ALIGNMENT,
        alignment_interval=ALIGNMENT,
    ) as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, values in small.items():
            file.create_dataset(name, data=values)
        places = {name: _reserve(file, name, *kind) for name, kind in large.items()}
    return Image(memory.size, places, tuple(memory.writes))


def _reserve(file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int]:
    """Makes room for an array without writing it."""
    group, _, leaf = name.rpartition("/")
    home = file.require_group(group) if group else file
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    dataset = h5py.h5d.create(home.id, leaf.encode(), h5py.h5t.py_create(dtype), space, creation)
    start = dataset.get_offset()
    return start, start + dataset.get_storage_size()


def fixed_text(text: str) -> np.ndarray:
    """An attribute's text as UTF-8 of fixed length.

    h5py's own texts lie in a heap without a checksum; one flipped bit there can make HDF5 read for ever.
    """
    encoded = text.encode()
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(len(encoded), 1)))


def plain_attribute(value: Any) -> Any:
    """An attribute as Python's own text or number."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if hasattr(value, "item") else value
