"""Unpacks a zip or tar archive into a folder that appears whole or not at all; nothing is written outside of it.

Only plain files and folders are taken, and of a file only its bytes: no links, devices, owners or permissions.
"""

import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import lock_descriptor

from edpipe.errors import DataError
from edpipe.runtime.progress import LINE_EVERY_S, announce

COPY_BYTES = 1 << 20
PREFIX, LOCK = ".unpack-", "lock"
DAMAGES = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
"""What a damaged archive or a full disk makes the libraries raise; encrypted zip files are a RuntimeError."""


@dataclass(frozen=True)
class Limits:
    """The most that an archive may unpack to: files with folders, and bytes in all."""

    num_files: int
    num_bytes: int


@dataclass(frozen=True)
class _Entry:
    """One thing in an archive; `open` is None for a folder."""

    name: PurePosixPath
    open: Callable[[], BufferedIOBase] | None


class _RefusedError(Exception):
    """The archive holds what no data set holds."""


def unpack(
    archive: Path,
    goal: Path,
    limits: Limits,
    top: str = "",
    inner: Callable[[PurePosixPath], PurePosixPath | None] = lambda _name: None,
) -> Path:
    """The folder `goal`, which becomes what the archive holds below `top`.

    `inner` says, for a tar archive inside the archive, to which folder its content belongs; None for any other file.
    Several processes may unpack the same archive at once: the first that is done wins. What a killed one has left
    beside `goal` is removed.

    Raises:
        DataError: the archive is damaged or lacks `top`; a name in it leads outside; it holds a link or a device; it
            unpacks to more than the limits; the disk is full.
    """
    _remove_abandoned(goal.parent)
    try:
        with _unfinished_folder(goal.parent) as unfinished:
            _write_all(_entries(archive, inner), unfinished, limits, archive)
            if not (unfinished / top).is_dir():
                raise _RefusedError(f"it holds no folder {top}")
            os.sync()  # a folder that is renamed before its files are on the disk may be empty after a power cut
            os.rename(unfinished / top, goal)
    except _RefusedError as error:
        raise DataError(f"{archive}: is not unpacked: {error}; fetch the published archive") from error
    except DAMAGES as error:
        if not goal.is_dir():  # else another job has unpacked the same archive meanwhile
            reason = " ".join(str(error).split())
            raise DataError(
                f"{archive}: cannot be unpacked to {goal} ({reason}); free the disk or fetch the archive again"
            ) from error
    return goal


@contextmanager
def _unfinished_folder(parent: Path) -> Iterator[Path]:
    """A folder beside a locked file, by which other processes see that somebody is at work; removed at the end."""
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
    try:
        with (folder / "new").open("w") as lock:
            lock_descriptor(lock.fileno())
            os.replace(folder / "new", folder / LOCK)  # locked before anybody can find it
            content = folder / "content"  # with the usual permissions: the folder around it is closed to others
            content.mkdir()
            yield content
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        # An OSError: its process has removed it meanwhile, or it is another user's.
        with suppress(OSError), (folder / LOCK).open("r+") as lock:
            if lock_descriptor(lock.fileno(), blocking=False):
                shutil.rmtree(folder)


def _entries(archive: Path, inner: Callable[[PurePosixPath], PurePosixPath | None]) -> Iterator[_Entry]:
    """Everything in the archive in its order, with what the tar archives in it hold in place of these."""
    for entry in _zip_entries(archive) if archive.suffix == ".zip" else _tar_entries(archive):
        goal = inner(entry.name)
        if goal is None or entry.open is None:
            yield entry
            continue
        with entry.open() as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            yield from (_Entry(goal / inside.name, inside.open) for inside in _members(tar))


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _RefusedError(f"{info.filename} is a link or a device")
            name = _checked_name(info.filename)
            yield _Entry(name, None if info.is_dir() else lambda info=info: _opened(opened, info))


def _opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BufferedIOBase:
    stream: Any = archive.open(info)
    return stream


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    with tarfile.open(archive, "r:*") as tar:
        yield from _members(tar)


def _members(tar: tarfile.TarFile) -> Iterator[_Entry]:
    """Of a tar archive, one by one: to list them first would decompress the whole archive twice."""
    for member in tar:
        if not (member.isfile() or member.isdir()):
            raise _RefusedError(f"{member.name} is a link or a device")
        name = _checked_name(member.name)
        yield _Entry(name, None if member.isdir() else lambda member=member: _content(tar, member))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BufferedIOBase:
    stream: Any = tar.extractfile(member)  # never None: the member is a plain file
    return stream


def _checked_name(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise _RefusedError(f"the name {name!r} leads outside of its folder")
    return path


def _write_all(entries: Iterator[_Entry], folder: Path, limits: Limits, archive: Path) -> None:
    num_bytes, shown_s = 0, time.monotonic()
    for number, entry in enumerate(entries, start=1):
        if number > limits.num_files:
            raise _RefusedError(f"it holds more than {limits.num_files:,} files and folders")
        num_bytes += _write(entry, folder, limits.num_bytes - num_bytes)
        if num_bytes > limits.num_bytes:
            raise _RefusedError(f"it unpacks to more than {limits.num_bytes:,} bytes")
        if time.monotonic() - shown_s >= LINE_EVERY_S:
            shown_s = time.monotonic()
            announce(f"unpack {archive}: {number:,} files")


def _write(entry: _Entry, folder: Path, most_bytes: int) -> int:
    """How many bytes were written: all of the entry, or some more than the most that may be."""
    goal = folder / entry.name
    if entry.open is None:
        goal.mkdir(parents=True, exist_ok=True)
        return 0
    goal.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with entry.open() as stream, goal.open("xb") as file:  # x: a name that comes twice is refused
        while written <= most_bytes and (chunk := stream.read(COPY_BYTES)):
            written += file.write(chunk)
    return written
