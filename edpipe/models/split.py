"""Any network as a chain: body blocks one after the other, then a head.

A network is cut where the size of its feature maps falls. That the chain really is the network is not assumed but tried
on a copy with noise added to all its weights, so that layers which start at zero hide nothing.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise

import torch
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.layers import GlobalPool
from edpipe.models.zoo import evaluating, first_convolution, model_name, one_line, probe_images

PROBE_SIZES = (128, 224)
"""Image sides to try: 128 leaves more than one pixel after six halvings; some networks take 224 only."""
WEIGHT_NOISE = 0.02

GLUES: tuple[tuple[type[nn.Module], ...], ...] = ((), (nn.Flatten,), (GlobalPool,), (nn.ReLU, GlobalPool))
"""What networks do by functions, not modules, before their last child; the first that fits is taken."""


@dataclass(frozen=True)
class Unit:
    """A module and its name inside its network; glue without weights has no name."""

    path: str
    module: nn.Module


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

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers under the network's own names; the tensors themselves, not copies."""
        return {
            f"{unit.path}.{name}" if unit.path else name: value
            for unit in self.units
            for name, value in unit.module.state_dict().items()
        }


def split(network: nn.Module, num_blocks: int) -> tuple[list[Chain], Chain]:
    """Body blocks and head that, one after the other, are the network; they share its modules, which stay as they are.

    The network's n feature stages are dealt out evenly: block i has stages i·n//num_blocks up to (i+1)·n//num_blocks.
    A single block is the whole network, with an empty head.

    Raises:
        NetworkError: the network is no chain of its modules, or has fewer feature stages than blocks are asked for.
        ValueError: num_blocks < 1.
    """
    if num_blocks < 1:
        raise ValueError(f"num_blocks must be >= 1, got {num_blocks}")
    if num_blocks == 1:
        return [Chain([Unit("", network)])], Chain([])
    units, shapes = _as_chain(network)
    stages, head = _feature_stages(units, shapes)
    if len(stages) < num_blocks:
        raise NetworkError(
            f"model {model_name(network)!r}: has {len(stages)} feature stages (sample, channel, height, width) "
            f"but {num_blocks} levels are asked for; use a partition of fewer subsets or another model"
        )
    bounds = [i * len(stages) // num_blocks for i in range(num_blocks + 1)]
    return [Chain(list(chain.from_iterable(stages[start:stop]))) for start, stop in pairwise(bounds)], Chain(head)


def count_feature_stages(network: nn.Module) -> int:
    """Into how many body blocks the network can be split.

    Raises:
        NetworkError: the network is no chain of its modules.
    """
    return len(stage_ends(network))


def stage_ends(network: nn.Module) -> list[nn.Module]:
    """The last module of each feature stage, which gives the stage's features; none where there is no such stage.

    Raises:
        NetworkError: the network is no chain of its modules.
    """
    return [units[-1].module for units in _feature_stages(*_as_chain(network))[0]]


def split_into_stages(network: nn.Module, purpose: str, remedy: str) -> tuple[list[Chain], Chain]:
    """One block for each feature stage, and the head, for a purpose that needs maps of at least two sizes.

    Args:
        network: its modules are shared, and stay as they are.
        purpose: what needs the maps, in the plural, for the error's text.
        remedy: what the user can do without, for the error's text.

    Raises:
        NetworkError: the network is no chain of its modules, or has fewer than two feature stages.
    """
    try:
        stages, head = _feature_stages(*_as_chain(network))
    except NetworkError as error:
        reason = str(error).partition("; teach it")[0]
        raise NetworkError(f"{reason}; without stages it has no {purpose}: {remedy}") from error
    if len(stages) < 2:
        raise NetworkError(
            f"model {model_name(network)!r}: has {len(stages)} feature stages (sample, channel, height, width), "
            f"{purpose} need at least 2; {remedy}"
        )
    return [Chain(stage) for stage in stages], Chain(head)


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


def _as_chain(network: nn.Module) -> tuple[list[Unit], list[torch.Size]]:
    """The network's modules in order, and the shape each gives for the same two images."""
    name = model_name(network)
    rehearsal = _noisy_copy(network)
    images, expected = _probe(rehearsal)
    reasons = []
    for glue in GLUES:
        try:
            shapes, logits = _run(_units(rehearsal, glue), images)
        except Exception as error:  # whatever a library's module raises for what it does not expect
            reasons.append(one_line(error))
            continue
        if not _are_equal(logits, expected):
            reasons.append("they give another output")
        elif (stray := _stray_weight(rehearsal, glue)) is not None:
            reasons.append(f"weight {stray} belongs to none of them")
        else:
            return _units(network, glue), shapes
    raise NetworkError(
        f"model {name!r}: cannot be split into blocks, because its modules run one after another are not the network "
        f"({reasons[0]}); teach it in one stage (methods kd, ce) or use another model"
    )


def _noisy_copy(network: nn.Module) -> nn.Module:
    rehearsal = copy.deepcopy(network).cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in rehearsal.parameters():
            parameter.add_(WEIGHT_NOISE * torch.randn(parameter.shape, generator=generator))
    return rehearsal


def _probe(rehearsal: nn.Module) -> tuple[Tensor, Tensor]:
    """Images that the network takes, and what it gives for them."""
    _, stem = first_convolution(rehearsal)
    reasons = []
    for side in PROBE_SIZES:
        images = probe_images(rehearsal, stem.in_channels, side)
        try:
            with evaluating(rehearsal):
                logits = rehearsal(images)
        except Exception as error:  # whatever a library's network raises for images it cannot take
            reasons.append(one_line(error))
            continue
        if isinstance(logits, Tensor) and bool(logits.isfinite().all()):
            return images, logits
        reasons.append("its output is not one tensor of finite numbers")
    raise NetworkError(
        f"model {model_name(rehearsal)!r}: cannot be split into blocks: {reasons[-1]}; "
        f"teach it in one stage (methods kd, ce) or use another model"
    )


def _units(network: nn.Module, glue: Sequence[type[nn.Module]]) -> list[Unit]:
    """Top-level modules in order, plain sequences taken apart; the glue comes before the last top-level module."""
    children = list(network.named_children())
    return [
        *(unit for path, child in children[:-1] for unit in _expand(path, child)),
        *(Unit("", kind()) for kind in glue),
        *(unit for path, child in children[-1:] for unit in _expand(path, child)),
    ]


def _expand(path: str, module: nn.Module) -> Iterator[Unit]:
    if type(module).forward is not nn.Sequential.forward:
        yield Unit(path, module)
        return
    for name, child in module.named_children():
        yield from _expand(f"{path}.{name}", child)


def _run(units: Sequence[Unit], images: Tensor) -> tuple[list[torch.Size], Tensor]:
    shapes, features = [], images
    with torch.no_grad():
        for unit in units:
            features = unit.module(features)
            shapes.append(features.shape)
    return shapes, features


def _are_equal(logits: Tensor, expected: Tensor) -> bool:
    """Equal but for the order in which a kernel adds."""
    if logits.shape != expected.shape:
        return False
    return torch.allclose(logits, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def _stray_weight(network: nn.Module, glue: Sequence[type[nn.Module]]) -> str | None:
    strays = network.state_dict().keys() - Chain(_units(network, glue)).weights().keys()
    return min(strays, default=None)


def _feature_stages(units: list[Unit], shapes: list[torch.Size]) -> tuple[list[list[Unit]], list[Unit]]:
    """Runs of modules whose feature maps have the same size, and what follows the last feature map."""
    num_body = _num_body_units(shapes)
    sized = zip(units[:num_body], shapes[:num_body], strict=True)
    runs = [[unit for unit, _ in run] for _, run in groupby(sized, key=lambda pair: pair[1][2])]
    return _with_stem(_without_weightless(runs)), units[num_body:]


def _num_body_units(shapes: Sequence[torch.Size]) -> int:
    """How many modules give square maps that are more than one pixel and do not grow."""
    side = None
    for position, shape in enumerate(shapes):
        is_map = len(shape) == 4 and shape[2] == shape[3] > 1
        if not is_map or (side is not None and shape[2] > side):
            return position
        side = shape[2]
    return len(shapes)


def _with_stem(runs: list[list[Unit]]) -> list[list[Unit]]:
    """A first run of plain layers, ahead of composite blocks (a residual network's stem), joined to the second run."""
    has_composite = [any(map(_is_composite, run)) for run in runs]
    if any(has_composite) and not has_composite[0]:
        return [runs[0] + runs[1], *runs[2:]]
    return runs


def _is_composite(unit: Unit) -> bool:
    return sum(isinstance(module, nn.Conv2d | nn.Linear) for module in unit.module.modules()) >= 2


def _without_weightless(runs: list[list[Unit]]) -> list[list[Unit]]:
    """Runs without parameters, such as a final pooling, joined to the run before them."""
    stages: list[list[Unit]] = []
    for run in runs:
        has_weights = any(True for unit in run for _ in unit.module.parameters())
        if stages and not has_weights:
            stages[-1] = stages[-1] + run
        else:
            stages.append(run)
    return stages
