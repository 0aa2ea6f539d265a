"""Which samples are the easiest or the hardest of each class: by how their labels surprise their teachers."""

from fractions import Fraction
from math import ceil

import numpy as np
from jaxtyping import Float32, Float64, Int64, Integer

from edpipe.soft_labels.encoding.softmax import log_softmax

TIE_DECIMALS = 9
"""Of losses in nats; those that differ less tie. The last bits of a sum differ between machines."""


def label_losses(
    logits: Float32[np.ndarray, "row class"], columns: Integer[np.ndarray, " row"]
) -> Float64[np.ndarray, " row"]:
    """Cross-entropy of each row's softmax (temperature 1) against the label in its column, nats.

    >>> label_losses(np.zeros((1, 2), np.float32), np.array([1])).round(4).tolist()
    [0.6931]
    """
    return -np.take_along_axis(log_softmax(logits, 1.0), columns.astype(np.int64)[:, None], axis=1)[:, 0]


def num_easiest(num_samples: int, share: float) -> int:
    """How many of a class's samples a share is: ⌈share·n⌉, with the share as the decimal number that is written.

    >>> num_easiest(100, 0.07), num_easiest(3, 0.5), num_easiest(3, 1e-9)
    (7, 2, 1)

    Raises:
        ValueError: share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    return ceil(Fraction(repr(float(share))) * num_samples)


def easiest(
    sample_ids: Int64[np.ndarray, " sample"],
    labels: Integer[np.ndarray, " sample"],
    losses: Float64[np.ndarray, " sample"],
    share: float,
) -> Int64[np.ndarray, " chosen"]:
    """The samples of lowest loss, in the order given; of each class its share, so that classes stay as balanced.

    Among equal losses the smaller id is taken. A lower share gives a part of what a higher one gives.

    Args:
        sample_ids: distinct.
        labels: of each.
        losses: of each, nats.
        share: of the samples of each class, see `num_easiest`.

    Raises:
        ValueError: share outside (0, 1].
    """
    return _first_of_each_class(sample_ids, labels, _ranked(sample_ids, losses), share)


def hardest(
    sample_ids: Int64[np.ndarray, " sample"],
    labels: Integer[np.ndarray, " sample"],
    losses: Float64[np.ndarray, " sample"],
    share: float,
) -> Int64[np.ndarray, " chosen"]:
    """The samples of highest loss, see `easiest`; the last ones of the same ranking, so the larger id of equal losses.

    Raises:
        ValueError: share outside (0, 1].
    """
    return _first_of_each_class(sample_ids, labels, _ranked(sample_ids, losses)[::-1], share)


def _ranked(
    sample_ids: Int64[np.ndarray, " sample"], losses: Float64[np.ndarray, " sample"]
) -> Int64[np.ndarray, " sample"]:
    """Places of the samples, the easiest first."""
    return np.lexsort((sample_ids, np.round(losses, TIE_DECIMALS)))


def _first_of_each_class(
    sample_ids: Int64[np.ndarray, " sample"],
    labels: Integer[np.ndarray, " sample"],
    order: Int64[np.ndarray, " sample"],
    share: float,
) -> Int64[np.ndarray, " chosen"]:
    # Stable: within each class the order stays. Time grows with the samples, however many classes there are.
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[by_class], prepend=labels[by_class[:1]] - 1))
    is_chosen = np.zeros(len(sample_ids), dtype=bool)
    for ranked in np.split(by_class, starts[1:]):
        is_chosen[ranked[: num_easiest(len(ranked), share)]] = True
    return sample_ids[is_chosen]
