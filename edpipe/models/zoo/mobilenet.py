"""MobileNetV2 for small images, of half width (as in RepDistiller, whose weight names it has)."""

from torch import nn

from edpipe.models.zoo.layers import GlobalPool, Maps, NewMaps, Successive, classifier

WIDTH_FACTOR = 0.5
EXPANSION = 6
STAGES = (
    (1, 16, 1, 1),
    (EXPANSION, 24, 2, 1),
    (EXPANSION, 32, 3, 2),
    (EXPANSION, 64, 4, 2),
    (EXPANSION, 96, 3, 1),
    (EXPANSION, 160, 3, 2),
    (EXPANSION, 320, 1, 1),
)
"""Expansion, channels, blocks and stride (Sandler et al. 2018, table 2), but the second row has stride 1, not 2."""
STEM_CHANNELS = 32
LAST_CHANNELS = 1280
"""Of the last convolution, at any width up to 1 (Sandler et al. 2018, section 4)."""


class InvertedResidual(nn.Module):
    """1×1 convolution to more channels, 3×3 on each channel alone, 1×1 back, and a shortcut where the shape stays.

    Unlike torchvision's it has the first convolution at an expansion of 1 too, and ReLU in place of ReLU6.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == channels
        self.conv = nn.Sequential(
            *_convolution(in_channels, hidden, 1),
            *_convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Maps) -> NewMaps:
        """Features of the block."""
        return features + self.conv(features) if self.has_shortcut else self.conv(features)


class CifarMobileNetV2(Successive):
    """A stem that halves the image, seven stages of inverted residuals, of which three halve the maps."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        before = int(WIDTH_FACTOR * STEM_CHANNELS)
        self.conv1 = _convolution(channels, before, 3, stride=2)
        self.blocks = nn.Sequential()
        for expansion, full_width, num_blocks, stride in STAGES:
            width = int(WIDTH_FACTOR * full_width)
            first = InvertedResidual(before, width, stride, expansion)
            rest = (InvertedResidual(width, width, 1, expansion) for _ in range(num_blocks - 1))
            self.blocks.append(nn.Sequential(first, *rest))
            before = width
        self.conv2 = _convolution(before, LAST_CHANNELS, 1)
        self.pool = GlobalPool()
        self.draw_convolutions()
        self.classifier = nn.Sequential(classifier(LAST_CHANNELS, num_classes))


def _convolution(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BN, ReLU."""
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
