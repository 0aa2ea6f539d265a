"""Images that are stored with the same pixels: copies, contradictory labels, and test images that are also taught."""

from dataclasses import dataclass

import numpy as np

from edpipe.datasets.dataset_file import SPLITS, Dataset


@dataclass(frozen=True)
class EqualImages:
    """How many samples have the same content key as another one."""

    copies: int
    """Samples that have the pixels of one before them."""
    in_several_classes: int
    """Samples whose pixels also occur in another class."""
    test_also_taught: int
    """Test samples whose pixels also occur in train or val: a measurement on them is too good."""
    val_also_taught: int
    """Val samples whose pixels also occur in train."""
    example: tuple[str, str] | None
    """Sources of the first such test sample and of the first sample that it equals."""


def count_equal(dataset: Dataset) -> EqualImages:
    """Compares the content keys of all samples."""
    _, groups = np.unique(dataset.sample_keys, return_inverse=True)
    count = int(groups.max()) + 1
    taught = _has(groups, count, dataset.splits == SPLITS.index("train"))
    in_val = _has(groups, count, dataset.splits == SPLITS.index("val"))
    is_test, is_val = (dataset.splits == SPLITS.index(split) for split in ("test", "val"))
    leaked = np.flatnonzero(is_test & (taught | in_val)[groups])
    lowest, highest = np.full(count, np.iinfo(np.int32).max), np.full(count, -1)
    np.minimum.at(lowest, groups, dataset.labels)
    np.maximum.at(highest, groups, dataset.labels)
    return EqualImages(
        copies=dataset.num_samples - count,
        in_several_classes=int((lowest != highest)[groups].sum()),
        test_also_taught=len(leaked),
        val_also_taught=int((is_val & taught[groups]).sum()),
        example=_example(dataset, groups, int(leaked[0])) if len(leaked) else None,
    )


def _has(groups: np.ndarray, count: int, is_chosen: np.ndarray) -> np.ndarray:
    return np.bincount(groups[is_chosen], minlength=count) > 0


def _example(dataset: Dataset, groups: np.ndarray, test_id: int) -> tuple[str, str]:
    is_equal = (groups == groups[test_id]) & (dataset.splits != SPLITS.index("test"))
    other = int(np.flatnonzero(is_equal)[0])
    return dataset.sources[test_id].decode(), dataset.sources[other].decode()
