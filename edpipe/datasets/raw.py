"""What every reader of raw images hands over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

RAW = Path("data/raw")
RawImage = (
    Image.Image | UInt8[np.ndarray, "raw_height raw_width"] | UInt8[np.ndarray, "raw_height raw_width raw_channel"]
)
"""An image as a reader finds it: any mode and size."""


@dataclass(frozen=True)
class RawSample:
    """One raw image that is decoded only when `load` is called.

    Attributes:
        label: Position of its class in the data set's class names.
        split: "train", "val" or "test"; None where the data set has no official split.
        source: Where it comes from, relative to the root and unique in the data set; it decides what is drawn.
        load: Gives the image; raises UnreadableImageError naming the file if it holds no sound image, DataError if it
            cannot be read at all.
        path: The file that holds this image and no other, if there is one; packing that was interrupted goes on only
            if its size and time are unchanged.
    """

    label: int
    split: str | None
    source: str
    load: Callable[[], RawImage]
    path: Path | None = None


@dataclass(frozen=True)
class RawDataset:
    """All samples of a raw data set in the reader's own order, which is the same on every machine.

    Attributes:
        class_names: In order of class number.
        samples: Those that are to be packed.
        not_images: What lies among the images and is none, relative to the root, sorted.
    """

    class_names: tuple[str, ...]
    samples: Sequence[RawSample]
    not_images: tuple[str, ...] = ()


def raw_folder(dataset: str, root: str | None) -> Path:
    """Folder of the raw files: the user's own `root`, or data/raw/<dataset>."""
    return Path(root).expanduser() if root else RAW / dataset
