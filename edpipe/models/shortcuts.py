"""References that the student keeps: the shortcuts of the blocks it does not have yet, then its own head.

A residual block adds what it learnt to a shortcut. Where what it learnt begins at zero, the block is its shortcut. So
the missing blocks can be stood in for by their shortcuts, and when a block is added, its shortcut is already there: the
grown student begins by saying what the smaller one said (as in Net2Net, Chen et al. 2016; blocks that begin at zero are
those of Goyal et al. 2017, section 5.1).
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.split import Chain, Unit
from edpipe.models.zoo import evaluating

_NORMS = (nn.BatchNorm2d,)


def shortcut_reference(blocks: Sequence[Chain], head: Chain) -> Chain:
    """Features before the blocks to logits: the blocks' shortcuts, then the head; weights keep the network's names.

    The modules are the network's own, not copies.

    Raises:
        NetworkError: a block is not residual, or is more than its shortcut where its last normalisation is zero.
    """
    units = [part for block in blocks for unit in block.units for part in _shortcut(unit)]
    return Chain([*units, *head.units])


def _shortcut(unit: Unit) -> list[Unit]:
    """What a residual block does besides what it learnt; without a projection it does nothing."""
    _check_residual(unit)
    if unit.module.downsample is None:
        return []
    return [Unit(f"{unit.path}.downsample", _part(unit, "downsample")), Unit("", nn.ReLU())]


def _part(unit: Unit, name: str) -> nn.Module:
    part = getattr(unit.module, name)
    assert isinstance(part, nn.Module), "checked before"
    return part


def last_norm(block: nn.Module) -> nn.Module | None:
    """The normalisation after what a residual block learnt; None if there is none."""
    norms = [
        module
        for name, module in block.named_modules()
        if isinstance(module, _NORMS) and not name.startswith("downsample")
    ]
    return norms[-1] if norms else None


def silence(block: nn.Module) -> None:
    """Makes a residual block its shortcut: what it learnt is multiplied by zero, and learns to count."""
    norm = last_norm(block)
    assert isinstance(norm, nn.BatchNorm2d), "checked when the reference was built"
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.zero_()


def _check_residual(unit: Unit) -> None:
    """That a silenced copy of the block does to some features what its shortcut does: tried, not assumed."""
    found = hasattr(unit.module, "downsample") and last_norm(unit.module) is not None
    if not (found and _is_shortcut_when_silent(unit.module)):
        raise NetworkError(
            f"block {unit.path!r} ({type(unit.module).__name__}) is not a residual block with batch normalisation and "
            "ReLU, so it has no shortcut to begin with; use reference: adapter"
        )


def _is_shortcut_when_silent(block: nn.Module) -> bool:
    block = copy.deepcopy(block).float()
    silence(block)
    downsample = getattr(block, "downsample", None)
    first = next(module for module in block.modules() if isinstance(module, nn.Conv2d))
    generator = torch.Generator().manual_seed(0)
    features = torch.rand((2, first.in_channels, 8, 8), generator=generator)
    with evaluating(block), torch.no_grad():
        wanted = features if downsample is None else downsample(features).relu()
        found = block(features)
    return found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-6)


def promoted(previous_weights: Mapping[str, Tensor], prefix: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the reference before under the names that they have in the grown student.

    Args:
        previous_weights: of the stage before; those of its reference begin with `prefix`.
        prefix: of a reference's weights.
        own: of the grown student: a block's under its own name, those of a reference with the prefix.
    """
    names = [name for name in previous_weights if name.startswith(prefix)]
    return {
        name.removeprefix(prefix) if name.removeprefix(prefix) in own else name: previous_weights[name]
        for name in names
    }
