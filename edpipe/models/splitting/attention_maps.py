"""Attention maps: where in the image each feature stage of a network is active."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.models.splitting.split import split_into_stages
from edpipe.models.splitting.taps import tapped

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
    blocks, _ = split_into_stages(network, "attention maps", _REMEDY)
    with tapped([block.tap for block in blocks], attention_map) as maps:
        yield maps
