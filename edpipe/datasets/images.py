"""Raw images of any mode and size become uint8 arrays of one channel count; what was done to an odd one is named."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from edpipe.datasets.dataset_file import MODES, channels_first
from edpipe.datasets.raw import RawImage
from edpipe.errors import DataError, UnreadableImageError

RULES = {
    "upright": "turned or mirrored as the EXIF orientation says",
    "first_frame": "the first of several frames or pages",
    "sixteen_bit": "16 bits a pixel scaled to 8",
    "palette": "colours looked up in the palette",
    "over_white": "an alpha channel or a transparent colour: laid over white",
    "cmyk": "printing colours turned into RGB, inverted first if an Adobe marker says that they are",
    "grey_to_colour": "grey repeated in three channels",
    "colour_to_grey": "colours weighed into one channel (ITU-R 601-2)",
    "enlarged": "the short side was smaller than it is stored",
}
"""What packing does to an image that is not simply 8-bit grey or RGB; each is counted in the record."""
TRANSPARENT_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
PALETTE_MODES = frozenset({"P", "PA"})
GREY_MODES = frozenset({"1", "L", "LA", "La"})
UNBOUNDED_MODES = frozenset({"I", "F"})
FULL_COLOUR_QUALITY = 90
"""From this JPEG quality on, colour is stored as finely as brightness."""
BACKGROUND = "white"
"""What is seen where an image is transparent."""
LONGEST_SIDE = 65_500
"""Pixels of the long side after resizing: the most that a JPEG file holds (libjpeg's JPEG_MAX_DIMENSION)."""
ORIENTATION = 0x0112
"""The EXIF tag; 1 is upright."""
_FOUND = "edpipe_rules"


def open_image(path: Path) -> Image.Image:
    """The decoded first frame of a file, upright as its EXIF orientation says; as stored if its EXIF data are damaged.

    Raises:
        UnreadableImageError: the file is empty, truncated, no image, or too large to be decoded safely (more than
            Pillow's limit of 179 million pixels).
        DataError: the file is missing or the disk does not give it.
    """
    try:
        with Image.open(path) as image:
            return _decoded(image)
    except Exception as error:  # Pillow's decoders raise almost any type on damaged bytes.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        raise UnreadableImageError(path, f"cannot be read as an image ({_reason(path, error)})") from error


def _reason(path: Path, error: Exception) -> str:
    if path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):  # its text has the whole path
        return "of no kind that Pillow knows"
    return str(error).replace("\n", " ") or type(error).__name__


def decoded_image(image: Image.Image) -> Image.Image:
    """What `open_image` makes of an image that Pillow has opened: its first frame, upright.

    Raises:
        OSError: its bytes are damaged; Pillow's decoders may raise other errors as well.
    """
    return _decoded(image)


def _decoded(image: Image.Image) -> Image.Image:
    found = ["first_frame"] if getattr(image, "is_animated", False) else []
    # Pillow turns a TIFF while it decodes it, and its orientation is gone then.
    is_turned_tiff = image.format == "TIFF" and _is_turned(image)
    transparency = _stored_transparency(image)
    image.load()
    if transparency is not None:
        image.info["transparency"] = transparency
    # Pillow inverts every CMYK JPEG, as Adobe's programs store them; one without their marker is stored as it is.
    is_plain_cmyk = image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info
    is_deep = image.mode == "I" and image.format == "PPM"  # Pillow scales these to 0 … 65535
    upright, is_turned = _upright(image)
    if is_turned or is_turned_tiff:
        found.append("upright")
    if is_plain_cmyk:
        upright = ImageChops.invert(upright)
    if is_deep:
        upright = Image.fromarray(np.asarray(upright).astype(np.uint16))
    upright.info[_FOUND] = tuple(found)
    return upright


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    try:
        is_turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
        return ImageOps.exif_transpose(image), is_turned
    except Exception:  # Cameras and editors write broken EXIF data around sound pixels.
        return image.copy(), False


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ORIENTATION, 1) in range(2, 9)
    except Exception:  # as above
        return False


