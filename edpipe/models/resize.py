"""Bilinear resizing whose gradient is the same at every repeat, on a GPU too."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def resize_bilinear(
    features: Float[Tensor, "sample channel height width"], height: int, width: int
) -> Float[Tensor, "sample channel height_out width_out"]:
    """Feature maps of another size, pixels lying at the middle of their cells (torch's align_corners=False)."""
    return _Bilinear.apply(features, height, width)  # type: ignore[return-value]


class _Bilinear(torch.autograd.Function):
    """Torch's resizing with a gradient of its own.

    On a GPU torch adds up that gradient in any order, so two equal runs would part. Resizing is linear in rows and in
    columns: the gradient is a product with two fixed matrices. They are used for the gradient only, since forward they
    would cost multiplications that no count of TESKD has.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, height: int, width: int) -> Tensor:
        ctx.height, ctx.width = features.shape[-2:]
        return F.interpolate(features, size=(height, width), mode="bilinear", align_corners=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        rows = interpolation_matrix(ctx.height, gradient.shape[-2], gradient)
        columns = interpolation_matrix(ctx.width, gradient.shape[-1], gradient)
        return rows.T @ gradient @ columns, None, None


def interpolation_matrix(size: int, new_size: int, like: Tensor) -> Float[Tensor, "new old"]:
    """Share of each old pixel in each new one along one side; of like's dtype and device.

    >>> interpolation_matrix(2, 4, torch.empty(0)).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    precise = torch.promote_types(like.dtype, torch.float32)
    new, old = (torch.arange(n, dtype=precise, device=like.device) for n in (new_size, size))
    # Where the middle of each new pixel lies among the old; beyond the outermost ones, these are continued.
    places = ((new + 0.5) * (size / new_size) - 0.5).clamp(0, size - 1)
    return (1 - (places[:, None] - old).abs()).clamp(min=0).to(like.dtype)
