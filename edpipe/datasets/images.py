"""Raw images of any mode and size become uint8 arrays of one channel count."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from edpipe.datasets.raw import RawImage
from edpipe.errors import DataError
from edpipe.storage.dataset_file import MODES, channels_first

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Files that count as images, in lower case."""
TRANSPARENT_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
UNBOUNDED_MODES = frozenset({"I", "F"})
FULL_COLOUR_QUALITY = 90
"""From this JPEG quality on, colour is stored as finely as brightness."""
BACKGROUND = "white"
"""What is seen where an image is transparent."""


def open_image(path: Path) -> Image.Image:
    """The decoded image of a file, upright as its EXIF orientation says; as stored if its EXIF data are damaged.

    Raises:
        DataError: the file is missing, truncated, or not an image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _upright(image)
    except Exception as error:  # Pillow's decoders raise almost any type on damaged bytes.
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image ({reason}); replace or remove this file") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Cameras and editors write broken EXIF data around sound pixels.
        return image.copy()


def to_square(image: RawImage, side: int, channels: int) -> UInt8[np.ndarray, "channel height width"]:
    """The image with its short side resized to `side` (bicubic), then the square in its centre, in pixels.

    An image that already is such a square keeps its pixels. The rounding is torchvision's (Resize, CenterCrop).

    Raises:
        ValueError: channels is not 1 or 3, or the image's mode has no fixed range.
    """
    resized = _resize_short_side(_with_channels(image, channels), side)
    left, top = round((resized.width - side) / 2), round((resized.height - side) / 2)
    return channels_first(resized.crop((left, top, left + side, top + side)))


def to_jpeg(image: RawImage, short_side: int, channels: int, quality: int) -> bytes:
    """The image as a JPEG file of that short side in pixels, aspect kept, without metadata.

    Raises:
        ValueError: channels is not 1 or 3, or the image's mode has no fixed range.
    """
    resized = _resize_short_side(_with_channels(image, channels), short_side)
    stream = io.BytesIO()
    fresh = Image.fromarray(np.asarray(resized))  # without the comment that Pillow would copy from the raw file
    fresh.save(stream, "JPEG", quality=quality, subsampling=0 if quality >= FULL_COLOUR_QUALITY else 2)
    return stream.getvalue()


def _with_channels(image: RawImage, channels: int) -> Image.Image:
    if channels not in MODES:
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in UNBOUNDED_MODES:
        raise ValueError(f"images of mode {image.mode} have no fixed range; save them with 8 or 16 bits a channel")
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        image = _over_background(image.convert("RGBA"))
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def _over_background(image: Image.Image) -> Image.Image:
    background = Image.new("RGBA", image.size, BACKGROUND)
    return Image.alpha_composite(background, image).convert("RGB")


def _resize_short_side(image: Image.Image, side: int) -> Image.Image:
    short, long = sorted(image.size)
    if short == side:
        return image
    long_side = side * long // short
    size = (side, long_side) if image.width <= image.height else (long_side, side)
    return image.resize(size, Image.Resampling.BICUBIC)
