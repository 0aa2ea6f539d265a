"""Sample images of each subset, drawn beside each other: what a school level shows."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edpipe.datasets.dataset_file import Dataset
from edpipe.datasets.partition import Partition

TILE, GAP = 64, 4
"""Pixels: of a tile's side, and between tiles."""
TILES = 12
"""At most so many images of each subset; a page with three subsets grows by about 60 kB."""
QUALITY = 80
GROUND = (255, 255, 255)
TEXT_HEIGHT = 22


@dataclass(frozen=True)
class Strip:
    """Images of one subset in one picture."""

    subset: str
    class_names: tuple[str, ...]
    """Of the images, from left to right."""
    num_classes: int
    """Of the whole subset."""
    picture: Image.Image

    @property
    def data_uri(self) -> str:
        """The picture as a JPEG file inside an address."""
        stream = io.BytesIO()
        self.picture.save(stream, "JPEG", quality=QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def strips(dataset: Dataset, partition: Partition) -> tuple[Strip, ...]:
    """One strip for each subset, in the order of teaching; equal arguments give equal pixels.

    Raises:
        CorruptFileError: a stored image cannot be decoded any more.
    """
    return tuple(_strip(dataset, name, partition.class_ids[name]) for name in partition.subsets)


def chosen_samples(dataset: Dataset, class_ids: tuple[int, ...]) -> list[int]:
    """Ids of train samples, at most twelve: classes spread evenly, as many of each, the first ones of each.

    Of few classes several images are shown, of many classes one of each that is chosen.
    """
    shown = [class_ids[i] for i in np.unique(np.linspace(0, len(class_ids) - 1, TILES).astype(int))]
    of_each = -(-TILES // len(shown))
    found = [sample for c in shown for sample in dataset.sample_ids("train", [c])[:of_each].tolist()]
    return found[:TILES]


def _strip(dataset: Dataset, subset: str, class_ids: tuple[int, ...]) -> Strip:
    ids = chosen_samples(dataset, class_ids)
    picture = Image.new("RGB", (len(ids) * (TILE + GAP) - GAP, TILE), GROUND)
    for place, sample_id in enumerate(ids):
        picture.paste(tile(dataset, sample_id), (place * (TILE + GAP), 0))
    names = tuple(dataset.class_names[dataset.labels[sample_id]] for sample_id in ids)
    return Strip(subset, names, len(class_ids), picture)


def tile(dataset: Dataset, sample_id: int) -> Image.Image:
    """The middle of one image, a square."""
    pixels = dataset.decode(sample_id)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Few pixels are shown as they are, not blurred.
    resampling = Image.Resampling.NEAREST if side < TILE // 2 else Image.Resampling.BICUBIC
    return image.resize((TILE, TILE), resampling, (left, top, left + side, top + side))


def sheet_png(found: tuple[Strip, ...]) -> bytes:
    """All strips below each other, each under its name, as a PNG file."""
    width = max(strip.picture.width for strip in found)
    sheet = Image.new("RGB", (width, len(found) * (TILE + TEXT_HEIGHT + GAP)), GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, strip in enumerate(found):
        top = number * (TILE + TEXT_HEIGHT + GAP)
        draw.text((0, top + 3), f"{strip.subset}: {strip.num_classes} classes", (0, 0, 0), font)
        sheet.paste(strip.picture, (0, top + TEXT_HEIGHT))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()
