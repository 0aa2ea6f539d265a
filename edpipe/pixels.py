"""Pixels of views: what `edpipe.views` decided is done to uint8 images, on any device."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from edpipe.shapes import Flips, Offsets


def apply_pad_crop(
    images: UInt8[Tensor, "sample channel height width"], dy: Offsets, dx: Offsets, flip: Flips, padding: int
) -> UInt8[Tensor, "sample channel height width"]:
    """Each image padded with zeros, cropped back to its size at (dy, dx) and mirrored if asked; on the images' device.

    Raises:
        ValueError: an offset outside [0, 2 × padding].
    """
    _check_offsets(dy, dx, padding)
    num_samples, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4).flatten(2)
    # One flat position for each pixel of a crop, shared by the channels; a mirrored crop reads its columns backwards.
    columns = np.arange(width)
    columns = dx[:, None] + np.where(flip[:, None], columns[::-1], columns)
    row_starts = (dy[:, None] + np.arange(height)) * (width + 2 * padding)
    down, across = (torch.from_numpy(each).to(images.device) for each in (row_starts, columns))
    positions = (down[:, :, None] + across[:, None, :]).reshape(num_samples, 1, height * width)
    return padded.gather(2, positions.expand(-1, channels, -1)).reshape(images.shape)


def apply_resized_crop(
    image: UInt8[Tensor, "channel height width"], box: Int64[np.ndarray, "4"], flip: bool, image_size: int
) -> UInt8[Tensor, "channel {image_size} {image_size}"]:
    """The box (top, left, height, width) of an image, resized to a square, mirrored if asked.

    Bilinear with antialiasing, computed in float32 and rounded to whole values.

    Raises:
        ValueError: the box is empty or not inside the image.
    """
    top, left, height, width = box.tolist()
    if min(top, left) < 0 or min(height, width) < 1 or top + height > image.shape[1] or left + width > image.shape[2]:
        raise ValueError(f"box {box.tolist()} is not inside an image of {image.shape[1]} by {image.shape[2]} pixels")
    crop = image[None, :, top : top + height, left : left + width].to(torch.float32)
    resized = F.interpolate(crop, size=(image_size, image_size), mode="bilinear", antialias=True)
    pixels = resized[0].round_().clamp_(0, 255).to(torch.uint8)
    return pixels.flip(-1) if flip else pixels


def normalise(
    images: UInt8[Tensor, "sample channel height width"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[Tensor, "sample channel height width"]:
    """(images / 255 - mean) / std for each channel, in channels_last memory format.

    Raises:
        ValueError: mean or std are not one number for each channel, or a std is not positive.
    """
    if not len(mean) == len(std) == images.shape[1]:
        raise ValueError(f"{images.shape[1]} channels need as many means and stds, got {len(mean)} and {len(std)}")
    if not all(s > 0 for s in std):
        raise ValueError(f"std must be > 0 in every channel, got {std}")
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device).reshape(1, -1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device).reshape(1, -1, 1, 1)
    return images.to(torch.float32, memory_format=torch.channels_last).mul_(scale).add_(shift)


def _check_offsets(dy: Offsets, dx: Offsets, padding: int) -> None:
    for name, offsets in (("dy", dy), ("dx", dx)):
        if len(offsets) and not 0 <= offsets.min() <= offsets.max() <= 2 * padding:
            raise ValueError(f"{name} must be in [0, {2 * padding}], got {offsets.min()} to {offsets.max()}")
