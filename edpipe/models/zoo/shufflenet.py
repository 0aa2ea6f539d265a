"""ShuffleNet and ShuffleNetV2 for small images: their stem keeps the image's size; weight names of RepDistiller."""

import torch
from torch import nn

from edpipe.models.zoo.layers import ChannelShuffle, GlobalPool, Maps, NewMaps, Successive

STEM_CHANNELS = 24
NUM_BLOCKS = (4, 8, 4)
"""In each of the three stages, of both networks (Zhang et al. 2018, table 1; Ma et al. 2018, table 5)."""
V1_GROUPS = 3
V1_WIDTHS = (240, 480, 960)
"""Channels of the stages for three groups (Zhang et al. 2018, table 1)."""
V2_WIDTHS = (116, 232, 464)
V2_LAST_CHANNELS = 1024
"""Those of the 1× network (Ma et al. 2018, table 5)."""


class GroupedBottleneck(nn.Module):
    """1×1 convolution of groups, shuffle, 3×3 on each channel alone, 1×1 of groups, and a shortcut.

    The shortcut is added, or at stride 2 averaged down and laid beside (Zhang et al. 2018, figure 2), after the new
    channels.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        own = channels - in_channels if stride == 2 else channels
        hidden = own // 4
        # The few channels of the stem are not grouped (Zhang et al. 2018, section 3.2).
        groups = 1 if in_channels == STEM_CHANNELS else V1_GROUPS
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.shuffle1 = ChannelShuffle(groups)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, own, 1, groups=V1_GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(own)
        self.relu = nn.ReLU()
        self.shortcut = nn.AvgPool2d(3, stride, padding=1) if stride == 2 else nn.Identity()

    def forward(self, features: Maps) -> NewMaps:
        """Features of the block."""
        hidden = self.shuffle1(self.relu(self.bn1(self.conv1(features))))
        hidden = self.relu(self.bn2(self.conv2(hidden)))
        own, shortcut = self.bn3(self.conv3(hidden)), self.shortcut(features)
        return self.relu(torch.cat([own, shortcut], 1) if self.stride == 2 else own + shortcut)


class ShuffleBlock(nn.Module):
    """Half of the channels go through 1×1, 3×3 and 1×1 convolutions, the others stay (Ma et al. 2018, figure 3 c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = _pointwise(half, half), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = _depthwise(half, 1), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = _pointwise(half, half), nn.BatchNorm2d(half)
        self.relu, self.shuffle = nn.ReLU(), ChannelShuffle(2)

    def forward(self, features: Maps) -> NewMaps:
        """Features of the block."""
        kept, hidden = features.chunk(2, dim=1)
        hidden = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(hidden)))))
        return self.shuffle(torch.cat([kept, self.relu(self.bn3(self.conv3(hidden)))], 1))


class ShuffleDownBlock(nn.Module):
    """Two branches of half the new channels each, which halve the maps (Ma et al. 2018, figure 3 d)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = _depthwise(in_channels, 2), nn.BatchNorm2d(in_channels)
        self.conv2, self.bn2 = _pointwise(in_channels, half), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = _pointwise(in_channels, half), nn.BatchNorm2d(half)
        self.conv4, self.bn4 = _depthwise(half, 2), nn.BatchNorm2d(half)
        self.conv5, self.bn5 = _pointwise(half, half), nn.BatchNorm2d(half)
        self.relu, self.shuffle = nn.ReLU(), ChannelShuffle(2)

    def forward(self, features: Maps) -> NewMaps:
        """Features of the block."""
        short = self.relu(self.bn2(self.conv2(self.bn1(self.conv1(features)))))
        long = self.bn4(self.conv4(self.relu(self.bn3(self.conv3(features)))))
        return self.shuffle(torch.cat([short, self.relu(self.bn5(self.conv5(long)))], 1))


class CifarShuffleNet(Successive):
    """ShuffleNet of three groups, 1× (Zhang et al. 2018), whose stem is a 1×1 convolution without stride."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        _add_stem(self, channels)
        before = STEM_CHANNELS
        for number, (width, num_blocks) in enumerate(zip(V1_WIDTHS, NUM_BLOCKS, strict=True), start=1):
            rest = (GroupedBottleneck(width, width, 1) for _ in range(num_blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(GroupedBottleneck(before, width, 2), *rest))
            before = width
        self.pool = GlobalPool()
        self.linear = nn.Linear(before, num_classes)


class CifarShuffleNetV2(Successive):
    """ShuffleNetV2 1× (Ma et al. 2018), whose stem is a 1×1 convolution without stride."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        _add_stem(self, channels)
        before = STEM_CHANNELS
        for number, (width, num_blocks) in enumerate(zip(V2_WIDTHS, NUM_BLOCKS, strict=True), start=1):
            rest = (ShuffleBlock(width) for _ in range(num_blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(ShuffleDownBlock(before, width), *rest))
            before = width
        self.conv2 = _pointwise(before, V2_LAST_CHANNELS)
        self.bn2 = nn.BatchNorm2d(V2_LAST_CHANNELS)
        self.relu2 = nn.ReLU()
        self.pool = GlobalPool()
        self.linear = nn.Linear(V2_LAST_CHANNELS, num_classes)


def _add_stem(network: nn.Module, channels: int) -> None:
    network.conv1 = _pointwise(channels, STEM_CHANNELS)
    network.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
    network.relu1 = nn.ReLU()


def _pointwise(in_channels: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 1, bias=False)


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
