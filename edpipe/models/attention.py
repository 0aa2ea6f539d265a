"""Attention maps: where in the image each feature stage of a network is active."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.taps import ends_of_stages, tapped
from edpipe.models.zoo import model_name

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
    ends = ends_of_stages(network, "attention maps", _REMEDY)
    if len(ends) < 2:
        raise NetworkError(
            f"model {model_name(network)!r}: has {len(ends)} feature stages (sample, channel, height, width), "
            f"attention maps need at least 2; {_REMEDY}"
        )
    with tapped(ends, attention_map) as maps:
        yield maps
