"""Which view each sample shows in each epoch, and the order of samples; pure functions of (seed, sample, number)."""

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Int64

from edpipe.params.soft_labels import MOST_VIEWS
from edpipe.views.axes import SampleIds, Views
from edpipe.views.philox import Purpose, choose_below, random_words


def view_of(
    seed: int,
    epoch: int | Int64[np.ndarray, " sample"],
    sample_ids: SampleIds,
    num_views: int,
    choice: Literal["random", "cycle"] = "random",
) -> Views:
    """The view, from 0, that each sample shows in its epoch; it depends on nothing but these arguments.

    random: drawn anew each epoch, all views alike; over an exhaustive space this is exactly what drawing an
    augmentation for each image does. cycle: epochs c × num_views … (c+1) × num_views - 1 are cycle c, in which each
    view is shown once; the order, (a × epoch + b) mod num_views with a prime to num_views, is drawn for each sample and
    cycle.

    Raises:
        ValueError: num_views < 1 or, with cycle, > 100,000; or a seed, epoch or id that `random_words` refuses.
    """
    if choice == "random":
        return choose_below(random_words(seed, Purpose.VIEW_CHOICE, sample_ids, epoch)[:, 0], num_views)
    factors = unit_table(num_views)
    cycle, place = epoch // num_views, epoch % num_views
    words = random_words(seed, Purpose.VIEW_CYCLE, sample_ids, cycle)
    factor, shift = factors[choose_below(words[:, 0], len(factors))], choose_below(words[:, 1], num_views)
    return (factor * place + shift) % num_views


@lru_cache(maxsize=8)
def unit_table(num_views: int) -> Int64[np.ndarray, " unit"]:
    """The numbers 1 … num_views that are prime to num_views: multiplied by one of them, its residues are permuted.

    >>> unit_table(9).tolist()
    [1, 2, 4, 5, 7, 8]

    Raises:
        ValueError: num_views outside [1, 100,000]; the table would be large.
    """
    if not 1 <= num_views <= MOST_VIEWS:
        raise ValueError(f"num_views must be in [1, {MOST_VIEWS}] for choice: cycle, got {num_views}")
    numbers = np.arange(1, num_views + 1, dtype=np.int64)
    units = numbers[np.gcd(numbers, num_views) == 1]
    units.flags.writeable = False  # one array serves all callers
    return units


def sample_order(seed: int, epoch: int, sample_ids: SampleIds) -> SampleIds:
    """The same ids, shuffled for one epoch; the order in which they are given does not matter.

    Each id gets 64 random bits; ids are sorted by these. Leaving ids out leaves the order of the others as it is.
    """
    ascending = np.sort(sample_ids)
    words = random_words(seed, Purpose.SAMPLE_ORDER, ascending, epoch).astype(np.uint64)
    return ascending[np.argsort((words[:, 0] << np.uint64(32)) | words[:, 1], kind="stable")]
