"""Reader of Food-101 (Bossard et al. 2014) in its published layout, as a folder or as the published archive."""

import json
import os
from functools import partial
from pathlib import Path

from edpipe.datasets.images import open_image
from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers.published import PublishedFile, check_md5, fetch_published
from edpipe.datasets.readers.unpack import Limits, unpack
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

FOLDER = "food-101"
ARCHIVE = PublishedFile(
    "food-101.tar.gz", "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87"
)
LIMITS = Limits(num_files=150_000, num_bytes=20 * 10**9)
"""The archive holds about 101,100 files and folders of 5 GB."""
SPLITS = ("train", "test")


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """The official train and test images in the order of meta/train.json and meta/test.json.

    Root may hold the folder food-101, be that folder, or hold food-101.tar.gz, which is then unpacked beside it.

    Raises:
        DataError: the files are missing and cannot be fetched, the archive is damaged or not the published one, meta is
            not that of Food-101, or an image that meta names is missing.
    """
    folder = _find(root) or _unpack(root, knobs)
    named = {split: _read_meta(folder / "meta" / f"{split}.json") for split in SPLITS}
    class_names = tuple(sorted(named["train"]))
    _check_classes(folder / "meta" / "test.json", class_names, sorted(named["test"]))
    if (folder / "meta" / "classes.txt").is_file():
        _check_classes(
            folder / "meta" / "classes.txt", class_names, _read_text(folder / "meta" / "classes.txt").split()
        )
    labels = {class_name: label for label, class_name in enumerate(class_names)}
    samples = [
        RawSample(labels[class_name], split, f"{name}.jpg", partial(open_image, folder / "images" / f"{name}.jpg"))
        for split in SPLITS
        for class_name, names in named[split].items()
        for name in names
    ]
    _check_present(folder / "images", [sample.source for sample in samples])
    return RawDataset(class_names, samples)


def _find(root: Path) -> Path | None:
    for folder in (root / FOLDER, root):
        if (folder / "meta").is_dir() or (folder / "images").is_dir():
            return folder
    return None


def _unpack(root: Path, knobs: DatasetKnobs) -> Path:
    remedy = f"put {ARCHIVE.name} or the folder {FOLDER} (with images and meta in it) into {root}"
    (archive,) = fetch_published("Food-101", [ARCHIVE], root, knobs, remedy)
    check_md5(archive, ARCHIVE.md5)
    return unpack(archive, root / FOLDER, LIMITS, FOLDER)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); put Food-101's own file here") from error


def _read_meta(path: Path) -> dict[str, list[str]]:
    try:
        named = json.loads(_read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: cannot be read ({error}); put Food-101's own file here") from error
    is_meta = isinstance(named, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in named.values()
    )
    if not is_meta:
        raise DataError(f"{path}: must map each class to a list of image names; put Food-101's own file here")
    return named


def _check_classes(path: Path, class_names: tuple[str, ...], listed: list[str]) -> None:
    differing = sorted(set(class_names).symmetric_difference(listed))
    if differing:
        raise DataError(
            f"{path}: class {differing[0]} is named only here or only in train.json; unpack {ARCHIVE.name} again"
        )


def _check_present(images: Path, sources: list[str]) -> None:
    """Lists each class folder once: a look at each of 101,000 files takes seconds on a network disk."""
    present = {f"{folder.name}/{file}" for folder in images.glob("*/") for file in os.listdir(folder)}
    missing = [source for source in sources if source not in present]
    if missing:
        raise DataError(
            f"{images / missing[0]}: is named in meta but missing ({len(missing)} such images); "
            f"unpack {ARCHIVE.name} again"
        )
