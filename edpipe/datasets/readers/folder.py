"""Reader of any folder of class folders, with or without train, val and test above them."""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from edpipe.datasets.image_kinds import image_suffixes, is_dangling, is_left_behind, kinds_of
from edpipe.datasets.images import open_image
from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

SPLITS = ("train", "val", "test")
SPLIT_WORDS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})
"""What splits are called in folders of other programs, in lower case."""
LAYOUT = "<class>/<image>, or train/<class>/<image> and test/<class>/<image>"


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """All images by sorted split, class and file name; hidden files and files that are no images are named apart.

    Root holds class folders, or train and test (and perhaps val) that hold them. Names that differ in the Unicode form
    alone (a letter with an accent as one character or two, as macOS writes it) are one class.

    Raises:
        DataError: root or a split is missing, a class folder holds no image or holds folders, or a name is not UTF-8.
    """
    by_split = _split_folders(root)
    of_class = {split: _class_folders(folder) for split, folder in by_split.items()}
    spelled: dict[str, str] = {}
    for folders in of_class.values():
        for form, path in folders.items():
            spelled.setdefault(form, path.name)
    if not spelled:
        raise DataError(f"{root}: holds no class folders; arrange the images as {LAYOUT}")
    _check_links(by_split, of_class, spelled)
    forms = sorted(spelled, key=lambda form: spelled[form])
    samples = [
        RawSample(label, split, file.relative_to(root).as_posix(), partial(open_image, file), file)
        for split, folders in of_class.items()
        for label, form in enumerate(forms)
        if form in folders  # else a class that this split does not have
        for file in _images(folders[form])
    ]
    names = tuple(spelled[form] for form in forms)
    return RawDataset(names, samples, _not_images(root, by_split.values(), samples))


def _class_folders(folder: Path) -> dict[str, Path]:
    """The class folders by the composed Unicode form of their names.

    Raises:
        DataError: two of them differ in nothing else.
    """
    found: dict[str, Path] = {}
    for path in _folders(folder):
        form = unicodedata.normalize("NFC", path.name)
        if form in found:
            raise DataError(
                f"{folder}: holds two folders named {form}, one with composed and one with decomposed accents; "
                f"put their images into one"
            )
        found[form] = path
    return found


def _check_links(
    by_split: Mapping[str | None, Path], of_class: Mapping[str | None, Mapping[str, Path]], spelled: Mapping[str, str]
) -> None:
    """Refuses a split whose folder of a known class is a link that leads nowhere: its images would be missed."""
    for split, folder in by_split.items():
        for form in spelled.keys() - of_class[split].keys():
            for name in {form, spelled[form]}:
                if is_dangling(folder / name):
                    raise DataError(_lost_link(folder / name))


def _lost_link(path: Path) -> str:
    return f"{path}: is a link that leads nowhere, to {os.readlink(path)}; mend or remove it"


def _not_images(root: Path, folders: Iterable[Path], samples: Sequence[RawSample]) -> tuple[str, ...]:
    """Names of everything that is neither a class folder nor one of the samples; of a hidden folder, its own."""
    places = {root, *folders}
    places |= {inner for folder in folders for inner in _folders(folder)}
    known = places | {sample.path for sample in samples}
    others = [path.relative_to(root) for place in places for path in place.iterdir() if path not in known]
    return tuple(sorted(path.as_posix().encode(errors="backslashreplace").decode() for path in others))


def _split_folders(root: Path) -> dict[str | None, Path]:
    """Where the class folders of each split lie; {None: root} if there are no splits."""
    if is_dangling(root):
        raise DataError(_lost_link(root))
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; make it and put the images there as {LAYOUT}")
    names = {path.name for path in _folders(root)}
    _check_meant_as_classes(root, names)
    if not names or not names <= set(SPLITS):
        return {None: root}
    for split in ("train", "test"):
        if is_dangling(root / split):
            raise DataError(_lost_link(root / split))
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
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_left_behind(path.name))


def _images(folder: Path) -> list[Path]:
    inner = _folders(folder)
    if inner:
        raise DataError(f"{inner[0]}: a folder inside a class folder; move its images up to {folder}")
    suffixes = image_suffixes()
    with os.scandir(folder) as entries:  # which knows files from pipes and dangling links without a look at each
        files = sorted(
            path
            for entry in entries
            if (path := folder / entry.name).suffix.lower() in suffixes
            and not entry.name.startswith(".")
            and _is_file(entry)
        )
    if not files:
        raise DataError(_no_image(folder))
    for path in files:
        _check_name(path)
    return files


def _no_image(folder: Path) -> str:
    """What a class folder without images holds instead."""
    held = kinds_of(folder, sorted(path.name for path in folder.iterdir()))
    links = sorted(path for path in folder.iterdir() if is_dangling(path))
    example = f"; the first link is {links[0].name} to {os.readlink(links[0])}" if links else ""
    instead = f", but {held}{example}" if held else ""
    suffixes = ", ".join(sorted(image_suffixes()))
    return f"{folder}: class {folder.name} has no image ({suffixes}){instead}; add some or remove it"


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
