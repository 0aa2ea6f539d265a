"""What the networks of this zoo are made of: pooling, shuffling, and a form in which children run one after another."""

from jaxtyping import Float
from torch import Tensor, nn

Maps = Float[Tensor, "sample channel height width"]
NewMaps = Float[Tensor, "sample channel_out height_out width_out"]
"""What a block makes of maps."""


class GlobalPool(nn.Module):
    """Mean over height and width; unlike adaptive pooling its gradient is deterministic on a GPU."""

    def forward(self, features: Maps) -> Float[Tensor, "sample channel"]:
        """One number for each channel."""
        return features.mean(dim=(2, 3))


class ChannelShuffle(nn.Module):
    """Channels of `groups` equal groups dealt out in turn (Zhang et al. 2018, figure 1)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, features: Maps) -> Maps:
        """The same maps in another order: first the first of each group, then the second of each, and so on.

        >>> import torch
        >>> ChannelShuffle(2)(torch.arange(4.0).reshape(1, 4, 1, 1)).flatten().tolist()
        [0.0, 2.0, 1.0, 3.0]
        """
        return features.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class Successive(nn.Module):
    """A network whose children, run one after the other, are the network: it can be split wherever a child ends."""

    def forward(self, images: Maps) -> Float[Tensor, "sample class"]:
        """Logits of a batch."""
        features: Tensor = images
        for child in self.children():
            features = child(features)
        return features

    def draw_convolutions(self) -> None:
        """Draws all their weights afresh, with variance 2 / (kernel area · outputs); biases are zero.

        Source: He et al. 2015, "Delving deep into rectifiers", section 2.2, for the backward pass.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def classifier(num_features: int, num_classes: int) -> nn.Linear:
    """A linear layer that starts near zero: standard deviation 0.01, biases 0 (RepDistiller's VGG and MobileNetV2)."""
    linear = nn.Linear(num_features, num_classes)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
