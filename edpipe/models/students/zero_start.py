"""Residual units that start as their shortcuts (Goyal et al. 2017, arXiv 1706.02677, section 5.1)."""

from collections.abc import Sequence

from torch import nn

from edpipe.errors import NetworkError
from edpipe.models.probe import model_name
from edpipe.models.splitting.chain import Chain

ZERO_INIT = "zero_init_last"
"""Method of a residual unit of the zoo or of timm that sets the scale of its last normalisation to 0."""


def start_as_shortcuts(network: nn.Module, blocks: Sequence[Chain], first: int) -> None:
    """In each residual unit of these blocks, the scale of the last normalisation becomes 0.

    What the unit adds to its shortcut is then 0 until it has learnt; gradients reach the scale at once.

    Args:
        network: for the error.
        blocks: body blocks of the network; changed in place.
        first: number of the first of them, from 1, for the error.

    Raises:
        NetworkError: a block has no residual unit that ends in a normalisation.
    """
    for number, block in enumerate(blocks, start=first):
        units = [module for module in block.modules() if _zero_last(module)]
        if not units:
            raise NetworkError(
                f"model {model_name(network)!r}: new_block: zero needs residual units that end in a normalisation, "
                f"and none was found in block {number}; use new_block: drawn, or a residual network such as resnet20"
            )


def _zero_last(module: nn.Module) -> bool:
    """Zeroes the last scale of a residual unit; whether the module is one, and has such a scale."""
    if hasattr(module, ZERO_INIT):
        getattr(module, ZERO_INIT)()
        weights = [value for name, value in module.named_parameters() if name.endswith("weight")]
        return any(not value.any() for value in weights)
    scale = _torchvision_scale(module)
    if scale is not None:
        nn.init.zeros_(scale)
    return scale is not None


def _torchvision_scale(module: nn.Module) -> nn.Parameter | None:
    """Of the last normalisation of a residual unit of torchvision, which has no method for it."""
    if type(module).__module__ != "torchvision.models.resnet":
        return None
    from torchvision.models.resnet import BasicBlock, Bottleneck

    norm = module.bn3 if isinstance(module, Bottleneck) else module.bn2 if isinstance(module, BasicBlock) else None
    return norm.weight if isinstance(norm, nn.BatchNorm2d) else None
