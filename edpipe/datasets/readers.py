"""The readers by the name that params.yaml gives them."""

from pathlib import Path

from edpipe.datasets import cifar, digits, fashion_mnist, folder, food101
from edpipe.datasets.raw import RawDataset
from edpipe.params.dataset import DatasetKnobs

READERS = {
    "cifar10": cifar.read_cifar10,
    "cifar100": cifar.read_cifar100,
    "digits": digits.read,
    "fashion_mnist": fashion_mnist.read,
    "food101": food101.read,
    "folder": folder.read,
}


def read_raw(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """The raw data set below root, by the reader that the knobs name.

    Raises:
        DataError: the raw files are missing, incomplete or damaged.
    """
    return READERS[knobs.reader](root, knobs)
