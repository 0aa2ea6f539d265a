"""TESKD: a network that learns with students on its own stages, which are dropped when it is deployed."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.models.probe import count_outputs, drawing
from edpipe.models.resize import resize_bilinear
from edpipe.models.splitting.chain import Chain, map_shapes
from edpipe.models.splitting.split import split_into_stages
from edpipe.models.zoo.layers import GlobalPool

_REMEDY = "use another model or method"
Maps = Float[Tensor, "sample channel height width"]


class TeskdOutputs(NamedTuple):
    """What a network and its students say of a batch; the students from the deepest to the shallowest."""

    logits: Float[Tensor, "sample class"]
    """Of the backbone."""
    student_logits: list[Float[Tensor, "sample class"]]
    features: Float[Tensor, "sample channel"]
    """Mean of the backbone's deepest feature map."""
    student_features: list[Float[Tensor, "sample channel"]]
    """What each student's classifier sees."""


class TeskdNetwork(nn.Module):
    """A network (the deployed one) of n ≥ 2 feature stages, and its n - 1 students (arXiv 2110.00329; resnet_our.py).

    The students are a feature pyramid, from the deepest stage up: each fuses what the one below it made with the map of
    the next finer stage, and classifies on its own. All are as wide as the deepest stage. Their weights are drawn as
    torch draws them by default, and the convolutions of the heads alone have a bias: both as in the code.
    """

    deployed: nn.Module
    """The plain network: its weights have its own names, and it gives the same logits as the whole."""

    def __init__(self, network: nn.Module, image_size: int, channels: int, seed: int) -> None:
        """Takes over the network's modules and draws the students; same seed, same bytes.

        Args:
            network: becomes `deployed`.
            image_size: side of the images, pixels; with it the strides of the students' heads are chosen.
            channels: of the images.
            seed: of the students' weights.

        Raises:
            NetworkError: the network is no chain of its modules, has fewer than two feature stages, or cannot take
                such images.
        """
        super().__init__()
        num_outputs = count_outputs(network, channels, image_size)
        blocks, head = split_into_stages(network, "TESKD students", _REMEDY)
        shapes = map_shapes(network, blocks, channels, image_size)
        _, width, _, deepest_side = shapes[-1]
        self.deployed = network
        self._stages, self._head = [_route(block) for block in blocks], _route(head)
        strides = [max(1, round(shape[-1] / deepest_side)) for shape in shapes[-2::-1]]
        with drawing(seed):
            self.laterals = nn.ModuleList(_pointwise(shape[1], width) for shape in shapes)
            self.fusions = nn.ModuleList(Fusion(width) for _ in strides)
            self.heads = nn.ModuleList(StudentHead(width, stride, num_outputs) for stride in strides)

    def forward(self, images: Maps) -> TeskdOutputs:
        """What the network and its students say of a batch; in evaluation, `deployed` alone costs a fraction of it."""
        maps, features = [], images
        for stage in self._stages:
            features = self._run(stage, features)
            maps.append(features)
        students = self._students(maps)
        return TeskdOutputs(
            logits=self._run(self._head, features),
            student_logits=[logits for logits, _ in students],
            features=features.mean(dim=(2, 3)),
            student_features=[pooled for _, pooled in students],
        )

    def _students(self, maps: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Logits and pooled features of each student, the deepest first."""
        *finer, deepest = [lateral(features) for lateral, features in zip(self.laterals, maps, strict=True)]
        fused, outputs = deepest, []
        for fusion, head, lateral in zip(self.fusions, self.heads, reversed(finer), strict=True):
            fused = fusion(fused, lateral)
            outputs.append(head(fused, *deepest.shape[-2:]))
        return outputs

    def _run(self, route: tuple[str | nn.Module, ...], features: Tensor) -> Tensor:
        # Looked up anew each time, because several processes exchange batch normalisations for joint ones.
        for link in route:
            features = (self.deployed.get_submodule(link) if isinstance(link, str) else link)(features)
        return features


class Fusion(nn.Module):
    """Mixed fusion: what comes from below, resized, is added to the finer map, and then laid beside the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rise = _pointwise(width, width)
        self.mix = _pointwise(2 * width, width)

    def forward(
        self, below: Maps, lateral: Float[Tensor, "sample channel height_out width_out"]
    ) -> Float[Tensor, "sample channel height_out width_out"]:
        """Maps of the finer stage's size, whatever it is: 4 of 7 pixels become 7."""
        risen = self.rise(resize_bilinear(below, *lateral.shape[-2:]))
        return self.mix(torch.cat((risen + lateral, risen), dim=1))


class StudentHead(nn.Module):
    """Brings a student's map down to the size of the deepest stage in one stride, and classifies it."""

    def __init__(self, width: int, stride: int, num_outputs: int) -> None:
        super().__init__()
        self.stride = stride
        self.reduce = _convolution(width, width, stride, bias=True)
        self.mix = _convolution(width, width, 1, bias=True)
        self.pool = GlobalPool()
        self.fc = nn.Linear(width, num_outputs)

    def forward(
        self, features: Maps, height: int, width: int
    ) -> tuple[Float[Tensor, "sample class"], Float[Tensor, "sample channel"]]:
        """Logits and the pooled features they are made of; height and width are the deepest stage's."""
        cut = _cut(features, self.stride * height, self.stride * width)
        pooled = self.pool(self.mix(self.reduce(cut)))
        return self.fc(pooled), pooled


def _route(chain: Chain) -> tuple[str | nn.Module, ...]:
    """Names of the network's modules in order; what has no name there, and no weights, is itself."""
    return tuple(unit.path or unit.module for unit in chain.units)


def _pointwise(in_channels: int, channels: int) -> nn.Sequential:
    return _convolution(in_channels, channels, stride=1, bias=False)


def _convolution(in_channels: int, channels: int, stride: int, bias: bool) -> nn.Sequential:
    """Kernel as large as the stride, BN, ReLU."""
    convolution = nn.Conv2d(in_channels, channels, stride, stride, bias=bias)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


def _cut(features: Tensor, height: int, width: int) -> Tensor:
    """Maps of this size: at the bottom and on the right, zeros are added or pixels dropped.

    Where every stage halves an even size, as 32 → 16 → 8 → 4 or 28 → 14 → 7 do, there is nothing to do.
    """
    missing = height - features.shape[-2], width - features.shape[-1]
    return F.pad(features, (0, missing[1], 0, missing[0])) if any(missing) else features
