"""Readers of Caltech-101 (Fei-Fei et al. 2004) and Caltech-256 (Griffin et al. 2007), as folders or published archives.

Neither has an official split: test and val are drawn by the seed of the knobs. Only files that end in .jpg count as
images; of Caltech-256 that leaves 198.spider/RENAME2 and the folder 056.dog/greg aside, of Caltech-101
BACKGROUND_Google/tmp. Each class is named as its folder.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers.class_folders import class_samples, list_folders
from edpipe.datasets.readers.published import PublishedFile, check_md5, fetch_published
from edpipe.datasets.readers.unpack import Limits, unpack
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

SUFFIX = ".jpg"
FOLDER_101 = "101_ObjectCategories"
BACKGROUND_101 = "BACKGROUND_Google"
ARCHIVE_101 = PublishedFile(
    "caltech-101.zip",
    "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
    "3138e1922a9193bfa496528edbbc45d0",
)
INNER_ARCHIVE_101 = PublishedFile("101_ObjectCategories.tar.gz", "", "b224c7392d521a49829488ab0f1120d9")
"""What lies in the zip archive, and was published alone before."""
FOLDER_256 = "256_ObjectCategories"
BACKGROUND_256 = "257.clutter"
ARCHIVE_256 = PublishedFile(
    "256_ObjectCategories.tar",
    "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
    "67b4f42ca05d46448c6bb8ecd2220f6d",
)
NUMBERED = re.compile(r"(\d{3})\..+")
LIMITS = Limits(num_files=60_000, num_bytes=5 * 10**9)
"""Caltech-256 holds about 30,900 files and folders of 1.2 GB, Caltech-101 fewer."""


@dataclass(frozen=True)
class _Archive:
    """A published archive, and where in it the class folders lie."""

    file: PublishedFile
    top: str
    inner: Callable[[PurePosixPath], PurePosixPath | None] = lambda _name: None


def _inside_zip(name: PurePosixPath) -> PurePosixPath | None:
    return name.parent if name.name == INNER_ARCHIVE_101.name else None


def read_caltech101(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """All images of the 101 categories, without a split; with knobs.background those of BACKGROUND_Google too.

    Root may hold the folder 101_ObjectCategories (or caltech-101 or caltech101 with it), be it, or hold an archive.

    Raises:
        DataError: the files are missing and cannot be fetched, an archive is damaged or not the published one, or a
            class has no image.
    """
    archives = (
        _Archive(ARCHIVE_101, f"caltech-101/{FOLDER_101}", _inside_zip),
        _Archive(INNER_ARCHIVE_101, FOLDER_101),
    )
    folder = _find(root, FOLDER_101, ("", "caltech-101", "caltech101"))
    folder = folder or _unpack("Caltech-101", archives, FOLDER_101, root, knobs)
    return _read(folder, BACKGROUND_101, knobs)


def read_caltech256(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """All images of the 256 categories, without a split; with knobs.background those of 257.clutter too.

    Root may hold the folder 256_ObjectCategories (or caltech256 with it), be it, or hold the archive.

    Raises:
        DataError: the files are missing and cannot be fetched, the archive is damaged or not the published one, a
            class has no image or its number twice, or an image lies in the folder of another class.
    """
    archives = (_Archive(ARCHIVE_256, FOLDER_256),)
    folder = _find(root, FOLDER_256, ("", "caltech256"))
    folder = folder or _unpack("Caltech-256", archives, FOLDER_256, root, knobs)
    _check_numbers(folder, list_folders(folder))
    raw = _read(folder, BACKGROUND_256, knobs)
    _check_places(folder, raw.samples)
    return raw


def _find(root: Path, name: str, parents: Sequence[str]) -> Path | None:
    if root.resolve().name == name and root.is_dir():
        return root
    return next((root / parent / name for parent in parents if (root / parent / name).is_dir()), None)


def _unpack(title: str, archives: Sequence[_Archive], folder: str, root: Path, knobs: DatasetKnobs) -> Path:
    """From the archive that lies there; if none does, the first is fetched."""
    here = next((archive for archive in archives if (root / archive.file.name).is_file()), archives[0])
    first = archives[0].file
    remedy = f"put {first.name} (from {first.address}) or the folder {folder} into {root}"
    (path,) = fetch_published(title, [here.file], root, knobs, remedy)
    check_md5(path, here.file.md5)
    return unpack(path, root / folder, LIMITS, here.top, here.inner)


def _read(folder: Path, background: str, knobs: DatasetKnobs) -> RawDataset:
    names = [name for name in list_folders(folder) if name != background or knobs.background]
    if not names:
        raise DataError(f"{folder}: holds no class folders; put the published ones here")
    return RawDataset(tuple(names), class_samples(folder, names, None, SUFFIX))


def _check_numbers(folder: Path, names: list[str]) -> None:
    """Each folder begins with its number, and the numbers go on from 001 without a gap."""
    for expected, name in enumerate(names, start=1):
        match = NUMBERED.fullmatch(name)
        if match is None or int(match[1]) > expected:
            raise DataError(f"{folder / name}: expected the class {expected:03}.<name> here; put the published folder")
        if int(match[1]) < expected:
            raise DataError(f"{folder / name}: class {match[1]} is there twice; remove the one that is not published")


def _check_places(folder: Path, samples: Sequence[RawSample]) -> None:
    for sample in samples:
        class_name, _, image = sample.source.partition("/")
        if image[:3] != class_name[:3]:
            raise DataError(f"{folder / sample.source}: its name belongs to class {image[:3]}; move it to that folder")
