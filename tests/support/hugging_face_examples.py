"""Small data sets as the library `datasets` saves them."""

from pathlib import Path

import pytest
from layouts import class_image
from PIL import Image as PillowImage

datasets = pytest.importorskip("datasets")
CLASSES = ("cat", "dog", "owl")


def split_of(count, first=0, label=None, columns=("image", "label")):
    """Images of the three classes in turn; `label`: the feature of the label column and how a class is written."""
    feature, write = label or (datasets.ClassLabel(names=list(CLASSES)), int)
    rows = range(first, first + count)
    images = [PillowImage.fromarray(class_image(row % 3, row)) for row in rows]
    values = {columns[0]: images, columns[1]: [write(row % 3) for row in rows]}
    features = datasets.Features({columns[0]: datasets.Image(), columns[1]: feature})
    return datasets.Dataset.from_dict(values, features)


def save(root, **splits):
    root = Path(root) / "set"
    (datasets.DatasetDict(splits) if "only" not in splits else splits["only"]).save_to_disk(str(root))
    return root
