"""Numbers that a result is made of, from logits and labels; NumPy only."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Hits:
    """Correct answers out of those asked; add two to pool them.

    Raises:
        ValueError: not 0 <= correct <= asked.
    """

    correct: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total:
            raise ValueError(f"hits must satisfy 0 <= correct <= asked, got {self.correct} of {self.total}")

    def __add__(self, other: "Hits") -> "Hits":
        return Hits(self.correct + other.correct, self.total + other.total)

    @property
    def top1(self) -> float:
        """Share of correct answers, 0 to 1 (top-k, where the hits were counted so).

        Raises:
            ValueError: nothing was asked.
        """
        if self.total == 0:
            raise ValueError("no sample was asked, so there is no share of correct answers")
        return self.correct / self.total


def top_k_hits(logits: Float[np.ndarray, "sample class"], labels: Int64[np.ndarray, " sample"], k: int) -> Hits:
    """Samples whose label is among the k largest logits.

    Of equal logits the lower class comes first, as in argmax, so that a constant network is right by chance only. With
    as many classes as k or fewer, every sample is a hit.

    Raises:
        ValueError: k < 1, a logit is NaN, or a label is not a class.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    _check(logits, labels)
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    is_lower_class = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & is_lower_class)).sum(axis=1)
    return Hits(int((rank < k).sum()), len(labels))


def expected_calibration_error(
    logits: Float[np.ndarray, "sample class"], labels: Int64[np.ndarray, " sample"], num_bins: int = 15
) -> float:
    """Mean gap between confidence and top1 over bins of confidence, weighted by samples; 0 to 1, lower is better.

    Bins are equally wide and closed above, confidence is the largest probability (Guo et al. 2017, section 2).

    Raises:
        ValueError: num_bins < 1, no sample, a logit is NaN, or a label is not a class.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    if len(labels) == 0:
        raise ValueError("calibration needs at least 1 sample, got none")
    _check(logits, labels)
    # The largest probability is 1 / Σ exp(logit - largest logit).
    scores = logits.astype(np.float64)
    confidence = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    is_correct = scores.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=is_correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


@dataclass(frozen=True)
class Spread:
    """A mean over n repeats; std is the sample's (n-1), low and high bound its 95 % interval. None where n is 1."""

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n: int


def mean_and_spread(values: Sequence[float]) -> Spread:
    """Mean of repeats with the 95 % interval of Student's t, which holds for normally distributed repeats.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    if len(values) == 0:
        raise ValueError("a mean needs at least 1 value, got none")
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"a mean needs finite values, got {value}")
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Spread(mean, None, None, None, n)
    from scipy.special import stdtrit  # here: only results need it, and it takes a while to import

    std = statistics.stdev(values)
    margin = float(stdtrit(n - 1, (1 + _CONFIDENCE) / 2)) * std / math.sqrt(n)
    return Spread(mean, std, mean - margin, mean + margin, n)


def _check(logits: Float[np.ndarray, "sample class"], labels: Int64[np.ndarray, " sample"]) -> None:
    _check_numbers(logits)
    if len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(f"labels must be in [0, {logits.shape[1]}), got {labels.min()} to {labels.max()}")


def _check_numbers(logits: Float[np.ndarray, "sample class"]) -> None:
    if np.isnan(logits).any():
        raise ValueError("logits must be numbers, got NaN")
