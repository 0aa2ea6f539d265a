"""Reader of scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels, shipped with the library."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.params.dataset import DatasetKnobs

LARGEST_VALUE = 16
"""Of a pixel: each counts the dark ones among 16 (sklearn.datasets.load_digits)."""


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """All digits in the library's order, without an official split; neither root nor the network is needed."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    pixels = _to_uint8(digits.images)
    samples = [
        RawSample(int(label), None, str(row), partial(pixels.__getitem__, row))
        for row, label in enumerate(digits.target)
    ]
    return RawDataset(tuple(str(name) for name in digits.target_names), samples)


def _to_uint8(values: np.ndarray) -> UInt8[np.ndarray, "sample height width"]:
    counts = values.astype(np.int64)
    return ((counts * 255 + LARGEST_VALUE // 2) // LARGEST_VALUE).astype(np.uint8)
