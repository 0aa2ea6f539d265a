"""Reader of image sets of Hugging Face's library `datasets`: a folder written by save_to_disk, or a name on the hub.

The library is optional: `pip install "edpipe[hf]"`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs, HuggingFaceKnobs

VAL_NAMES = ("validation", "valid", "val", "dev")
LABEL_NAMES = ("label", "labels")
PLAIN = re.compile(r"(large_)?string|u?int\d+")
"""Types of a column whose values may be classes."""
ONLY_SPLIT = "train"
"""What a data set that was saved without splits is called here."""


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """All images of its train, val and test splits, in its own order.

    Where there is no test split, val is the test split; where there is neither, no sample has a split. Columns and
    splits are those that knobs.huggingface names, else those that leave no choice.

    Raises:
        DataError: the library is not installed, the data set is missing or cannot be fetched, a column or a split is
            absent or ambiguous, or an image has no label.
    """
    splits_by_name, wanted = _open(root, knobs), knobs.huggingface
    splits = _splits(root, splits_by_name, wanted)
    first = splits_by_name[next(iter(splits))]
    image, label = _image_column(root, first, wanted.image), _label_column(root, first, wanted.label)
    for name in splits:
        _check_columns(root, name, splits_by_name[name], {image, label})
    values = {name: splits_by_name[name].select_columns([label])[:][label] for name in splits}
    images = {
        name: splits_by_name[name].select_columns([image]) for name in splits
    }  # else each look at one reads its whole row
    class_names, positions = _classes(root, {name: splits_by_name[name].features[label] for name in splits}, values)
    samples = [
        RawSample(positions[value], split, f"{name}/{row}", partial(_load, root, images[name], name, image, row))
        for name, split in splits.items()
        for row, value in enumerate(values[name])
    ]
    return RawDataset(class_names, samples)


def _open(root: Path, knobs: DatasetKnobs) -> Mapping[str, Any]:
    """Its splits by their names."""
    library = _library(root)
    splits_by_name = _fetch(library, root, knobs) if knobs.huggingface.name else _open_folder(library, root)
    return dict(splits_by_name) if isinstance(splits_by_name, dict) else {ONLY_SPLIT: splits_by_name}


def _library(root: Path) -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise DataError(
            f'{root}: reader huggingface needs the library datasets ({error}); call pip install "edpipe[hf]"'
        ) from error


def _open_folder(library: Any, root: Path) -> Any:
    try:
        return library.load_from_disk(str(root))
    except Exception as error:  # the library's readers raise almost any type on damaged files
        raise DataError(
            f"{root}: cannot be opened as a Hugging Face data set ({_reason(error)}); put a folder written by "
            "save_to_disk here, or give huggingface.name to fetch one from the hub"
        ) from error


def _fetch(library: Any, root: Path, knobs: DatasetKnobs) -> Any:
    wanted = knobs.huggingface
    remedy = f"put a folder written by save_to_disk at {root} and remove huggingface.name"
    if not knobs.download:
        raise DataError(f"{root}: {wanted.name} is on the hub and download is false; {remedy}, or set download: true")
    try:
        return library.load_dataset(wanted.name, wanted.config, revision=wanted.revision, cache_dir=str(root))
    except Exception as error:  # of the library, the hub's client, the network or the disk
        raise DataError(f"{root}: {wanted.name} could not be fetched ({_reason(error)}); {remedy}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _splits(root: Path, splits_by_name: Mapping[str, Any], wanted: HuggingFaceKnobs) -> dict[str, str | None]:
    """What each of its splits is to us, in the order train, val, test."""
    train = wanted.train or (next(iter(splits_by_name)) if len(splits_by_name) == 1 else "train")
    val = wanted.val or next((name for name in VAL_NAMES if name in splits_by_name and name != wanted.test), None)
    test = wanted.test or ("test" if "test" in splits_by_name else None)
    if test is None and wanted.val is None:
        val, test = None, val
    named = [name for name in (train, val, test) if name is not None]
    for name in named:
        if name not in splits_by_name:
            raise DataError(
                f"{root}: there is no split {name}; allowed for huggingface.{{train,val,test}}: {_list(splits_by_name)}"
            )
        if named.count(name) > 1:
            raise DataError(f"{root}: split {name} is asked for twice; give train, val and test different splits")
    if test is None and val is None:
        return {train: None}
    if test is None:
        raise DataError(
            f"{root}: huggingface.val is {val} and nothing is left to test on; allowed: {_list(splits_by_name)}"
        )
    return {name: part for name, part in ((train, "train"), (val, "val"), (test, "test")) if name is not None}


def _list(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names)


def _image_column(root: Path, split: Any, wanted: str | None) -> str:
    kind = _library(root).Image
    columns = [name for name, feature in split.features.items() if isinstance(feature, kind)]
    if wanted is None and len(columns) == 1:
        return columns[0]
    if wanted is None or wanted not in columns:
        what = f"column {wanted} holds no images" if wanted else f"{len(columns)} columns hold images"
        raise DataError(f"{root}: {what}; give huggingface.image one of: {_list(columns) or 'none is there'}")
    return wanted


def _label_column(root: Path, split: Any, wanted: str | None) -> str:
    kind = _library(root).ClassLabel
    columns = [name for name, feature in split.features.items() if isinstance(feature, kind)]
    columns = columns or [name for name in LABEL_NAMES if name in split.features]
    found = columns[0] if wanted is None and len(columns) == 1 else wanted
    if found is None or found not in split.features:
        what = f"there is no column {wanted}" if wanted else f"{len(columns)} columns may be the label"
        raise DataError(f"{root}: {what}; give huggingface.label one of: {_list(columns or split.features)}")
    feature = split.features[found]
    if not isinstance(feature, kind) and PLAIN.fullmatch(str(getattr(feature, "dtype", ""))) is None:
        raise DataError(f"{root}: column {found} holds {feature}, must hold classes, texts or whole numbers")
    return found


def _check_columns(root: Path, name: str, split: Any, columns: set[str]) -> None:
    missing = sorted(columns - set(split.features))
    if missing:
        raise DataError(f"{root}: split {name} has no column {missing[0]}; it has {_list(split.features)}")


def _classes(
    root: Path, features: Mapping[str, Any], values: Mapping[str, Sequence[Any]]
) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Class names, and the position of each value of the label column among them.

    A column of classes brings its names; of any other, the classes are its values, sorted.
    """
    for name, of_split in values.items():
        if any(value is None or value == -1 for value in of_split):
            raise DataError(f"{root}: split {name} has images without a label; let huggingface.test name another split")
    first, *others = features.values()
    if any(feature != first for feature in others):
        raise DataError(f"{root}: splits {_list(features)} do not have the same classes; save them with the same")
    if isinstance(first, _library(root).ClassLabel):
        return tuple(first.names), {position: position for position in range(len(first.names))}
    found = {value for of_split in values.values() for value in of_split}
    ordered = sorted(found)
    return tuple(str(value) for value in ordered), {value: position for position, value in enumerate(ordered)}


def _load(root: Path, split: Any, name: str, column: str, row: int) -> Image.Image:
    try:
        image = split[row][column]
    except Exception as error:  # Pillow's decoders raise almost any type on damaged bytes
        raise DataError(f"{root}: image {row} of split {name} cannot be read ({_reason(error)}); remove it") from error
    if image is None:
        raise DataError(f"{root}: image {row} of split {name} is empty; remove this row")
    return image
