"""Residual networks for small images: three stages of plain blocks, and ImageNet's with a stem for 32×32 pixels."""

from collections.abc import Sequence

from torch import nn

from edpipe.models.zoo.layers import GlobalPool, Maps, NewMaps, Successive

IMAGENET_WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages of ImageNet's residual networks; their stem has as many as the first stage."""
EXPANSION = 4
"""A bottleneck gives so many times the channels it is named for (He et al. 2015, figure 5)."""


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

    def forward(self, features: Maps) -> NewMaps:
        """Features of the block."""
        shortcut = features if self.downsample is None else self.downsample(features)
        hidden = self.relu(self.bn1(self.conv1(features)))
        return self.relu(self.bn2(self.conv2(hidden)) + shortcut)

    def zero_init_last(self) -> None:
        """The last normalisation's scale starts at 0: the block gives its shortcut (Goyal et al. 2017, section 5.1)."""
        nn.init.zeros_(self.bn2.weight)


class Bottleneck(nn.Module):
    """Convolutions of 1×1, 3×3 and 1×1 and a shortcut, projected where the shape changes (He et al. 2015, figure 5)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, EXPANSION * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(EXPANSION * channels)
        self.relu = nn.ReLU()
        is_same_shape = stride == 1 and in_channels == EXPANSION * channels
        self.shortcut = nn.Identity() if is_same_shape else _projection(in_channels, EXPANSION * channels, stride)

    def forward(self, features: Maps) -> NewMaps:
        """Features of the block."""
        hidden = self.relu(self.bn1(self.conv1(features)))
        hidden = self.relu(self.bn2(self.conv2(hidden)))
        return self.relu(self.bn3(self.conv3(hidden)) + self.shortcut(features))

    def zero_init_last(self) -> None:
        """The last normalisation's scale starts at 0: the block gives its shortcut (Goyal et al. 2017, section 5.1)."""
        nn.init.zeros_(self.bn3.weight)


class CifarResNet(Successive):
    """Residual network for small images (He et al. 2015, section 4.2): its stem keeps the image's size.

    The weight names are those of RepDistiller for three stages and of torchvision for four.

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
            first = BasicBlock(before, width, _stride(number))
            rest = (BasicBlock(width, width, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
        self.pool = GlobalPool()
        self.fc = nn.Linear(widths[-1], num_classes)
        self.draw_convolutions()


class CifarBottleneckResNet(Successive):
    """ImageNet's deeper residual networks with a stem that keeps the image's size; weight names of RepDistiller."""

    def __init__(self, num_blocks: Sequence[int], num_classes: int, channels: int) -> None:
        super().__init__()
        stem = before = IMAGENET_WIDTHS[0]
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        for number, (width, blocks) in enumerate(zip(IMAGENET_WIDTHS, num_blocks, strict=True), start=1):
            first = Bottleneck(before, width, _stride(number))
            before = EXPANSION * width
            rest = (Bottleneck(before, width, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
        self.pool = GlobalPool()
        self.linear = nn.Linear(before, num_classes)
        self.draw_convolutions()


def stage_widths(width_factor: int) -> tuple[int, int, int, int]:
    """Channels of the stem and of the three stages.

    RepDistiller's resnet8x4 and resnet32x4 keep a stem of 32 channels; so does every x4 network here, for their
    weights to fit.

    >>> stage_widths(1), stage_widths(2), stage_widths(4)
    ((16, 16, 32, 64), (32, 32, 64, 128), (32, 64, 128, 256))
    """
    stem = 32 if width_factor == 4 else 16 * width_factor
    return stem, 16 * width_factor, 32 * width_factor, 64 * width_factor


def build_resnet(depth: int, width_factor: int, num_classes: int, channels: int) -> nn.Module:
    """resnet<depth>x<width_factor>: (depth - 2) / 6 blocks in each of three stages."""
    stem, *widths = stage_widths(width_factor)
    return CifarResNet(stem, widths, 3 * [(depth - 2) // 6], num_classes, channels)


def build_cifar_resnet(depth: int, num_classes: int, channels: int) -> nn.Module:
    """cifar_resnet<depth>: blocks in each stage as in He et al. 2015, table 1."""
    if depth == 50:
        return CifarBottleneckResNet((3, 4, 6, 3), num_classes, channels)
    num_blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth]
    return CifarResNet(IMAGENET_WIDTHS[0], IMAGENET_WIDTHS, num_blocks, num_classes, channels)


def _stride(number: int) -> int:
    return 1 if number == 1 else 2


def _projection(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
