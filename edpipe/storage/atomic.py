"""Files appear whole or not at all."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from edpipe.errors import OverwriteError


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` only if the block succeeds; removed when it fails.

    The bytes are on disk before the name is: after a crash or a power cut `path` is the old file or the new one.
    Renaming also matters beside a hard-linked cache, where writing in place would alter the cached object.

    Raises:
        OverwriteError: the folder cannot be made or written to, the disk is full, or `path` is a folder.
    """
    partial = path.with_name(f".{path.name}.{_host()}-{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        yield partial
        sync_to_disk(partial)
        os.replace(partial, path)
        sync_to_disk(path.parent)
    except OSError as error:
        _discard(partial)
        raise OverwriteError(f"{path}: cannot be written: {error.strerror or error}; nothing was changed") from error
    except BaseException:
        _discard(partial)
        raise


def remove_file(path: Path) -> None:
    """Removes a file, if it is there.

    Raises:
        OverwriteError: it cannot be removed, or `path` is a folder.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OverwriteError(f"{path}: cannot be removed: {error.strerror or error}; remove it by hand") from error


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes what killed processes of this host left of the file of this name, or of any; others may be alive."""
    beginning = re.escape(f".{name}.") if name else r"\..+\."
    pattern = re.compile(beginning + re.escape(_host()) + r"-(\d+)\.partial")
    for leftover in folder.iterdir():
        match = pattern.fullmatch(leftover.name)
        if match and not psutil.pid_exists(int(match[1])):
            _discard(leftover)


def write_text_atomically(path: Path, text: str) -> None:
    """The file `path` with exactly this text, whole or not at all."""
    with write_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _host() -> str:
    return re.sub(r"\W", "_", socket.gethostname())


def _discard(partial: Path) -> None:
    with suppress(OSError):  # absent, or in a folder that is none or allows nothing: the first error says so
        partial.unlink()


def sync_to_disk(path: Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
