"""Pixels of views: what `edpipe.views.spec` decided is done to uint8 images, on any device."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from edpipe.views.axes import Boxes, Flips, Offsets
from edpipe.views.mixing import MIX_PART_BITS, MIX_PARTS


def apply_pad_crop(
    images: UInt8[Tensor, "sample channel height width"], dy: Offsets, dx: Offsets, flip: Flips, padding: int
) -> UInt8[Tensor, "sample channel height width"]:
    """Each image padded with zeros, cropped back to its size at (dy, dx) and mirrored if asked; on the images' device.

    Raises:
        ValueError: an offset outside [0, 2 × padding].
    """
    _check_offsets(dy, dx, padding)
    if len(images) == 0:
        return images
    if images.device.type == "cpu":
        return torch.from_numpy(_copy_rows(images.numpy(), dy, dx, flip, padding))
    down, across, mirrored = (torch.from_numpy(np.ascontiguousarray(each)).to(images.device) for each in (dy, dx, flip))
    return gather_pad_crop(images, down, across, mirrored, padding)


def _copy_rows(
    images: UInt8[np.ndarray, "sample channel height width"], dy: Offsets, dx: Offsets, flip: Flips, padding: int
) -> UInt8[np.ndarray, "sample channel height width"]:
    """A row of a crop is a run of bytes of the padded image: copied whole, 2 to 4 times as fast as pixel by pixel."""
    num_samples, channels, height, width = images.shape
    if flip.any():
        # A crop of the mirrored image, at the mirrored offset, is the mirrored crop.
        images = images.copy()
        images[flip] = torch.from_numpy(images[flip]).flip(-1).numpy()
        dx = np.where(flip, 2 * padding - dx, dx)
    padded = F.pad(torch.from_numpy(images), (padding,) * 4).contiguous().numpy().reshape(-1)
    padded_width = width + 2 * padding
    planes = np.arange(num_samples * channels).reshape(num_samples, channels, 1) * (height + 2 * padding) * padded_width
    starts = (dy[:, None] + np.arange(height)) * padded_width + dx[:, None]
    # One item for each run of `width` bytes, whichever byte it starts at.
    runs = as_strided(padded[:width].view(f"V{width}"), (len(padded) - width + 1,), (1,), writeable=False)
    return runs[planes + starts[:, None, :]].view(np.uint8).reshape(num_samples, channels, height, width)


def gather_pad_crop(
    images: UInt8[Tensor, "sample channel height width"],
    dy: Int64[Tensor, " sample"],
    dx: Int64[Tensor, " sample"],
    flip: Bool[Tensor, " sample"],
    padding: int,
) -> UInt8[Tensor, "sample channel height width"]:
    """The same as `apply_pad_crop`, from parameters on the images' device; offsets are taken on trust.

    A check of them would make the host wait for the device.
    """
    num_samples, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4).flatten(2)
    # One flat position for each pixel of a crop, shared by the channels; a mirrored crop reads its columns backwards.
    columns = torch.arange(width, device=images.device)
    across = dx[:, None] + torch.where(flip[:, None], columns.flip(0), columns)
    down = (dy[:, None] + torch.arange(height, device=images.device)) * (width + 2 * padding)
    positions = (down[:, :, None] + across[:, None, :]).reshape(num_samples, 1, height * width)
    return padded.gather(2, positions.expand(-1, channels, -1)).reshape(images.shape)


def apply_mixup(
    own: UInt8[Tensor, "sample channel height width"],
    partner: UInt8[Tensor, "sample channel height width"],
    own_parts: Int64[np.ndarray, " sample"],
) -> UInt8[Tensor, "sample channel height width"]:
    """Own and partner's pixels, averaged with weights own_parts / 256 and the rest; rounded half up, in integers.

    Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, section 2.

    Raises:
        ValueError: a weight outside [0, 256].
    """
    if len(own_parts) and not 0 <= own_parts.min() <= own_parts.max() <= MIX_PARTS:
        raise ValueError(f"own_parts must be in [0, {MIX_PARTS}], got {own_parts.min()} to {own_parts.max()}")
    parts = torch.from_numpy(own_parts.astype(np.int32)).to(own.device).reshape(-1, 1, 1, 1)
    # 256 × partner + parts × (own - partner) is the weighted sum; shifting rounds down, also below 0.
    change = own.to(torch.int32).sub_(partner).mul_(parts).add_(MIX_PARTS // 2).bitwise_right_shift_(MIX_PART_BITS)
    return change.add_(partner).to(torch.uint8)


def apply_cutmix(
    own: UInt8[Tensor, "sample channel height width"],
    partner: UInt8[Tensor, "sample channel height width"],
    boxes: Boxes,
) -> UInt8[Tensor, "sample channel height width"]:
    """Own pixels, but the partner's inside the box (top, left, height, width), at the same place.

    Yun et al., "CutMix", ICCV 2019, section 3.1, equation 1.
    """
    top, left, height, width = torch.from_numpy(boxes).to(own.device).T[:, :, None]
    rows, columns = (torch.arange(size, device=own.device) for size in own.shape[2:])
    inside_rows = (top <= rows) & (rows < top + height)
    inside_columns = (left <= columns) & (columns < left + width)
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(inside, partner, own)


def apply_resized_crop(
    image: UInt8[Tensor, "channel height width"], box: Int64[np.ndarray, "4"], flip: bool, image_size: int
) -> UInt8[Tensor, "channel {image_size} {image_size}"]:
    """The box (top, left, height, width) of an image, resized to a square, mirrored if asked.

    Bilinear with antialiasing, by torch's arithmetic for bytes: whole numbers, rounded once in each direction, so that
    all processors agree; about 1 away from exact arithmetic at most. It is six times as fast as float32 on an image
    whose channels lie together in memory (docs/benchmarks.md); the pixels do not depend on that.

    Raises:
        ValueError: the box is empty or not inside the image.
    """
    top, left, height, width = box.tolist()
    if min(top, left) < 0 or min(height, width) < 1 or top + height > image.shape[1] or left + width > image.shape[2]:
        raise ValueError(f"box {box.tolist()} is not inside an image of {image.shape[1]} by {image.shape[2]} pixels")
    crop = image[None, :, top : top + height, left : left + width]
    pixels = F.interpolate(crop, size=(image_size, image_size), mode="bilinear", antialias=True)[0]
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
    num_samples, channels, height, width = images.shape
    if channels == 1:  # planes and pixels with their channels together are the same
        return images.to(torch.float32).mul_(1 / (255 * std[0])).add_(-mean[0] / std[0])
    # A row of pixels with its channels together is one long run of numbers: twice as fast as planes reordered later.
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device).repeat(width)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device).repeat(width)
    rows = images.permute(0, 2, 3, 1).reshape(num_samples * height, width * channels)
    pixels = rows.to(torch.float32).mul_(scale).add_(shift).view(num_samples, height, width, channels)
    return pixels.permute(0, 3, 1, 2)


def _check_offsets(dy: Offsets, dx: Offsets, padding: int) -> None:
    for name, offsets in (("dy", dy), ("dx", dx)):
        if len(offsets) and not 0 <= offsets.min() <= offsets.max() <= 2 * padding:
            raise ValueError(f"{name} must be in [0, {2 * padding}], got {offsets.min()} to {offsets.max()}")
