"""One experiment against another over the repeats that both have; NumPy and the standard library only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from edpipe.results.measures.metrics import Spread, mean_and_spread

# Differences of shares are exact to about 1e-16; those of different counts of fewer than 1e9 images differ by more.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class PairedDifference:
    """What one experiment has more than another, repeat by repeat.

    Attributes:
        spread: of the differences, with their 95 % interval; in the unit of the values, positive if more is had.
        t: their mean divided by its standard error; None for one repeat, or if all differences are equal.
        p: chance of a t as far from 0 or further if the true mean difference is 0, two-sided; None where t is.
        wins: repeats with a positive difference.
        losses: repeats with a negative one.
    """

    spread: Spread
    t: float | None
    p: float | None
    wins: int
    losses: int

    @property
    def ties(self) -> int:
        """Repeats without a difference."""
        return self.spread.n - self.wins - self.losses


def paired_difference(values: Sequence[float], base: Sequence[float]) -> PairedDifference:
    """`values` minus `base`, pair by pair, with Student's paired t-test (Student 1908, "The probable error of a mean").

    A pair is one seed, since the seed decides what both experiments have in common: initial weights, and in one-stage
    experiments of equal recipes also which images are shown in which order and view. What a seed does to both cancels
    in its difference. The test holds for independent pairs with normally distributed differences, even if nothing
    cancels.

    >>> found = paired_difference([0.75, 1.0, 1.0], [0.5, 0.5, 0.75])
    >>> round(found.spread.mean, 4), round(found.t, 4), round(found.p, 4), found.wins
    (0.3333, 4.0, 0.0572, 3)

    Raises:
        ValueError: no pair, not as many values as base, or a value that is not finite.
    """
    if len(values) != len(base):
        raise ValueError(f"pairs need as many values on both sides, got {len(values)} and {len(base)}")
    differences = [own - other for own, other in zip(values, base, strict=True)]
    spread = mean_and_spread(differences)
    t, p = _t_test(spread, max(differences) - min(differences))
    return PairedDifference(spread, t, p, sum(d > 0 for d in differences), sum(d < 0 for d in differences))


def _t_test(spread: Spread, width: float) -> tuple[float | None, float | None]:
    if not spread.std or width <= _ROUNDING:
        return None, None
    from scipy.special import stdtr  # here: only comparisons need it, and it takes a while to import

    t = spread.mean / (spread.std / math.sqrt(spread.n))
    return t, 2 * float(stdtr(spread.n - 1, -abs(t)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p value so enlarged that the chance of any false alarm stays below the level it is compared with; 0 to 1.

    The smallest is multiplied by the number of tests, the next by one less, and so on; none gets smaller than one
    before it (Holm 1979, "A simple sequentially rejective multiple test procedure"). Holds for dependent tests too.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Raises:
        ValueError: a p value outside [0, 1].
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p values must be in [0, 1], got {p}")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def mean_by_class(top1: Float64[np.ndarray, "seed class"]) -> list[float | None]:
    """Mean over seeds for each class; None for a class of which a seed has no number, written NaN.

    Raises:
        ValueError: there is no seed.
    """
    if len(top1) == 0:
        raise ValueError("a mean by class needs at least 1 seed, got none")
    return [None if math.isnan(mean) else float(mean) for mean in top1.mean(axis=0)]
