"""What a network is like: its name, its outputs, and the random images that it is tried with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import NetworkError

MODEL_ATTRIBUTE = "edpipe_model"
"""Where a network keeps the name it was built from, for error messages."""


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """Path and module of the convolution that sees the images.

    Raises:
        NetworkError: the network has no convolution.
    """
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return path, module
    raise NetworkError(f"model {model_name(network)!r}: has no convolution; use a convolutional network")


def model_name(network: nn.Module) -> str:
    """The name a network was built from, or its class for one that `build_network` did not make."""
    return getattr(network, MODEL_ATTRIBUTE, type(network).__name__)


def count_outputs(network: nn.Module, channels: int, image_size: int) -> int:
    """How many logits the network gives for square images of this size; leaves it as it was.

    Raises:
        NetworkError: it cannot take such images, or does not give one row of logits for each.
    """
    shape = f"{channels}×{image_size}×{image_size}"
    try:
        with evaluating(network):
            logits = network(probe_images(network, channels, image_size))
    except Exception as error:  # whatever a library's network raises for images it cannot take
        raise NetworkError(
            f"model {model_name(network)!r}: cannot take images of {shape}: {one_line(error)}; "
            f"change image_size or the model"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise NetworkError(
            f"model {model_name(network)!r}: does not give one row of logits per image; use a classifier"
        )
    return logits.shape[1]


def probe_images(network: nn.Module, channels: int, image_size: int) -> Float[Tensor, "sample channel height width"]:
    """Two images of noise, always the same, where the network's weights are."""
    weight = next(network.parameters())
    noise = torch.randn((2, channels, image_size, image_size), generator=torch.Generator().manual_seed(0))
    return noise.to(weight.device, weight.dtype)


def one_line(error: Exception) -> str:
    """Type and first line of an error from a library."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Inside, torch's CPU generator starts from this seed; afterwards it goes on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode without gradients; afterwards every module is in its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, is_training in modes:
            module.training = is_training
