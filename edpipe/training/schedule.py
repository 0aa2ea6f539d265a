"""How long and how fast a network is trained: budgets in images and iterations, and learning rates."""

import math
from dataclasses import dataclass

from edpipe.params.recipe import RecipeKnobs
from edpipe.params.stage import StageKnobs

# The first iteration of a warmup must not be wasted on a rate of exactly 0.
_WARMUP_START = 0.01


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


@dataclass(frozen=True)
class ImageMacs:
    """Multiply-accumulates of training on one image."""

    own: int = 1
    """Of what the stage trains, at the stage's image size."""
    whole: int = 1
    """Of the whole student, at full size."""


def num_images(budget: StageKnobs, num_samples: int, macs: ImageMacs = ImageMacs()) -> int:
    """Images that a stage shows; at least 1.

    Its `images`; or its epochs times its samples, rounded; or as many as cost no more than its `compute`.

    >>> num_images(StageKnobs(compute=100), 50, ImageMacs(own=3, whole=9))
    300

    Raises:
        ValueError: there is no sample.
    """
    if budget.epochs is not None:
        return epoch_images(budget.epochs, num_samples)
    if num_samples < 1:
        raise ValueError(f"a stage needs at least 1 sample, got {num_samples}")
    if budget.images is not None:
        return budget.images
    assert budget.compute is not None, "StageKnobs has exactly one budget"
    return max(1, budget.compute * macs.whole // macs.own)


def epoch_images(epochs: float, num_samples: int) -> int:
    """Images of so many passes over so many samples, rounded; at least 1.

    Raises:
        ValueError: there is no sample.
    """
    if num_samples < 1:
        raise ValueError(f"a stage needs at least 1 sample, got {num_samples}")
    return max(1, round(epochs * num_samples))


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
