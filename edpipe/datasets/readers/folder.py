"""Reader of any folder of class folders, with or without train, val and test above them."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from edpipe.datasets.images import IMAGE_SUFFIXES, open_image
from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

SPLITS = ("train", "val", "test")
SPLIT_WORDS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})
"""What splits are called in folders of other programs, in lower case."""
LAYOUT = "<class>/<image>, or train/<class>/<image> and test/<class>/<image>"


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """All images by sorted split, class and file name; hidden files and files that are no images are named apart.

    Root holds class folders, or train and test (and perhaps val) that hold them.

    Raises:
        DataError: root or a split is missing, a class folder holds no image or holds folders, or a name is not UTF-8.
    """
    by_split = _split_folders(root)
    class_names = sorted({path.name for folder in by_split.values() for path in _folders(folder)})
    if not class_names:
        raise DataError(f"{root}: holds no class folders; arrange the images as {LAYOUT}")
    samples = [
        RawSample(label, split, file.relative_to(root).as_posix(), partial(open_image, file), file)
        for split, folder in by_split.items()
        for label, class_name in enumerate(class_names)
        for file in _images(folder / class_name)
    ]
    return RawDataset(tuple(class_names), samples, _not_images(root, by_split.values(), samples))


def _not_images(root: Path, folders: Iterable[Path], samples: Sequence[RawSample]) -> tuple[str, ...]:
    """Names of everything that is neither a class folder nor one of the samples; of a hidden folder, its own."""
    places = {root, *folders}
    places |= {inner for folder in folders for inner in _folders(folder)}
    known = places | {sample.path for sample in samples}
    others = [path.relative_to(root) for place in places for path in place.iterdir() if path not in known]
    return tuple(sorted(path.as_posix().encode(errors="backslashreplace").decode() for path in others))


def _split_folders(root: Path) -> dict[str | None, Path]:
    """Where the class folders of each split lie; {None: root} if there are no splits."""
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; make it and put the images there as {LAYOUT}")
    names = {path.name for path in _folders(root)}
    _check_meant_as_classes(root, names)
    if not names or not names <= set(SPLITS):
        return {None: root}
    for split in ("train", "test"):
        if split not in names:
            raise DataError(
                f"{root}: holds {', '.join(sorted(names))} but no {split}; add {root / split}"
                " (val may be left out, it is then cut from train)"
            )
    return {split: root / split for split in SPLITS if split in names}


def _check_meant_as_classes(root: Path, names: set[str]) -> None:
    """Refuses folders that are called like splits, such as Train and validation, but would be taken for classes."""
    alike = {name for name in names if name.casefold() in SPLIT_WORDS}
    if len(alike) >= 2 and not names <= set(SPLITS):
        raise DataError(
            f"{root}: holds {', '.join(sorted(names))}, of which {' and '.join(sorted(alike))} look like splits; "
            "these are called train, val and test, with nothing beside them; rename them or move the others away"
        )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():  # a class that this split does not have
        return []
    inner = _folders(folder)
    if inner:
        raise DataError(f"{inner[0]}: a folder inside a class folder; move its images up to {folder}")
    with os.scandir(folder) as entries:  # which knows files from pipes and dangling links without a look at each
        files = sorted(
            path
            for entry in entries
            if (path := folder / entry.name).suffix.lower() in IMAGE_SUFFIXES
            and not entry.name.startswith(".")
            and _is_file(entry)
        )
    if not files:
        raise DataError(
            f"{folder}: class {folder.name} has no image ({', '.join(sorted(IMAGE_SUFFIXES))}); add some or remove it"
        )
    for path in files:
        _check_name(path)
    return files


def _is_file(entry: os.DirEntry[str]) -> bool:
    """False also for a link that leads nowhere, or to itself."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{str(path)!a}: this name is not UTF-8; rename the file or its folder") from error
