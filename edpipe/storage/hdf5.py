"""HDF5 files that appear whole or not at all, even when the disk is full."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from edpipe.storage.atomic import write_atomically

VERSIONS = ("v108", "v108")
"""Object headers with checksums and without time stamps or a limit on attributes; read by HDF5 1.8 (2008) and later."""


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