def _stored_transparency(image: Image.Image) -> int | tuple[int, ...] | None:
    """The transparent colour of a PNG in the values of its decoded pixels; None where Pillow has it so already.

    The file gives it in its own bits, while Pillow scales 2 and 4 bits to 8 and keeps the high byte of 16 in colour.
    """
    stored = image.info.get("transparency")
    arguments = image.tile[0].args if isinstance(image, PngImageFile) and image.tile else None
    rawmode = arguments if isinstance(arguments, str) else ""
    if isinstance(stored, tuple):
        return tuple(value >> 8 for value in stored) if rawmode == "RGB;16B" else None
    scale = {"L;2": 85, "L;4": 17}.get(rawmode)
    return stored * scale if isinstance(stored, int) and scale else None


def applied_rules(image: RawImage, side: int, channels: int) -> tuple[str, ...]:
    """Names in RULES of what packing does to an image so that its short side is `side` pixels, with so many channels.

    >>> applied_rules(Image.new("LA", (4, 8)), 8, 3)
    ('over_white', 'grey_to_colour', 'enlarged')
    """
    image = _as_image(image)
    is_grey = image.mode in GREY_MODES or image.mode.startswith("I;16")
    applies = {
        **dict.fromkeys(image.info.get(_FOUND, ()), True),
        "sixteen_bit": image.mode.startswith("I;16"),
        "palette": image.mode in PALETTE_MODES,
        "over_white": _is_transparent(image),
        "cmyk": image.mode == "CMYK",
        "grey_to_colour": is_grey and channels == 3,
        "colour_to_grey": not is_grey and channels == 1,
        "enlarged": min(image.size) < side,
    }
    return tuple(rule for rule in RULES if applies.get(rule))


def to_square(image: RawImage, side: int, channels: int) -> UInt8[np.ndarray, "channel height width"]:
    """The image with its short side resized to `side` (bicubic), then the square in its centre, in pixels.

    An image that already is such a square keeps its pixels. The rounding is torchvision's (Resize, CenterCrop).

    Raises:
        ValueError: channels is not 1 or 3, the image's mode has no fixed range, or it is too narrow.
    """
    resized = _resize_short_side(_with_channels(image, channels), side)
    left, top = round((resized.width - side) / 2), round((resized.height - side) / 2)
    return channels_first(resized.crop((left, top, left + side, top + side)))


def to_jpeg(image: RawImage, short_side: int, channels: int, quality: int) -> bytes:
    """The image as a JPEG file of that short side in pixels, aspect kept, without metadata.

    Raises:
        ValueError: channels is not 1 or 3, the image's mode has no fixed range, or it is too narrow.
    """
    resized = _resize_short_side(_with_channels(image, channels), short_side)
    stream = io.BytesIO()
    fresh = Image.fromarray(np.asarray(resized))  # without the comment that Pillow would copy from the raw file
    fresh.save(stream, "JPEG", quality=quality, subsampling=0 if quality >= FULL_COLOUR_QUALITY else 2)
    return stream.getvalue()


def _as_image(image: RawImage) -> Image.Image:
    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in TRANSPARENT_MODES or "transparency" in image.info


def _with_channels(image: RawImage, channels: int) -> Image.Image:
    if channels not in MODES:
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    image = _as_image(image)
    if image.mode.startswith("I;16"):
        image = _eight_bit(image)
    if image.mode in UNBOUNDED_MODES:
        raise ValueError(f"images of mode {image.mode} have no fixed range; save them with 8 or 16 bits a channel")
    if _is_transparent(image):
        image = _over_background(image.convert("RGBA"))
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8, with an alpha channel where one of its values is transparent."""
    values = np.asarray(image)
    grey = Image.fromarray((values // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))


def _over_background(image: Image.Image) -> Image.Image:
    background = Image.new("RGBA", image.size, BACKGROUND)
    return Image.alpha_composite(background, image).convert("RGB")


def _resize_short_side(image: Image.Image, side: int) -> Image.Image:
    short, long = sorted(image.size)
    if short == side:
        return image
    long_side = side * long // short
    if long_side > LONGEST_SIDE:
        raise ValueError(
            f"its {image.width} × {image.height} pixels would become {side} × {long_side:,}, "
            f"allowed are {LONGEST_SIDE:,} a side; crop it"
        )
    size = (side, long_side) if image.width <= image.height else (long_side, side)
    return image.resize(size, Image.Resampling.BICUBIC)
