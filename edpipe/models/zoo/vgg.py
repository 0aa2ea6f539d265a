"""VGG for small images: one linear layer behind the convolutions (as in RepDistiller, whose weight names it has)."""

from torch import nn

from edpipe.models.zoo.layers import GlobalPool, Maps, NewMaps, Successive, classifier

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the five blocks (Simonyan and Zisserman 2015, table 1)."""
NUM_CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""In each block, by depth; the depth counts three linear layers, of which one is left."""
LEAST_SIDE = 4
"""Maps of so many pixels are not pooled any more before the last block."""


class LatePool(nn.Module):
    """Halves maps that are larger than `LEAST_SIDE`: those of 64×64 images, not those of 32×32 (as in RepDistiller)."""

    def forward(self, features: Maps) -> NewMaps:
        """The largest of each four pixels, or the maps as they are."""
        return nn.functional.max_pool2d(features, 2) if features.shape[-1] > LEAST_SIDE else features


class CifarVgg(Successive):
    """3×3 convolutions with batch normalisation in five blocks, and pooling by maxima between them."""

    def __init__(self, depth: int, num_classes: int, channels: int) -> None:
        super().__init__()
        pools = (nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(2), LatePool(), GlobalPool())
        before = channels
        for number, (width, convolutions) in enumerate(zip(WIDTHS, NUM_CONVOLUTIONS[depth], strict=True)):
            self.add_module(f"block{number}", _block(before, width, convolutions))
            self.add_module(f"pool{number}", pools[number])
            before = width
        self.draw_convolutions()
        self.classifier = classifier(before, num_classes)


def _block(in_channels: int, channels: int, num_convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (in_channels, *(num_convolutions - 1) * [channels]):
        layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)
