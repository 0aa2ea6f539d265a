"""What `edpipe new` knows of a folder of images before they are packed."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from edpipe.datasets.image_kinds import kinds_of
from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers.folder import read
from edpipe.datasets.splits import assign_splits
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs
from edpipe.pipeline.estimates.image_counts import ImageCounts

USUAL_TEST, LARGER_VAL = 0.2, 0.2
FEWEST_VAL_IMAGES = 100
"""With fewer of them a larger share is set aside."""
LOOKED_AT = 200
"""Images whose size and colours are read, spread over all."""
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"})


@dataclass(frozen=True)
class FolderFacts:
    """A folder of class folders."""

    root: str
    class_names: tuple[str, ...]
    num_train: int
    num_val: int
    num_test: int
    test_fraction: float | None
    """None: the folder has its own test images."""
    val_fraction: float | None
    """None: the folder has its own validation images."""
    short_side: int
    """Pixels; half of the images have at least so many on their short side."""
    is_grey: bool
    """Whether all images that were looked at are grey."""
    left_aside: str = ""
    """What else lies there, in words."""

    @property
    def num_classes(self) -> int:
        """How many folders of images there are."""
        return len(self.class_names)

    @property
    def counts(self) -> ImageCounts:
        """Images of each split."""
        return ImageCounts(self.num_classes, self.num_train, self.num_val, self.num_test)


def look_at(root: Path) -> FolderFacts:
    """Counts the images of a folder, reads the size of some of them, and chooses what is set aside.

    Raises:
        DataError: see `edpipe.datasets.readers.folder.read`; or there is one class only, or a class with too few
            images; or none of those looked at is an image.
    """
    knobs = DatasetKnobs.model_validate({"reader": "folder", "image_size": 64})
    raw = read(root, knobs)
    if len(raw.class_names) < 2:
        raise DataError(f"{root}: holds one class, {''.join(raw.class_names)}; there must be two or more to tell apart")
    has_test = any(sample.split == "test" for sample in raw.samples)
    has_val = any(sample.split == "val" for sample in raw.samples)
    smallest = min(Counter(sample.label for sample in raw.samples).values())
    # A fifth of two images is none.
    knobs = knobs.model_copy(update={"test_fraction": USUAL_TEST if smallest > 2 else 0.5})
    split = _counts(assign_splits(raw, knobs))
    if not has_val and split["val"] < FEWEST_VAL_IMAGES:
        knobs = knobs.model_copy(update={"val_fraction": LARGER_VAL})
        split = _counts(assign_splits(raw, knobs))
    short_side, is_grey = _looks(raw.samples, root)
    return FolderFacts(
        root=str(root),
        class_names=raw.class_names,
        num_train=split["train"],
        num_val=split["val"],
        num_test=split["test"],
        test_fraction=None if has_test else knobs.test_fraction,
        val_fraction=None if has_val else knobs.val_fraction,
        short_side=short_side,
        is_grey=is_grey,
        left_aside=kinds_of(root, raw.not_images),
    )


def _counts(raw: RawDataset) -> Counter[str | None]:
    return Counter(sample.split for sample in raw.samples)


def _looks(samples: Sequence[RawSample], root: Path) -> tuple[int, bool]:
    """The median of the short sides in pixels, and whether all are grey; only headers of files are read."""
    step = -(-len(samples) // LOOKED_AT)
    sides, modes = [], set()
    for sample in samples[::step]:
        try:
            with Image.open(sample.path or root / sample.source) as image:
                sides.append(min(image.size))
                modes.add(image.mode)
        except Exception:  # a broken file, whatever Pillow raises for it; packing names them all
            continue
    if not sides:
        raise DataError(f"{root}: of {len(samples[::step])} files that were tried none is an image that can be read")
    return int(statistics.median_high(sides)), modes <= GREY_MODES
