"""What a network is like: parameters, multiply-accumulates, and the maps of its feature stages."""

from dataclasses import dataclass

from torch import nn

from edpipe.errors import NetworkError
from edpipe.models.macs import count_macs, count_parameters
from edpipe.models.probe import count_outputs
from edpipe.models.splitting.chain import map_shapes
from edpipe.models.splitting.split import feature_stages
from edpipe.models.zoo.build import build_network


@dataclass(frozen=True)
class Description:
    """A network for square images of one size."""

    model: str
    parameters: int
    macs: int | None
    """Multiply-accumulates of one image; None if it cannot take such images."""
    stages: tuple[tuple[int, int, int], ...]
    """Channels, height and width of each feature stage's maps; empty if unknown."""
    problem: str | None
    """Why it has no stages to grow by, or cannot take such images; None for a network that any method can use."""


def describe(model: str, num_classes: int, channels: int, image_size: int) -> Description:
    """Builds the network with fresh weights, on the CPU, and tries it.

    Raises:
        NetworkError: the model is unknown, or its library cannot build it.
    """
    network = build_network(model, num_classes, channels, seed=0)
    parameters = count_parameters(network)
    try:
        count_outputs(network, channels, image_size)
    except NetworkError as error:
        return Description(model, parameters, None, (), _reason(error))
    macs = count_macs(network, channels, image_size)
    try:
        stages = _stages(network, channels, image_size)
    except NetworkError as error:
        return Description(model, parameters, macs, (), _reason(error))
    problem = f"has {len(stages)} feature stages, a school needs 2" if len(stages) < 2 else None
    return Description(model, parameters, macs, stages, problem)


def _stages(network: nn.Module, channels: int, image_size: int) -> tuple[tuple[int, int, int], ...]:
    shapes = map_shapes(network, feature_stages(network), channels, image_size)
    return tuple((shape[1], shape[2], shape[3]) for shape in shapes)


def _reason(error: NetworkError) -> str:
    """What the error says, without the model's name and without what to do in an experiment."""
    return str(error).partition("': ")[2].partition("; teach it")[0].partition("; change image_size")[0]
