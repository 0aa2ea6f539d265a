"""Teaching reference blocks: what stands in for the blocks that a student does not have yet."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from edpipe.models.probe import drawing
from edpipe.models.zoo.layers import GlobalPool

REFERENCES = ("adapter", "linear", "authors")
AUTHORS_WINDOW = 8
"""Pixels, of the pooling in the authors' first reference block."""


def build_reference(
    kind: str, in_channels: int, final_channels: int, num_outputs: int, seed: int, first_side: int | None = None
) -> nn.Sequential:
    """Features (sample channel height width) to logits (sample num_outputs), with freshly drawn weights.

    adapter: 1×1 convolution to the width that the last body block would give, BN, ReLU, pool, linear.
    linear: pool, linear.
    authors: as in the ED authors' code: 1×1 convolution to that width, BN, pool, linear; at the first level the pooling
    has windows of 8 × 8 pixels, later it is over the whole map.

    Args:
        kind: as above.
        in_channels: of the features.
        final_channels: of the last body block.
        num_outputs: classes.
        seed: of the weights.
        first_side: side of the feature map, at the first level; None at later ones.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in REFERENCES:
        raise ValueError(f"reference must be one of {', '.join(REFERENCES)}, got {kind!r}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    num_features = in_channels if kind == "linear" else final_channels
    with drawing(seed):
        if kind != "linear":
            adapter = nn.Conv2d(in_channels, final_channels, 1, bias=False)
            nn.init.kaiming_normal_(adapter.weight, mode="fan_out", nonlinearity="relu")
            layers["adapter"] = adapter
            layers["bn"] = nn.BatchNorm2d(final_channels)
        if kind == "adapter":
            layers["relu"] = nn.ReLU()
        grid = 1 if kind != "authors" or first_side is None else max(1, first_side // AUTHORS_WINDOW)
        layers |= _pooling(grid)
        layers["fc"] = nn.Linear(num_features * grid**2, num_outputs)
    return nn.Sequential(layers)


def reference_of(kind: str, level: int, shapes: Sequence[torch.Size], num_outputs: int, seed: int) -> nn.Sequential:
    """The reference block of one level (from 1); `shapes` are of the features that each body block gives."""
    side = shapes[0][-1] if level == 1 else None
    return build_reference(kind, shapes[level - 1][1], shapes[-1][1], num_outputs, seed, side)


def _pooling(grid: int) -> dict[str, nn.Module]:
    """Means over the whole map, or over a grid of windows of 8 × 8 pixels."""
    if grid == 1:
        return {"pool": GlobalPool()}
    return {"pool": nn.AvgPool2d(AUTHORS_WINDOW), "flatten": nn.Flatten()}
