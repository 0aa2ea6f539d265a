"""How far stored rows are from what the teacher says now, and what a sample of rows says of all of them; NumPy only."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.stats import beta

from edpipe.soft_labels.encoding.precisions import CERTIFIED_TEMPERATURE, Parts, Precision
from edpipe.soft_labels.encoding.softmax import row_kl

NOISE_KL = 1e-3
"""Nats at temperature 4: how far the same teacher may be from itself in other batches or on another device."""
NOISE_MISFIT = (NOISE_KL / 2) ** 0.5
"""Sampled rows: how far a draw may lie outside its class's part of the cumulated softmax for the same reason; it is the
total variation that so much KL allows (Pinsker's inequality)."""
NOISE_MAP = 0.05
"""How far for the same reason a number of an attention map of length 1 may be off, and a whole hint as a share of its
length."""
CONFIDENCE = 0.99


@dataclass(frozen=True)
class Fidelity:
    """What a comparison of sampled rows found."""

    num_rows: int
    num_bad_rows: int
    """Farther from the teacher than storing and the noise of computing can have moved them."""
    num_argmax_flips: int
    """Rows in which teacher and stored row name different classes; ties and quantisation cause a few."""
    max_difference: float
    """Largest difference of two logits, of two numbers of an attention map, or of two hints in shares of a length."""
    mean_kl: float
    """KL(teacher ‖ stored) at temperature 4, nats; of sampled rows the mean share of draws that differ."""
    max_kl: float

    @property
    def max_bad_share(self) -> float:
        """With 99 % confidence no more than this share of all rows is bad (Clopper and Pearson 1934, one-sided)."""
        if self.num_bad_rows >= self.num_rows:
            return 1.0
        return float(beta.ppf(CONFIDENCE, self.num_bad_rows + 1, self.num_rows - self.num_bad_rows))

    def say(self) -> str:
        """One line of figures."""
        bad = f"{self.num_bad_rows} bad (at most {self.max_bad_share:.2%} of all at 99 % confidence)"
        kl = f"mean {self.mean_kl:.2g}, largest {self.max_kl:.2g} nats"
        return (
            f"{self.num_rows} rows: {bad}, largest difference {self.max_difference:.3g}, "
            f"KL at temperature {CERTIFIED_TEMPERATURE:g} {kl}, {self.num_argmax_flips} argmax flips"
        )


def map_difference(
    now: Float32[np.ndarray, "row height width"], stored: Float32[np.ndarray, "row height width"]
) -> Float32[np.ndarray, " row"]:
    """How far the attention maps of each row are apart: their largest difference."""
    return np.abs(now - stored).max(axis=(1, 2))


def hint_difference(
    now: Float32[np.ndarray, "row channel height width"], stored: Float32[np.ndarray, "row channel height width"]
) -> Float32[np.ndarray, " row"]:
    """How far the hints of each row are apart: the length of their difference as a share of the longer one's."""
    apart, *lengths = (np.linalg.norm(x.reshape(len(x), -1), axis=1) for x in (now - stored, now, stored))
    longer = np.maximum(*lengths)
    return np.divide(apart, longer, out=np.zeros_like(apart), where=longer != 0)  # of two that are all 0: 0


def compare_rows(
    exact: Float32[np.ndarray, "row class"],
    stored: Float32[np.ndarray, "row class"],
    stored_kl: float,
    feature_difference: Float32[np.ndarray, " row"],
) -> tuple[Fidelity, Bool[np.ndarray, " row"]]:
    """Rows of logits against the teacher's own; and which of them are bad.

    Args:
        exact: what the teacher says now.
        stored: what the file says.
        stored_kl: what storing cost the worst of all rows, measured at temperature 4, nats.
        beside: largest difference of what a row has beside its logits, of `map_difference` and `hint_difference`; 0
            where there is nothing.
    """
    kl = row_kl(exact, stored, CERTIFIED_TEMPERATURE)
    # Near 0 the root of KL is a distance: what storing and what noise have moved a row add up.
    is_bad = ~(np.sqrt(kl) <= np.sqrt(stored_kl) + np.sqrt(NOISE_KL)) | ~(feature_difference <= NOISE_MAP)
    flips = int((exact.argmax(axis=1) != stored.argmax(axis=1)).sum())
    difference = float(max(np.abs(exact - stored).max(), feature_difference.max()))
    return Fidelity(len(kl), int(is_bad.sum()), flips, difference, float(kl.mean()), float(kl.max())), is_bad


def compare_draws(
    precision: Precision,
    exact: Parts,
    stored: Parts,
    misfit: Float64[np.ndarray, " row"],
    feature_difference: Float32[np.ndarray, " row"],
) -> tuple[Fidelity, Bool[np.ndarray, " row"]]:
    """Sampled rows against the same draws from the teacher's softmax now; and which of them are bad.

    Args:
        precision: how they are stored.
        exact: what the same draws give now.
        stored: what the file says.
        misfit: of the stored rows, from `Sampled.misfit`. Draws that differ tell less: where many classes are likely,
            noise moves many draws to the next.
        beside: largest difference of what a row has beside its logits, of `map_difference` and `hint_difference`; 0
            where there is nothing.
    """
    now, then = (np.exp(precision.decode(parts) / precision.temperature) for parts in (exact, stored))
    share = np.abs(now - then).sum(axis=1) / 2
    is_bad = ~(misfit <= NOISE_MISFIT) | ~(feature_difference <= NOISE_MAP)
    flips = int((now.argmax(axis=1) != then.argmax(axis=1)).sum())
    difference = float(max(np.abs(now - then).max(), feature_difference.max()))
    return Fidelity(len(share), int(is_bad.sum()), flips, difference, float(share.mean()), float(share.max())), is_bad
