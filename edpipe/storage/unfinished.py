"""Where unfinished artifacts wait for the same command: a hidden folder, used by one process at a time."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edpipe.errors import BusyError, OverwriteError

RESUME_FOLDER = ".resume"


def resume_folder(target: Path, key: str) -> Path:
    """Of one target made from one thing: other knobs, code or inputs have another key, and another folder.

    >>> str(resume_folder(Path("artifacts/datasets/digits.h5"), "0a"))
    'artifacts/.resume/datasets-digits-0a'
    """
    return target.parent.parent / RESUME_FOLDER / f"{target.parent.name}-{target.stem}-{key}"


def remove_others(folder: Path) -> None:
    """Removes what is left of the same target made from something else; what another process works at is left alone."""
    name = folder.name.rpartition("-")[0]
    for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if re.fullmatch(re.escape(name) + r"-[0-9a-f]+", other.name) and other != folder:
            with suppress(BusyError, OSError), lock(other / "lock", "this file"):
                shutil.rmtree(other)


def remove_folder(folder: Path) -> None:
    """Removes the folder, and the one that holds all such folders if it is empty then."""
    shutil.rmtree(folder)
    with suppress(OSError):  # not empty: another process is at work
        folder.parent.rmdir()


@contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Inside the block no other process holds this lock; a killed process lets go of it.

    Raises:
        BusyError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{path.parent}: another process is writing {what}; wait for it") from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """What the disk refuses, told in one line.

    Raises:
        OverwriteError: in the place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise OverwriteError(
            f"{target}: cannot be written: {error.strerror or error}; finished blocks stay in "
            f"{target.parent.parent / RESUME_FOLDER}"
        ) from error


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """All of these bytes at this place of a file."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
