"""A network as a chain: body blocks that run one after another, then a head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edpipe.models.probe import evaluating, probe_images
from edpipe.models.splitting.functional_ops import Functions, run_functions


@dataclass(frozen=True)
class Unit:
    """A module and its name inside its network; a function has no weights and no name."""

    path: str
    module: nn.Module


class Tap(NamedTuple):
    """Where features can be read while the whole network runs."""

    module: nn.Module
    functions: Functions = ()
    """What makes maps, channels second, of the module's output."""

    def read(self, made: Tensor) -> Tensor:
        """Features (sample, channel, height, width) of what the module has given."""
        return run_functions(self.functions, made)


class Chain(nn.Module):
    """Modules run one after the other, whose weights keep the names they have in their network."""

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__()
        self.paths = tuple(unit.path for unit in units)
        self.links = nn.ModuleList(unit.module for unit in units)

    def forward(self, features: Tensor) -> Tensor:
        """What the last module gives; its shape is that module's affair."""
        for link in self.links:
            features = link(features)
        return features

    @property
    def units(self) -> tuple[Unit, ...]:
        """Its modules with their names."""
        return tuple(Unit(path, link) for path, link in zip(self.paths, self.links, strict=True))

    @property
    def tap(self) -> Tap:
        """Where the network, which does not call the functions at a chain's end, gives what this chain gives."""
        last = max((place for place, path in enumerate(self.paths) if path), default=len(self.links) - 1)
        return Tap(self.links[last], tuple(self.links[last + 1 :]))

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers under the network's own names; the tensors themselves, not copies."""
        return {
            f"{unit.path}.{name}" if unit.path else name: value
            for unit in self.units
            for name, value in unit.module.state_dict().items()
        }


def map_shapes(network: nn.Module, blocks: Sequence[Chain], channels: int, image_size: int) -> list[torch.Size]:
    """Shape (sample channel height width) of the features that each block gives for square images of this size."""
    shapes = []
    with evaluating(network):
        features = probe_images(network, channels, image_size)
        for block in blocks:
            features = block(features)
            shapes.append(features.shape)
    return shapes


def join(blocks: Sequence[Chain]) -> Chain:
    """One chain of several."""
    return Chain([unit for block in blocks for unit in block.units])
