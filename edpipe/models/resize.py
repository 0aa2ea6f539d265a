"""Bilinear resizing: of features, with a gradient that is the same at every repeat; and of what a network is shown."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

INPUT_SIDE = "input_side"
"""Buffer of a network whose images are resized: their side. Weights for another size have another digest."""


def resize_bilinear(
    features: Float[Tensor, "sample channel height width"], height: int, width: int
) -> Float[Tensor, "sample channel height_out width_out"]:
    """Feature maps of another size; corner pixels stay where they are (torch's align_corners=True)."""
    return _Bilinear.apply(features, height, width)  # type: ignore[return-value]


def resize_images(network: nn.Module, side: int | None) -> nn.Module:
    """The same network, which from now on resizes the images it is given to this side, pixels; None: as they are.

    Bilinear, and where images shrink over all the pixels that one replaces. No draw, no weight: what it says of a view
    is a function of the view, the side and its weights.
    """
    if side is None:
        return network

    def resize(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        images, *rest = arguments
        resized = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        return resized, *rest

    network.register_buffer(INPUT_SIDE, torch.tensor(side))
    network.register_forward_pre_hook(resize)
    return network


class _Bilinear(torch.autograd.Function):
    """Torch's resizing with a gradient of its own.

    On a GPU torch adds up that gradient in any order, so two equal runs would part. Resizing is linear in rows and in
    columns: the gradient is a product with two fixed matrices. They are used for the gradient only, since forward they
    would cost multiplications that no count of TESKD has.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, height: int, width: int) -> Tensor:
        ctx.height, ctx.width = features.shape[-2:]
        return F.interpolate(features, size=(height, width), mode="bilinear", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        rows = interpolation_matrix(ctx.height, gradient.shape[-2], gradient)
        columns = interpolation_matrix(ctx.width, gradient.shape[-1], gradient)
        return rows.T @ gradient @ columns, None, None


def interpolation_matrix(size: int, new_size: int, like: Tensor) -> Float[Tensor, "new old"]:
    """Share of each old pixel in each new one along one side; of like's dtype and device.

    >>> interpolation_matrix(2, 5, torch.empty(0)).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.0, 1.0]]
    """
    precise = torch.promote_types(like.dtype, torch.float32)
    new, old = (torch.arange(n, dtype=precise, device=like.device) for n in (new_size, size))
    # Where each new pixel lies among the old: the first and the last of both lie on each other.
    places = new * ((size - 1) / max(new_size - 1, 1))
    return (1 - (places[:, None] - old).abs()).clamp(min=0).to(like.dtype)
