"""Views made smaller for stages with small images: in whole numbers, so that all devices and batches give equal pixels.

Bilinear with antialiasing, as image libraries shrink: each new pixel is a mean of old ones whose weights fall linearly
from its centre to nothing. Weights are whole numbers that add up to 256 in each direction. Their products with bytes
stay below 2^24, where float32 is exact in any order of adding, so that matrix products of any device may be used.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

WEIGHT_SUM = 256


def resized(
    images: UInt8[Tensor, "sample channel height width"], side: int
) -> UInt8[Tensor, "sample channel {side} {side}"]:
    """Square images made smaller, to `side` pixels; the images themselves if they have that size.

    Rounded half up after each direction, down the columns first.

    Raises:
        ValueError: they are smaller than that, or no squares.
    """
    height, full = images.shape[2:]
    if height != full or side > full or side < 1:
        raise ValueError(f"images of {height} by {full} pixels cannot be made smaller to a square of {side}")
    if side == full:
        return images
    weights = _weights_on(full, side, images.device)
    down = _rounded(weights @ images.to(torch.float32))
    return _rounded(down @ weights.T).to(torch.uint8)


def resize_weights(full: int, side: int) -> Int64[np.ndarray, "side full"]:
    """How much each old pixel of a row counts for each new one, in parts of 256.

    >>> resize_weights(4, 2).tolist()
    [[110, 110, 36, 0], [0, 36, 110, 110]]
    """
    new, old = np.arange(side, dtype=np.int64)[:, None], np.arange(full, dtype=np.int64)[None]
    # A triangle of half width full/side around each new centre, times 2 · side · full: all in whole numbers.
    triangle = np.maximum(0, 2 * full - np.abs((2 * old + 1) * side - (2 * new + 1) * full))
    scaled = WEIGHT_SUM * triangle
    totals = triangle.sum(axis=1, keepdims=True)
    weights = scaled // totals
    # What rounding down left over goes to the largest remainders, to earlier pixels first.
    order = np.argsort(-(scaled % totals), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1, kind="stable")
    return weights + (ranks < WEIGHT_SUM - weights.sum(axis=1, keepdims=True))


@lru_cache(maxsize=16)
def _weights_on(full: int, side: int, device: torch.device) -> Float32[Tensor, "side full"]:
    return torch.from_numpy(resize_weights(full, side)).to(device, torch.float32)


def _rounded(sums: Float32[Tensor, "sample channel any_height any_width"]) -> Float32[Tensor, "..."]:
    return sums.mul_(1 / WEIGHT_SUM).add_(0.5).floor_()
