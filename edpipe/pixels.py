"""Pixels of views: what `edpipe.views` decided is done to uint8 images, on any device."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor


def apply_pad_crop(
    images: UInt8[Tensor, "sample channel height width"],
    dy: Int64[Tensor, " sample"],
    dx: Int64[Tensor, " sample"],
    flip: Bool[Tensor, " sample"],
    padding: int,
) -> UInt8[Tensor, "sample channel height width"]:
    """Each image padded with zeros, cropped back to its size at (dy, dx) and mirrored if asked; all on one device.

    Raises:
        ValueError: an offset outside [0, 2 × padding] (checked on the CPU only: a GPU would have to be waited for).
    """
    _check_offsets(dy, dx, padding)
    num_samples, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4).flatten(2)
    # One flat position for each pixel of a crop, shared by the channels; a mirrored crop reads its columns backwards.
    columns = torch.arange(width, device=images.device)
    columns = dx[:, None] + torch.where(flip[:, None], columns.flip(0), columns)
    row_starts = (dy[:, None] + torch.arange(height, device=images.device)) * (width + 2 * padding)
    positions = (row_starts[:, :, None] + columns[:, None, :]).reshape(num_samples, 1, height * width)
    return padded.gather(2, positions.expand(-1, channels, -1)).reshape(images.shape)


def apply_resized_crop(
    image: UInt8[Tensor, "channel height width"], box: tuple[int, int, int, int], flip: bool, image_size: int
) -> UInt8[Tensor, "channel {image_size} {image_size}"]:
    """The box (top, left, height, width) of an image, resized to a square, mirrored if asked.

    Bilinear with antialiasing, computed in float32 and rounded to whole values.

    Raises:
        ValueError: the box is empty or not inside the image.
    """
    top, left, height, width = box
    if min(top, left) < 0 or min(height, width) < 1 or top + height > image.shape[1] or left + width > image.shape[2]:
        raise ValueError(f"box {box} is not inside an image of {image.shape[1]} by {image.shape[2]} pixels")
    crop = image[None, :, top : top + height, left : left + width].to(torch.float32)
    resized = F.interpolate(crop, size=(image_size, image_size), mode="bilinear", antialias=True)
    pixels = resized[0].round_().clamp_(0, 255).to(torch.uint8)
    return pixels.flip(-1) if flip else pixels


def centre_square(
    image: UInt8[Tensor, "channel height width"], image_size: int
) -> UInt8[Tensor, "channel {image_size} {image_size}"]:
    """The largest square in the middle of an image, resized; what is shown where nothing is augmented."""
    height, width = image.shape[1:]
    side = min(height, width)
    return apply_resized_crop(image, ((height - side) // 2, (width - side) // 2, side, side), False, image_size)


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


def _check_offsets(dy: Int64[Tensor, " sample"], dx: Int64[Tensor, " sample"], padding: int) -> None:
    for name, offsets in (("dy", dy), ("dx", dx)):
        if offsets.is_cpu and len(offsets):
            low, high = (int(bound) for bound in offsets.aminmax())
            if not 0 <= low <= high <= 2 * padding:
                raise ValueError(f"{name} must be in [0, {2 * padding}], got {low} to {high}")
