"""When what is shown, and how fast is learnt: budgets, learning rates and the endless stream of samples."""

import math
from threading import Lock
from typing import Literal

import numpy as np
from jaxtyping import Int64

from edpipe.params.recipe import RecipeKnobs
from edpipe.params.stage import StageKnobs
from edpipe.shapes import SampleIds
from edpipe.views import sample_order

# The first iteration of a warmup must not be wasted on a rate of exactly 0.
_WARMUP_START = 0.01
_NUM_CACHED_EPOCHS = 2
# As in torch.optim.lr_scheduler.OneCycleLR: shares of the peak at the start and at the end.
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1 / 250_000


def rate_factor(recipe: RecipeKnobs, fraction: float) -> float:
    """What the peak learning rate is multiplied by when `fraction` of the window has passed; in [0, 1].

    The warmup rises linearly from 0.01 to 1. Cosine falls from 1 to 0 over the rest of the window; step multiplies by
    gamma at each milestone, counted from the start of the window. One-cycle rises from 1/25 during the warmup and falls
    to 1/250,000 over the rest, both along half a cosine (Smith and Topin 2018, as torch has it).

    >>> rate_factor(RecipeKnobs(schedule="cosine"), 0.5)
    0.5

    Raises:
        ValueError: fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction of the window must be in [0, 1), got {fraction}")
    if recipe.schedule == "one_cycle":
        return _one_cycle(recipe.warmup, fraction)
    return _rise(recipe, fraction) * _decay(recipe, fraction)


def _one_cycle(warmup: float, fraction: float) -> float:
    if fraction < warmup:
        return _half_cosine(_ONE_CYCLE_START, 1.0, fraction / warmup)
    return _half_cosine(1.0, _ONE_CYCLE_END, (fraction - warmup) / (1 - warmup))


def _half_cosine(first: float, last: float, progress: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))


def _rise(recipe: RecipeKnobs, fraction: float) -> float:
    if fraction >= recipe.warmup:
        return 1.0
    return _WARMUP_START + (1 - _WARMUP_START) * fraction / recipe.warmup


def _decay(recipe: RecipeKnobs, fraction: float) -> float:
    if recipe.schedule == "step":
        return recipe.gamma ** sum(milestone <= fraction for milestone in recipe.milestones)
    if recipe.schedule == "cosine":
        return _half_cosine(1.0, 0.0, max(0.0, fraction - recipe.warmup) / (1 - recipe.warmup))
    return 1.0


def num_images(budget: StageKnobs, num_samples: int) -> int:
    """Images that a stage shows: its `images`, or its epochs times its samples, rounded; at least 1.

    Raises:
        ValueError: there is no sample.
    """
    if num_samples < 1:
        raise ValueError(f"a stage needs at least 1 sample, got {num_samples}")
    if budget.images is not None:
        return budget.images
    assert budget.epochs is not None, "StageKnobs has exactly one budget"
    return max(1, round(budget.epochs * num_samples))


def num_iterations(total: int, batch_size: int) -> int:
    """Batches that `total` images make.

    >>> [num_iterations(total, 64) for total in (1, 64, 65, 66, 128)]
    [1, 1, 1, 2, 2]

    Raises:
        ValueError: no image, or a batch_size below 2.
    """
    if total < 1:
        raise ValueError(f"total must be at least 1 image, got {total}")
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, got {batch_size}")
    # A single image left over joins the batch before it: batch normalisation cannot fit a batch of one.
    return max(1, (total - 2) // batch_size + 1)


def batch_positions(iteration: int, batch_size: int, total: int) -> tuple[int, int]:
    """Where the batch of one iteration (from 0) starts and stops in the stream of `total` images; half-open.

    The last batch takes what is left: 2 to batch_size + 1 images (1 if there is no more).

    Raises:
        ValueError: no such iteration.
    """
    count = num_iterations(total, batch_size)
    if not 0 <= iteration < count:
        raise ValueError(f"iteration must be in [0, {count}), got {iteration}")
    start = iteration * batch_size
    return start, total if iteration == count - 1 else start + batch_size


class SampleStream:
    """The endless stream of (epoch, sample id) that training sees; a pure function of (seed, position).

    Args:
        seed: of the order.
        subset_ids: samples of each taught subset, in the order they are taught; disjoint.
        mixing: mixed: every epoch shuffles all samples together; sequential: one subset after the other, each shuffled.

    Raises:
        ValueError: no sample at all, or one that is in two subsets.
    """

    def __init__(
        self, seed: int, subset_ids: tuple[Int64[np.ndarray, "..."], ...], mixing: Literal["mixed", "sequential"]
    ) -> None:
        together = np.concatenate(subset_ids) if subset_ids else np.empty(0, dtype=np.int64)
        if len(together) == 0:
            raise ValueError("a stream needs at least 1 sample, got none")
        if len(np.unique(together)) != len(together):
            raise ValueError("a sample is in more than one of the taught subsets")
        self._seed = seed
        self._groups = (together,) if mixing == "mixed" else subset_ids
        self._orders: dict[int, SampleIds] = {}
        self._lock = Lock()  # batches are made in several threads
        self.num_samples = len(together)

    def slice(self, start: int, stop: int) -> tuple[Int64[np.ndarray, " sample"], SampleIds]:
        """(epochs, sample ids) at positions start … stop-1.

        Raises:
            ValueError: not 0 <= start <= stop.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"positions must satisfy 0 <= start <= stop, got {start} and {stop}")
        positions = np.arange(start, stop, dtype=np.int64)
        epochs, sample_ids = positions // self.num_samples, np.empty_like(positions)
        for epoch in range(start // self.num_samples, -(-stop // self.num_samples)):
            first = epoch * self.num_samples
            low, high = max(start, first), min(stop, first + self.num_samples)
            sample_ids[low - start : high - start] = self._order(epoch)[low - first : high - first]
        return epochs, sample_ids

    def _order(self, epoch: int) -> Int64[np.ndarray, "..."]:
        """All samples in the order of one epoch; the last two epochs asked for are kept."""
        with self._lock:
            if epoch not in self._orders:
                while len(self._orders) >= _NUM_CACHED_EPOCHS:
                    self._orders.pop(next(iter(self._orders)))
                self._orders[epoch] = np.concatenate([sample_order(self._seed, epoch, ids) for ids in self._groups])
            return self._orders[epoch]
