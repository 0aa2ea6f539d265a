"""Images from files, folders and standard input, read by the code that packs them, so that the pixels are the same."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from edpipe.datasets.images import IMAGE_SUFFIXES, decoded_image, open_image
from edpipe.datasets.packing import packed_pixels
from edpipe.datasets.raw import RawSample
from edpipe.errors import DataError, UnreadableImageError
from edpipe.export.description import Preprocessing
from edpipe.views.batches import centre_square

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    name: str
    reason: str


def image_names(words: Sequence[str]) -> list[str]:
    """Each file that is named, `-`, and all images below each folder that is named, sorted; hidden ones left out.

    Raises:
        DataError: a folder holds no image.
    """
    return [name for word in words for name in (_below(Path(word)) if Path(word).is_dir() else [word])]


def _below(folder: Path) -> list[str]:
    found = []
    for inner, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(inner) / name for name in names if not name.startswith(".")]
        found += [str(path) for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise DataError(f"{folder}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); name another folder")
    return sorted(found)


def read_image(name: str, preprocessing: Preprocessing) -> UInt8[Tensor, "channel height width"] | Unreadable:
    """The pixels that packing and evaluation make of one file, or of standard input; or why there are none."""
    try:
        if name == STANDARD_INPUT:
            return _read_standard_input(preprocessing)
        return _pixels(RawSample(0, None, name, partial(open_image, Path(name)), Path(name)), preprocessing)
    except UnreadableImageError as error:
        return Unreadable(name, error.reason)
    except DataError as error:
        return Unreadable(name, str(error).removeprefix(f"{name}: "))


def _read_standard_input(preprocessing: Preprocessing) -> UInt8[Tensor, "channel height width"]:
    with tempfile.NamedTemporaryFile(prefix="edpipe-stdin-") as file:
        file.write(sys.stdin.buffer.read())
        file.flush()
        return _pixels(RawSample(0, None, "-", partial(open_image, Path(file.name))), preprocessing)


def pixels_of_image(image: Image.Image, preprocessing: Preprocessing) -> UInt8[Tensor, "channel height width"]:
    """The same of an image that Pillow has opened or made.

    Raises:
        UnreadableImageError: it cannot be packed.
    """
    return _pixels(RawSample(0, None, "image", partial(decoded_image, image)), preprocessing)


def _pixels(sample: RawSample, preprocessing: Preprocessing) -> UInt8[Tensor, "channel height width"]:
    pixels = torch.from_numpy(packed_pixels(sample, preprocessing.packing))
    return pixels if preprocessing.encoding == "raw" else centre_square(pixels, preprocessing.image_size)


@dataclass(frozen=True)
class ImageBatch:
    """Images that go through a network together."""

    names: list[str]
    pixels: UInt8[Tensor, "sample channel height width"]


def image_batches(
    names: Sequence[str], preprocessing: Preprocessing, batch_size: int
) -> Iterator[ImageBatch | Unreadable]:
    """Batches of the images that can be read, in order, and each that cannot where it is met."""
    kept: list[str] = []
    pixels: list[UInt8[Tensor, "channel height width"]] = []
    for name in names:
        read = read_image(name, preprocessing)
        if isinstance(read, Unreadable):
            yield read
            continue
        kept.append(name)
        pixels.append(read)
        if len(kept) == batch_size:
            yield ImageBatch(kept, torch.stack(pixels))
            kept, pixels = [], []
    if kept:
        yield ImageBatch(kept, torch.stack(pixels))
