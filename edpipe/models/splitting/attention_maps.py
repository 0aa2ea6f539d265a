"""Attention maps: where in the image a network is active, at several places along it.

Networks for small images give the maps that published code compares (`attention_modules`), others those of their
feature stages.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.models.probe import model_name
from edpipe.models.splitting.chain import Chain, Tap, join
from edpipe.models.splitting.split import split_into_stages
from edpipe.models.splitting.taps import tapped
from edpipe.models.zoo.forms import attention_modules

_REMEDY = "set storage.attention: false, or use another model"


def attention_map(features: Float[Tensor, "sample channel height width"]) -> Float[Tensor, "sample height width"]:
    """Mean over channels of the squared features, of length 1 (Zagoruyko and Komodakis 2017, section 3.1); float32."""
    energy = features.float().pow(2).mean(dim=1)
    return F.normalize(energy.flatten(1), dim=1).view_as(energy)


@contextmanager
def attention_taps(network: nn.Module) -> Iterator[list[Tensor]]:
    """A list that every forward pass fills anew with the network's attention maps, in order.

    Raises:
        NetworkError: the network is no chain of its modules, or has fewer than two such stages.
    """
    blocks, _ = split_into_stages(network, "attention maps", _REMEDY)
    with tapped(attention_ends(network, blocks), attention_map) as maps:
        yield maps


def attention_ends(network: nn.Module, stages: Sequence[Chain]) -> list[Tap]:
    """Where the features of each attention map can be read, in order.

    Args:
        network: whole.
        stages: its feature stages.
    """
    names = attention_modules(model_name(network))
    if names is None:
        return [stage.tap for stage in stages]
    units = join(stages).units
    return [Tap([unit.module for unit in units if f"{unit.path}.".startswith(f"{name}.")][-1]) for name in names]
