"""What `edpipe.views.spec` decides, decided on a torch device: the same integers, from ids that are there already."""

from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from edpipe.views.crops import pad_crop_of
from edpipe.views.philox import Purpose
from edpipe.views.philox_torch import choose_below, random_words
from edpipe.views.sampling import unit_table
from edpipe.views.spec import ViewSpec


def view_of(
    seed: int,
    epoch: int | Int64[Tensor, " sample"],
    sample_ids: Int64[Tensor, " sample"],
    num_views: int,
    choice: Literal["random", "cycle"] = "random",
) -> Int64[Tensor, " sample"]:
    """The view that each sample shows in its epoch, as `sampling.view_of`; ids and epochs are not checked.

    Raises:
        ValueError: a num_views or seed that `edpipe.views.sampling.view_of` refuses.
    """
    if choice == "random":
        return choose_below(random_words(seed, Purpose.VIEW_CHOICE, sample_ids, epoch)[:, 0], num_views)
    factors = _unit_table(num_views, sample_ids.device)
    cycle, place = epoch // num_views, epoch % num_views
    words = random_words(seed, Purpose.VIEW_CYCLE, sample_ids, cycle)
    factor, shift = factors[choose_below(words[:, 0], len(factors))], choose_below(words[:, 1], num_views)
    return (factor * place + shift) % num_views


@lru_cache(maxsize=8)
def _unit_table(num_views: int, device: torch.device) -> Int64[Tensor, " unit"]:
    return torch.tensor(unit_table(num_views), device=device)


def pad_crop_parameters(
    spec: ViewSpec, sample_ids: Int64[Tensor, " sample"], views: Int64[Tensor, " sample"]
) -> tuple[Int64[Tensor, " sample"], Int64[Tensor, " sample"], Bool[Tensor, " sample"]]:
    """dy, dx and flip of each view, as `edpipe.views.crops.pad_crop_parameters`; ids and views are taken on trust.

    Raises:
        ValueError: the spec is of another kind.
    """
    augment = pad_crop_of(spec)
    num_offsets = 2 * augment.padding + 1
    if spec.exhaustive:
        corner, dx = views // num_offsets, views % num_offsets
        return corner % num_offsets, dx, corner >= num_offsets
    words = random_words(spec.seed, Purpose.PAD_CROP, sample_ids, views)
    flip = choose_below(words[:, 2], 2) > 0
    dy, dx = choose_below(words[:, 0], num_offsets), choose_below(words[:, 1], num_offsets)
    return dy, dx, flip if augment.flip else torch.zeros_like(flip)
