"""Cuts any network into body blocks and a head, and proves that the chain gives the same output."""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, pairwise

import torch
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.probe import evaluating, first_convolution, model_name, one_line, probe_images
from edpipe.models.resize import INPUT_SIDE
from edpipe.models.splitting.chain import Chain, Tap, Unit
from edpipe.models.splitting.functional_ops import (
    Averaged,
    ChannelsFirst,
    ChannelsLast,
    are_equal,
)
from edpipe.models.splitting.trace import Heads, Route, route_of

PROBE_SIZES = (128, 224, 256)
"""Image sides to try: 128 leaves more than one pixel after six halvings; some networks take 224 or 256 only."""
WEIGHT_NOISE = 0.02


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
            f"but {num_blocks} blocks are asked for; use a partition of fewer subsets, fewer blocks in method.levels, "
            "or another model"
        )
    bounds = [i * len(stages) // num_blocks for i in range(num_blocks + 1)]
    return [Chain(list(chain.from_iterable(stages[start:stop]))) for start, stop in pairwise(bounds)], Chain(head)


def count_feature_stages(network: nn.Module) -> int:
    """Into how many body blocks the network can be split.

    Raises:
        NetworkError: the network is no chain of its modules.
    """
    return len(feature_stages(network))


def feature_stages(network: nn.Module) -> list[Chain]:
    """Each feature stage as a chain; none where there is no such stage.

    Raises:
        NetworkError: the network is no chain of its modules.
    """
    return [Chain(units) for units in _feature_stages(*_as_chain(network))[0]]


def stage_ends(network: nn.Module) -> list[Tap]:
    """Where the features of each feature stage can be read; none where there is no such stage.

    Raises:
        NetworkError: the network is no chain of its modules.
    """
    return [stage.tap for stage in feature_stages(network)]


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


def _as_chain(network: nn.Module) -> tuple[list[Unit], list[torch.Size]]:
    """The network's modules in order, and the shape each gives for the same two images."""
    rehearsal = _noisy_copy(network)
    images, expected = _probe(rehearsal)
    try:
        route = route_of(rehearsal, images)
        units = _units(rehearsal, route)
        _check_weights(rehearsal, units)
        shapes, logits = _run(units, images)
        if not are_equal(logits, expected):
            raise NetworkError("its modules one after another give another output")
    except Exception as error:  # whatever a library's module raises for what it does not expect
        reason = str(error) if isinstance(error, NetworkError) else one_line(error)
        raise NetworkError(
            f"model {model_name(network)!r}: cannot be split into blocks, because its modules run one after another "
            f"are not the network ({reason}); teach it in one stage (methods kd, ce) or use another model"
        ) from error
    return _units(network, route), shapes


def _noisy_copy(network: nn.Module) -> nn.Module:
    rehearsal = copy.deepcopy(network).cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in rehearsal.parameters():
            parameter.add_(WEIGHT_NOISE * torch.randn(parameter.shape, generator=generator))
    return rehearsal


def _probe(rehearsal: nn.Module) -> tuple[Tensor, Tensor]:
    """Images that the network takes, and what it gives for them."""
    reason = ""
    for channels, side in _sizes_to_try(rehearsal):
        images = probe_images(rehearsal, channels, side)
        try:
            with evaluating(rehearsal):
                logits = rehearsal.forward(images)  # a resizing of images comes before
        except Exception as error:  # whatever a library's network raises for images it cannot take
            reason = one_line(error)
            continue
        if isinstance(logits, Tensor) and bool(logits.isfinite().all()):
            return images, logits
        reason = "its output is not one tensor of finite numbers"
    raise NetworkError(
        f"model {model_name(rehearsal)!r}: cannot be split into blocks: {reason}; "
        f"teach it in one stage (methods kd, ce) or use another model"
    )


def _sizes_to_try(network: nn.Module) -> Iterator[tuple[int, int]]:
    """Channels and sides of images: those that suit most networks, then what timm says this network was made for."""
    first = first_convolution(network)[1].in_channels
    made_for = getattr(network, "default_cfg", {}).get("input_size", (3, PROBE_SIZES[0]))[-1]
    # Where pixels are laid into channels before the first convolution, it does not say what the images have.
    for channels in dict.fromkeys((3, 1, first)) if first > 4 else (first,):
        for side in dict.fromkeys((*PROBE_SIZES, made_for)):
            yield channels, side


def _units(network: nn.Module, route: Route) -> list[Unit]:
    """The modules of a route, plain sequences taken apart."""
    return [unit for link in route for unit in _units_of(network, link)]


def _units_of(network: nn.Module, link: str | nn.Module | Heads) -> Iterable[Unit]:
    if isinstance(link, str):
        return _expand(link, network.get_submodule(link))
    if isinstance(link, tuple):
        return [Unit("", Averaged({path: network.get_submodule(path) for path in link}))]
    return [Unit("", link)]


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


def _check_weights(network: nn.Module, units: Sequence[Unit]) -> None:
    """That every weight belongs to a module, and no module runs twice."""
    calls = Counter(unit.path for unit in units if unit.path)
    repeated = [path for path, count in calls.items() if count > 1]
    if repeated:
        raise NetworkError(f"{repeated[0]} runs {calls[repeated[0]]} times")
    strays = network.state_dict().keys() - Chain(units).weights().keys() - {INPUT_SIDE}
    if strays:
        raise NetworkError(f"weight {min(strays)} belongs to none of them")


def _feature_stages(units: list[Unit], shapes: list[torch.Size]) -> tuple[list[list[Unit]], list[Unit]]:
    """Runs of modules whose feature maps have the same size, and what follows the last feature map.

    All give maps with the channels second: where the network has them last, they are brought there and back.
    """
    sides = _body_sides(units, shapes)
    num_body = len(sides)
    runs = [[unit for unit, _ in run] for _, run in groupby(zip(units, sides, strict=False), key=lambda pair: pair[1])]
    stages, head = _with_stem(_without_weightless(runs)), units[num_body:]
    any_last = any(map(_has_channels_last, shapes))
    # A map with as many channels as pixels on a side does not say where they are; the network's other maps do.
    last_channels = {
        id(unit)
        for unit, shape in zip(units, shapes, strict=True)
        if _has_channels_last(shape) or (any_last and len(shape) == 4 and len(set(shape[1:])) == 1)
    }
    for place, stage in enumerate(stages):
        if id(stage[-1]) in last_channels:
            stage.append(Unit("", ChannelsFirst()))
            following = stages[place + 1] if place + 1 < len(stages) else head
            following.insert(0, Unit("", ChannelsLast()))
    return stages, head


def _has_channels_last(shape: torch.Size) -> bool:
    return len(shape) == 4 and shape[1] == shape[2] != shape[3]


def _side(shape: torch.Size) -> int | None:
    """Side of square maps; None where features are no such maps."""
    if len(shape) == 4 and (shape[2] == shape[3] or _has_channels_last(shape)):
        return shape[2]
    return None


def _body_sides(units: Sequence[Unit], shapes: Sequence[torch.Size]) -> list[int]:
    """Of the first modules, as long as they give square maps that are more than one pixel and do not grow.

    Padding does not count: a module without weights is given the side of the module before it, at most.
    """
    sides: list[int] = []
    for unit, shape in zip(units, shapes, strict=True):
        side, least = _side(shape), min(sides, default=None)
        if side is not None and least is not None and not _has_weights(unit):
            side = min(side, least)
        if side is None or side < 2 or (least is not None and side > least):
            break
        sides.append(side)
    return sides


def _has_weights(unit: Unit) -> bool:
    return any(True for _ in unit.module.parameters())


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
        if stages and not any(map(_has_weights, run)):
            stages[-1] = stages[-1] + run
        else:
            stages.append(run)
    return stages
