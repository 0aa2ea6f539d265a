"""Small published data sets stand in for the real ones: their digests, their knobs, what is in them."""

from dataclasses import replace

import numpy as np
import pytest
from layouts import class_image, make_fashion_mnist, make_food101
from published_layouts import make_caltech101, make_caltech256, make_svhn, make_tiny_imagenet, md5

from edpipe.datasets.readers import caltech, fashion_mnist, food101, imagenet, svhn, tiny_imagenet
from edpipe.datasets.readers.by_name import read_raw
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

FILES = {
    "caltech101": [(caltech, "ARCHIVE_101"), (caltech, "INNER_ARCHIVE_101")],
    "caltech256": [(caltech, "ARCHIVE_256")],
    "fashion_mnist": [(fashion_mnist, "FILES")],
    "food101": [(food101, "ARCHIVE")],
    "imagenet": [(imagenet, "MD5")],
    "svhn": [(svhn, "MD5")],
    "tiny_imagenet": [(tiny_imagenet, "ARCHIVE")],
}
MAKERS = {
    "caltech101": lambda root: make_caltech101(root, archive="zip"),
    "caltech256": lambda root: make_caltech256(root, archive=True),
    "fashion_mnist": make_fashion_mnist,
    "food101": lambda root: make_food101(root, 1, 1, (6, 5), archive=True),
    "svhn": make_svhn,
    "tiny_imagenet": lambda root: make_tiny_imagenet(root, archive=True),
}
"""Of the files that may be downloaded."""


def knobs(reader, **values):
    return DatasetKnobs(reader=reader, **({"image_size": 8, "download": False} | values))


def accept_files(monkeypatch, reader, root):
    """Makes the small files that lie in a root the published ones."""
    for module, name in FILES[reader]:
        file = getattr(module, name)
        if isinstance(file, dict):
            here = {key: md5(root / key) for key in file if (root / key).is_file()}
            monkeypatch.setattr(module, name, file | here)
        elif isinstance(file, tuple):
            monkeypatch.setattr(module, name, tuple(replace(f, md5=md5(root / f.name)) for f in file))
        elif (root / file.name).is_file():
            monkeypatch.setattr(module, name, replace(file, md5=md5(root / file.name)))


def refusal(reader, root, text, **values):
    with pytest.raises(DataError, match=text) as error:
        read_raw(root, knobs(reader, **values))
    assert "\n" not in str(error.value)
    return str(error.value)


def contents(raw):
    return raw.class_names, [(s.source, s.split, s.label, np.asarray(s.load()).tobytes()) for s in raw.samples]


def check_label_seen(raw):
    """Each image looks like those of its class: its mean colour is nearest to that class's pattern."""
    patterns = np.stack([class_image(label, 0).mean(axis=(0, 1)) for label in range(len(raw.class_names))])
    for sample in raw.samples:
        colour = np.asarray(sample.load()).mean(axis=(0, 1))
        assert np.abs(patterns - colour).sum(axis=1).argmin() == sample.label, sample.source
