"""Reader of Fashion-MNIST's four IDX files (Xiao et al. 2017), compressed or not."""

import gzip
import math
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers.published import PublishedFile, fetch_published
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
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""Published MD5 of each file (torchvision.datasets.FashionMNIST)."""
FILES = tuple(PublishedFile(name, ADDRESS + name, md5) for name, md5 in MD5.items())
TORCHVISION_FOLDER = Path("FashionMNIST") / "raw"
UNSIGNED_BYTE = 0x08
"""IDX code of the element type, third byte of the file."""


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """The official train and test images; files that are missing are fetched if knobs.download allows it.

    Root may hold the four files, or they lie where torchvision keeps them below it.

    Raises:
        DataError: files are missing and cannot be fetched, or one of them is damaged.
    """
    folder = _folder(root)
    missing = [file for file in FILES if _file(folder, file.name.removesuffix(".gz")) is None]
    listed = ", ".join(file.name for file in missing)
    if missing and len(missing) < len(FILES) and not knobs.download:
        raise DataError(f"{folder}: Fashion-MNIST is incomplete; put {listed} beside the other files")
    fetch_published("Fashion-MNIST", missing, folder, knobs, f"put {listed} into {folder}")
    return RawDataset(CLASS_NAMES, [sample for split in PREFIXES for sample in _samples(folder, split)])


def _folder(root: Path) -> Path:
    """Where some of the files lie; root, if there are none yet."""
    candidates = (root, root / TORCHVISION_FOLDER)
    names = [file.name.removesuffix(".gz") for file in FILES]
    return next((folder for folder in candidates if any(_file(folder, name) for name in names)), root)


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


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
    num_elements, declared = len(data) - header_bytes, math.prod(shape)
    if num_elements != declared:
        raise DataError(f"{path}: holds {num_elements} elements, but its header says {declared}; fetch this file again")
    return np.frombuffer(data, np.uint8, offset=header_bytes).reshape(shape)
