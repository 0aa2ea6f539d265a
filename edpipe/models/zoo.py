"""Networks by name: the CIFAR family of residual networks, and any classifier of timm or torchvision."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.names import WIDE_CIFAR_BLOCKS, check_model_name, cifar_form, split_name

MODEL_ATTRIBUTE = "edpipe_model"
"""Where a network keeps the name it was built from, for error messages."""
WIDE_CIFAR_WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages of ImageNet's residual networks; their stem has as many as the first stage."""


class GlobalPool(nn.Module):
    """Mean over height and width; unlike adaptive pooling its gradient is deterministic on a GPU."""

    def forward(self, features: Float[Tensor, "sample channel height width"]) -> Float[Tensor, "sample channel"]:
        """One number for each channel."""
        return features.mean(dim=(2, 3))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, projected where the shape changes (He et al. 2015, figure 2, option B)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        is_same_shape = stride == 1 and in_channels == channels
        self.downsample = None if is_same_shape else _projection(in_channels, channels, stride)

    def forward(
        self, features: Float[Tensor, "sample channel height width"]
    ) -> Float[Tensor, "sample channel_out height_out width_out"]:
        """Features of the block."""
        shortcut = features if self.downsample is None else self.downsample(features)
        hidden = self.relu(self.bn1(self.conv1(features)))
        return self.relu(self.bn2(self.conv2(hidden)) + shortcut)


class CifarResNet(nn.Module):
    """Residual network for small images (He et al. 2015, section 4.2): its stem keeps the image's size.

    Its children, run one after the other, are the network. The weight names are those of RepDistiller for three stages
    and of torchvision for four.

    Args:
        stem: channels of the stem.
        widths: channels of each stage; every stage but the first halves height and width.
        num_blocks: of each stage.
        num_classes: outputs.
        channels: of the images.
    """

    def __init__(
        self, stem: int, widths: Sequence[int], num_blocks: Sequence[int], num_classes: int, channels: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        stages = zip((stem, *widths), widths, num_blocks, strict=False)
        for number, (before, width, blocks) in enumerate(stages, start=1):
            self.add_module(f"layer{number}", _stage(before, width, blocks, stride=1 if number == 1 else 2))
        self.pool = GlobalPool()
        self.fc = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "sample channel height width"]) -> Float[Tensor, "sample class"]:
        """Logits of a batch."""
        features: Tensor = images
        for child in self.children():
            features = child(features)
        return features


def stage_widths(width_factor: int) -> tuple[int, int, int, int]:
    """Channels of the stem and of the three stages.

    RepDistiller's resnet8x4 and resnet32x4 keep a stem of 32 channels; so does every x4 network here, for their
    weights to fit.

    >>> stage_widths(1), stage_widths(2), stage_widths(4)
    ((16, 16, 32, 64), (32, 32, 64, 128), (32, 64, 128, 256))
    """
    stem = 32 if width_factor == 4 else 16 * width_factor
    return stem, 16 * width_factor, 32 * width_factor, 64 * width_factor


def _projection(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


def _stage(in_channels: int, channels: int, num_blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(num_blocks - 1)))


def build_network(model: str, num_classes: int, channels: int, seed: int) -> nn.Module:
    """A network with freshly drawn weights, on the CPU, in training mode; same seed, same bytes.

    Raises:
        NetworkError: the model is unknown, or its library cannot build it.
    """
    check_model_name(model)
    with drawing(seed):
        network = _build(model, num_classes, channels)
    setattr(network, MODEL_ATTRIBUTE, model)
    return network


def _build(model: str, num_classes: int, channels: int) -> nn.Module:
    library, name = split_name(model)
    if model in WIDE_CIFAR_BLOCKS:
        return CifarResNet(WIDE_CIFAR_WIDTHS[0], WIDE_CIFAR_WIDTHS, WIDE_CIFAR_BLOCKS[model], num_classes, channels)
    form = cifar_form(model)
    if form is not None:
        depth, width_factor = form
        stem, *widths = stage_widths(width_factor)
        return CifarResNet(stem, widths, 3 * [(depth - 2) // 6], num_classes, channels)
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=channels)
    from torchvision import models

    return with_channels(models.get_model(name, weights=None, num_classes=num_classes), channels)


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """The same network; where its first convolution takes another number of channels, it is drawn afresh for these."""
    _, stem = first_convolution(network)
    if stem.in_channels != channels:
        stem.weight = nn.Parameter(torch.empty(stem.out_channels, channels, *stem.kernel_size))
        stem.in_channels = channels
        stem.reset_parameters()
    return network


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
