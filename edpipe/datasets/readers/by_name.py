"""The readers by the name that params.yaml gives them.

A new reader of the package is a module of this folder, a line here, and its name in
`edpipe.params.plans.reader_names.READERS` (and in `edpipe.params.dataset.FETCHED`, if it can fetch its files). A
plugin's is one function, see docs/plugins.md.
"""

from pathlib import Path

from edpipe.datasets.raw import RawDataset
from edpipe.datasets.readers import (
    caltech,
    cifar,
    digits,
    fashion_mnist,
    folder,
    food101,
    hugging_face,
    imagenet,
    svhn,
    tiny_imagenet,
)
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.plans.registered import REGISTRY

READERS = {
    "caltech101": caltech.read_caltech101,
    "caltech256": caltech.read_caltech256,
    "cifar10": cifar.read_cifar10,
    "cifar100": cifar.read_cifar100,
    "digits": digits.read,
    "fashion_mnist": fashion_mnist.read,
    "folder": folder.read,
    "food101": food101.read,
    "huggingface": hugging_face.read,
    "imagenet": imagenet.read,
    "svhn": svhn.read,
    "tiny_imagenet": tiny_imagenet.read,
}


def read_raw(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """The raw data set below root, by the reader that the knobs name.

    Raises:
        DataError: the raw files are missing, incomplete or damaged.
    """
    return (READERS | REGISTRY.readers)[knobs.reader](root, knobs)
