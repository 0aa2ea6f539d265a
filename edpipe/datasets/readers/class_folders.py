"""Images in class folders whose layout is published: only files of its own suffix count, the rest is named aloud."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edpipe.datasets.images import open_image
from edpipe.datasets.raw import RawSample
from edpipe.errors import DataError
from edpipe.runtime.progress import announce

MOST_NAMED = 5
"""Strays that a line names; of more, their number."""


@dataclass(frozen=True)
class ClassFolder:
    """What one folder holds, each sorted by name.

    Attributes:
        images: Names of its images.
        strays: Names of files and folders that are no images by their suffix; hidden ones are not counted.
    """

    images: tuple[str, ...]
    strays: tuple[str, ...]


def list_images(folder: Path, suffix: str) -> ClassFolder:
    """The files in a folder that end in that suffix, in any case, and what else is there.

    Raises:
        DataError: there is no such folder, or it holds no such file.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_file()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); put the published folder here") from error
    images = tuple(name for name, is_file in found if is_file and name.lower().endswith(suffix.lower()))
    if not images:
        raise DataError(f"{folder}: class {folder.name} has no {suffix} image; put the published images here")
    counted = set(images)
    return ClassFolder(images, tuple(name for name, _ in found if name not in counted))


def list_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder, hidden ones apart.

    Raises:
        DataError: there is no such folder.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); put the published folder here") from error


def class_samples(base: Path, folders: Sequence[str], split: str | None, suffix: str) -> list[RawSample]:
    """All images of these folders below base, the labels being positions in `folders`; strays are announced.

    Raises:
        DataError: a folder is missing or holds no image.
    """
    samples, strays = [], []
    for label, name in enumerate(folders):
        contents = list_images(base / name, suffix)
        strays += [f"{name}/{stray}" for stray in contents.strays]
        samples += [file_sample(base, f"{name}/{image}", label, split) for image in contents.images]
    if strays:
        more = f" and {len(strays) - MOST_NAMED} more" if len(strays) > MOST_NAMED else ""
        announce(f"{base}: left aside, as they are no {suffix} files: {', '.join(strays[:MOST_NAMED])}{more}")
    return samples


def file_sample(base: Path, source: str, label: int, split: str | None) -> RawSample:
    """One image file below base."""
    return RawSample(label, split, source, partial(open_image, base / source))
