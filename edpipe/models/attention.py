"""Attention maps: where in the image each feature stage of a network is active."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.models.split import split_into_stages

_REMEDY = "set storage.attention: false, or use another model"


def attention_map(features: Float[Tensor, "sample channel height width"]) -> Float[Tensor, "sample height width"]:
    """Mean over channels of the squared features, of length 1 (Zagoruyko and Komodakis 2017, section 3.1); float32."""
    energy = features.float().pow(2).mean(dim=1)
    return F.normalize(energy.flatten(1), dim=1).view_as(energy)


@contextmanager
def attention_taps(network: nn.Module) -> Iterator[list[Tensor]]:
    """A list that every forward pass fills anew with the attention map of each feature stage, in order.

    Raises:
        NetworkError: the network is no chain of its modules, or has fewer than two such stages.
    """
    ends = _stage_ends(network)
    maps = [torch.empty(0) for _ in ends]

    def tap(level: int):  # noqa: ANN202
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            maps[level] = attention_map(output)

        return hook

    handles = [end.register_forward_hook(tap(level)) for level, end in enumerate(ends)]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _stage_ends(network: nn.Module) -> list[nn.Module]:
    """The last module of each feature stage."""
    blocks, _ = split_into_stages(network, "attention maps", _REMEDY)
    return [block.units[-1].module for block in blocks]
