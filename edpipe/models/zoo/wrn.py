"""Wide residual networks for small images (Zagoruyko and Komodakis 2016); weight names of RepDistiller."""

from torch import nn

from edpipe.models.zoo.layers import GlobalPool, Maps, NewMaps, Successive


class PreactivationBlock(nn.Module):
    """BN, ReLU, convolution, twice, and a shortcut, which is projected where the channels change.

    Where they change, the projection reads what the first BN and ReLU give; otherwise the shortcut is the input itself.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.convShortcut = None
        if in_channels != channels:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, features: Maps) -> NewMaps:
        """Features of the block."""
        active = self.relu(self.bn1(features))
        shortcut = features if self.convShortcut is None else self.convShortcut(active)
        return shortcut + self.conv2(self.relu(self.bn2(self.conv1(active))))


class WideStage(nn.Sequential):
    """Blocks of one width, under the name `layer` that published weights have them under."""

    def __init__(self, in_channels: int, channels: int, num_blocks: int, stride: int) -> None:
        super().__init__()
        first = PreactivationBlock(in_channels, channels, stride)
        rest = (PreactivationBlock(channels, channels, 1) for _ in range(num_blocks - 1))
        self.layer = nn.Sequential(first, *rest)


class WideResNet(Successive):
    """A stem of 16 channels and three stages of (depth - 4) / 6 blocks, 16, 32 and 64 times `width_factor` wide."""

    def __init__(self, depth: int, width_factor: int, num_classes: int, channels: int) -> None:
        super().__init__()
        before = 16
        self.conv1 = nn.Conv2d(channels, before, 3, padding=1, bias=False)
        for number in (1, 2, 3):
            width = 8 * 2**number * width_factor
            stage = WideStage(before, width, (depth - 4) // 6, stride=1 if number == 1 else 2)
            self.add_module(f"block{number}", stage)
            before = width
        self.bn1 = nn.BatchNorm2d(before)
        self.relu = nn.ReLU()
        self.pool = GlobalPool()
        self.fc = nn.Linear(before, num_classes)
        self.draw_convolutions()
        nn.init.zeros_(self.fc.bias)
