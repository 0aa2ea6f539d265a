"""Where unfinished artifacts wait for the same command: hidden folders, keyed by all that decides the artifact.

Finished blocks lie outside the artifact's own folder, which DVC may follow as a whole; one process at a time uses them,
and those of another key are removed at once. Checkpoints lie beside the artifact; those of another key are kept until
it is whole.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

from edpipe.errors import BusyError, OverwriteError

RESUME_FOLDER = ".resume"


def blocks_folder(target: Path, key: str) -> Path:
    """For blocks of one target made from one thing: other knobs, code or inputs have another key, and another folder.

    >>> str(blocks_folder(Path("artifacts/datasets/digits.h5"), "0a"))
    'artifacts/.resume/datasets-digits-0a'
    """
    return target.parent.parent / RESUME_FOLDER / f"{target.parent.name}-{target.stem}-{key}"


def checkpoints_folder(target: Path) -> Path:
    """For checkpoints of one target, in a folder for each key.

    >>> str(checkpoints_folder(Path("artifacts/students/digits_ed/seed0/1_primary.safetensors")))
    'artifacts/students/digits_ed/seed0/.resume/1_primary'
    """
    return target.parent / RESUME_FOLDER / target.stem


def remove_others(folder: Path) -> None:
    """Removes what is left of the same target made from something else; what another process works at is left alone."""
    name = folder.name.rpartition("-")[0]
    for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if re.fullmatch(re.escape(name) + r"-[0-9a-f]+", other.name) and other != folder:
            with suppress(BusyError, OSError), lock(other / "lock", "this file"):
                shutil.rmtree(other)


def remove_folder(folder: Path) -> None:
    """Removes the folder, and the one that holds all such folders if it is empty then.

    Raises:
        OSError: it is not there or cannot be removed.
    """
    shutil.rmtree(folder)
    with suppress(OSError):  # others are in it, perhaps since a moment ago
        folder.parent.rmdir()


@contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Inside the block no other process holds this lock; a killed process lets go of it.

    Raises:
        BusyError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not lock_descriptor(descriptor, blocking=False):
            raise BusyError(f"{path.parent}: another process is writing {what}; wait for it")
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
