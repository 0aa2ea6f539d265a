"""Reader of Fashion-MNIST's four IDX files (Xiao et al. 2017), compressed or not."""

import gzip
import math
import os
import tempfile
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
PREFIXES = {"train": "train", "test": "t10k"}
FILES = tuple(f"{prefix}-{part}-ubyte" for prefix in PREFIXES.values() for part in ("images-idx3", "labels-idx1"))
TORCHVISION_FOLDER = Path("FashionMNIST")
UNSIGNED_BYTE = 0x08
"""IDX code of the element type, third byte of the file."""


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """The official train and test images; fetched into root if they are missing and knobs.download allows it.

    Raises:
        DataError: the files are missing and cannot be fetched, or one of them is damaged.
    """
    folder = _find(root) or _fetch(root, knobs.download)
    return RawDataset(CLASS_NAMES, [sample for split in PREFIXES for sample in _samples(folder, split)])


def _find(root: Path) -> Path | None:
    """The folder that holds the files: root, or where torchvision keeps them below it; None if there are none.

    Raises:
        DataError: a folder holds some of the files but not all.
    """
    for folder in (root, root / TORCHVISION_FOLDER / "raw"):
        missing = [name for name in FILES if _file(folder, name) is None]
        if not missing:
            return folder
        if len(missing) < len(FILES):
            raise DataError(f"{folder}: Fashion-MNIST is incomplete; put {_listed(missing)} beside the other files")
    return None


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _listed(names: list[str]) -> str:
    return ", ".join(f"{name}.gz" for name in names)


def _fetch(root: Path, is_allowed: bool) -> Path:
    remedy = f"put {_listed(list(FILES))} into {root}"
    if not is_allowed:
        raise DataError(f"{root}: Fashion-MNIST is not here and download is false; {remedy}, or set download: true")
    try:
        download(root)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{root}: Fashion-MNIST is not here and could not be fetched ({reason}); {remedy}") from error
    return root / TORCHVISION_FOLDER / "raw"


def download(root: Path) -> None:
    """Fetches the four files through torchvision, checked against their published digests, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
        RuntimeError: the server cannot be reached, or the files are not the published ones.
    """
    from torchvision.datasets import FashionMNIST

    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as unfinished:
        FashionMNIST(unfinished, download=True)
        os.rename(Path(unfinished) / TORCHVISION_FOLDER, root / TORCHVISION_FOLDER)


def _samples(folder: Path, split: str) -> list[RawSample]:
    images_path = _file(folder, f"{PREFIXES[split]}-images-idx3-ubyte")
    labels_path = _file(folder, f"{PREFIXES[split]}-labels-idx1-ubyte")
    assert images_path is not None
    assert labels_path is not None
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(f"{images_path}: holds {len(images)} images, but {labels_path.name} holds {len(labels)} labels")
    if labels.max(initial=0) >= len(CLASS_NAMES):
        raise DataError(f"{labels_path}: holds label {labels.max()}, allowed are 0 to 9; fetch this file again")
    return [
        RawSample(int(label), split, f"{split}/{row}", partial(images.__getitem__, row))
        for row, label in enumerate(labels)
    ]


def _read_idx(path: Path, num_axes: int) -> UInt8[np.ndarray, "..."]:
    """The array in an IDX file of unsigned bytes: 0, 0, type, number of axes, big-endian lengths, elements."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch this file again") from error
    header_bytes = 4 + 4 * num_axes
    if data[:4] != bytes((0, 0, UNSIGNED_BYTE, num_axes)) or len(data) < header_bytes:
        raise DataError(f"{path}: is not an IDX file of bytes with {num_axes} axes; fetch this file again")
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, header_bytes, 4)]
    held, promised = len(data) - header_bytes, math.prod(shape)
    if held != promised:
        raise DataError(f"{path}: holds {held} elements, but its header says {promised}; fetch this file again")
    return np.frombuffer(data, np.uint8, offset=header_bytes).reshape(shape)
