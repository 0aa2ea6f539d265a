"""What a network's feature stages give while it runs: taps at the ends of stages, and features made small."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.probe import model_name
from edpipe.models.splitting.chain import Tap
from edpipe.models.splitting.split import stage_ends


def pooled(
    features: Float[Tensor, "sample channel height width"], side: int
) -> Float[Tensor, "sample channel pooled_height pooled_width"]:
    """Means of `side` × `side` windows that cover the map evenly; an axis of no more pixels is kept; float32, a copy.

    Window i of an axis of n pixels goes from ⌊i·n/side⌋ up to ⌈(i+1)·n/side⌉, as in torch's adaptive_avg_pool2d, whose
    gradient on a GPU is another in each run where windows overlap.

    Raises:
        ValueError: side < 1.
    """
    if side < 1:
        raise ValueError(f"side must be >= 1, got {side}")
    # A copy: the module that comes next may work in place.
    return _pooled_axis(_pooled_axis(features.to(torch.float32, copy=True), 2, side), 3, side)


def _pooled_axis(features: Float[Tensor, "s c h w"], axis: int, side: int) -> Float[Tensor, "s c _ _"]:
    num = features.shape[axis]
    if num <= side:
        return features
    windows = [(i * num // side, -(-(i + 1) * num // side)) for i in range(side)]
    means = [features.narrow(axis, start, stop - start).mean(axis, keepdim=True) for start, stop in windows]
    return torch.cat(means, axis)


@contextmanager
def tapped(taps: Sequence[Tap], read: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """A list that every forward pass fills anew with what `read` makes of the features at each tap, in order."""
    found = [torch.empty(0) for _ in taps]

    def keep(place: int, tap: Tap):  # noqa: ANN202
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            found[place] = read(tap.read(output))

        return hook

    handles = [tap.module.register_forward_hook(keep(place, tap)) for place, tap in enumerate(taps)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def ends_of_stages(network: nn.Module, what: str, remedy: str) -> list[Tap]:
    """Where the features of each feature stage can be read; `what` needs them, and `remedy` does without.

    Raises:
        NetworkError: the network is no chain of its modules.
    """
    try:
        return stage_ends(network)
    except NetworkError as error:
        reason = str(error).partition("; teach it")[0]
        raise NetworkError(f"{reason}; without stages it has no {what}: {remedy}") from error


@contextmanager
def hint_taps(
    network: nn.Module, feature_stage: int, side: int | None, knob: str = "storage.hint"
) -> Iterator[list[Tensor]]:
    """A list of one tensor that every forward pass fills anew with the features of one stage.

    They are what a hint is (Romero et al. 2015, section 2.2): (sample, channel, height, width), float32, with a
    gradient where the pass has one.

    Args:
        network: whose features are tapped.
        feature_stage: of the feature stage, from 1.
        side: to which a larger map is averaged down, as in `pooled`; None: maps are left as they are.
        knob: what a refusal names, with the knob `feature_stage` in it.

    Raises:
        NetworkError: the network is no chain of its modules, or has no such stage.
    """
    remedy = f"remove {knob}, or use another model"
    ends = ends_of_stages(network, "hint", remedy)
    if not 1 <= feature_stage <= len(ends):
        has = f"has {len(ends)} feature stages (sample, channel, height, width)"
        helps = f"give 1 to {len(ends)}, {remedy}" if ends else remedy
        raise NetworkError(
            f"model {model_name(network)!r}: {has}, {knob}.feature_stage {feature_stage} is none of them; {helps}"
        )
    with tapped([ends[feature_stage - 1]], lambda features: _whole_or_pooled(features, side)) as found:
        yield found


def _whole_or_pooled(features: Float[Tensor, "s c h w"], side: int | None) -> Float[Tensor, "s c _ _"]:
    # A copy: the module that comes next may work in place.
    return features.to(torch.float32, copy=True) if side is None else pooled(features, side)
