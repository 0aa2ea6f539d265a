"""Reader of SVHN's cropped digits (Netzer et al. 2011), 32 x 32 pixels, in its published MATLAB files."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers.published import PublishedFile, check_md5, fetch_published
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

ADDRESS = "http://ufldl.stanford.edu/housenumbers/"
MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
"""Published MD5 of each file (torchvision.datasets.SVHN)."""
SPLITS = {"train_32x32.mat": "train", "extra_32x32.mat": "train", "test_32x32.mat": "test"}
CLASS_NAMES = tuple("0123456789")
LABEL_OF_ZERO = 10
"""MATLAB counts from 1: the files call the digit 0 class 10."""


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """The official train and test images, with knobs.extra those of extra too; fetched into root if they are missing.

    Raises:
        DataError: a file is missing and cannot be fetched, or is not the published one.
    """
    names = [name for name in SPLITS if knobs.extra or name != "extra_32x32.mat"]
    files = [PublishedFile(name, ADDRESS + name, MD5[name]) for name in names]
    paths = fetch_published("SVHN", files, root, knobs, f"put {', '.join(names)} (from {ADDRESS}) into {root}")
    return RawDataset(CLASS_NAMES, [sample for path in paths for sample in _samples(path)])


def _samples(path: Path) -> list[RawSample]:
    check_md5(path, MD5[path.name])
    images, labels = _read_matlab(path)
    part = path.name.removesuffix("_32x32.mat")
    return [
        RawSample(int(label), SPLITS[path.name], f"{part}/{row}", partial(_image, images, row))
        for row, label in enumerate(labels)
    ]


def _image(
    images: UInt8[np.ndarray, "height width channel sample"], row: int
) -> UInt8[np.ndarray, "height width channel"]:
    return np.ascontiguousarray(images[..., row])


def _read_matlab(
    path: Path,
) -> tuple[UInt8[np.ndarray, "height width channel sample"], Int64[np.ndarray, " sample"]]:
    """Images and classes 0 to 9; the classes are those of the digits that are seen."""
    from scipy.io import loadmat

    try:
        contents = loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # scipy's reader raises almost any type on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a MATLAB file ({reason}); fetch this file again") from error
    labels = _labels(path, contents)
    images = contents["X"]
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
        raise DataError(
            f"{path}: X is {images.dtype} of shape {images.shape}, must be uint8 of (32, 32, 3, {len(labels)}), "
            "an image for each label; fetch this file again"
        )
    return images, labels


def _labels(path: Path, contents: Mapping[str, Any]) -> Int64[np.ndarray, " sample"]:
    if not {"X", "y"} <= contents.keys():
        raise DataError(f"{path}: holds no X or no y; fetch this file again")
    labels = contents["y"].reshape(-1).astype(np.int64)
    if not set(labels.tolist()) <= set(range(1, LABEL_OF_ZERO + 1)):
        raise DataError(f"{path}: holds labels {labels.min()} to {labels.max()}, allowed are 1 to 10; fetch it again")
    return labels % LABEL_OF_ZERO
