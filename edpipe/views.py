"""Which augmented version of an image is which: a view is fully given by (spec, sample id, view number).

Nothing here touches pixels or needs torch; `edpipe.pixels` applies what is decided here. All maps are integer, or use
only operations that IEEE 754 rounds exactly, so that every machine decides alike.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt32

from edpipe.params.base import canonical_json
from edpipe.params.soft_labels import MOST_VIEWS, Mixing, PadCrop, ResizedCrop, StudentViews
from edpipe.philox import Purpose, choose_below, fractions, random_words
from edpipe.shapes import Boxes, Flips, Offsets, SampleIds, Views

# One is raised whenever the same (spec, sample id, view) comes to mean other pixels; stored logits of another rule do
# not fit. resized_crop 2: resized by whole numbers, not by float32.
VIEW_RULES = {"pad_crop": 1, "resized_crop": 2}


@dataclass(frozen=True)
class ViewSpec:
    """A space of views.

    Attributes:
        augment: how a view is made from an image.
        mixing: how it is mixed with another image's; None: not at all.
        num_views: of each image; views are numbered 0 … num_views-1.
        exhaustive: the views are all there are, each once; otherwise they are drawn.
        seed: of drawn views; without effect on exhaustive ones.
        image_size: side of the square that networks see, in pixels.
    """

    augment: PadCrop | ResizedCrop
    num_views: int
    exhaustive: bool
    seed: int
    image_size: int
    mixing: Mixing | None = None

    @classmethod
    def from_knobs(cls, knobs: StudentViews, image_size: int) -> "ViewSpec":
        """The views that the knobs ask for; those of an exhaustive space are counted."""
        space = knobs.space
        return cls(space.augment, count_views(knobs), space.exhaustive, space.seed, image_size, space.mixing)

    def canonical(self) -> str:
        """One text for equal views; it is stored with logits, and views of another text do not fit them.

        The number of views is not in it: more of them leave those that there are as they are.
        """
        return canonical_json(
            {
                "augment": self.augment.model_dump(mode="json"),
                "mixing": self.mixing and self.mixing.model_dump(mode="json"),
                "exhaustive": self.exhaustive,
                "seed": None if self.exhaustive else self.seed,
                "image_size": self.image_size,
                "view_rule": VIEW_RULES[self.augment.kind],
            }
        )


def view_of(
    seed: int,
    epoch: int | Int64[np.ndarray, " sample"],
    sample_ids: SampleIds,
    num_views: int,
    choice: Literal["random", "cycle"] = "random",
) -> Views:
    """The view, from 0, that each sample shows in its epoch; it depends on nothing but these arguments.

    random: drawn anew each epoch, all views alike; over an exhaustive space this is exactly what drawing an
    augmentation for each image does. cycle: epochs c × num_views … (c+1) × num_views - 1 are cycle c, in which each
    view is shown once; the order, (a × epoch + b) mod num_views with a prime to num_views, is drawn for each sample and
    cycle.

    Raises:
        ValueError: num_views < 1 or, with cycle, > 100,000; or a seed, epoch or id that `random_words` refuses.
    """
    if choice == "random":
        return choose_below(random_words(seed, Purpose.VIEW_CHOICE, sample_ids, epoch)[:, 0], num_views)
    factors = unit_table(num_views)
    cycle, place = epoch // num_views, epoch % num_views
    words = random_words(seed, Purpose.VIEW_CYCLE, sample_ids, cycle)
    factor, shift = factors[choose_below(words[:, 0], len(factors))], choose_below(words[:, 1], num_views)
    return (factor * place + shift) % num_views


@lru_cache(maxsize=8)
def unit_table(num_views: int) -> Int64[np.ndarray, " unit"]:
    """The numbers 1 … num_views that are prime to num_views: multiplied by one of them, its residues are permuted.

    >>> unit_table(9).tolist()
    [1, 2, 4, 5, 7, 8]

    Raises:
        ValueError: num_views outside [1, 100,000]; the table would be large.
    """
    if not 1 <= num_views <= MOST_VIEWS:
        raise ValueError(f"num_views must be in [1, {MOST_VIEWS}] for choice: cycle, got {num_views}")
    numbers = np.arange(1, num_views + 1, dtype=np.int64)
    units = numbers[np.gcd(numbers, num_views) == 1]
    units.flags.writeable = False  # one array serves all callers
    return units


def sample_order(seed: int, epoch: int, sample_ids: SampleIds) -> SampleIds:
    """The same ids, shuffled for one epoch; the order in which they are given does not matter.

    Each id gets 64 random bits; ids are sorted by these. Leaving ids out leaves the order of the others as it is.
    """
    ascending = np.sort(sample_ids)
    words = random_words(seed, Purpose.SAMPLE_ORDER, ascending, epoch).astype(np.uint64)
    return ascending[np.argsort((words[:, 0] << np.uint64(32)) | words[:, 1], kind="stable")]


def pad_crop_parameters(spec: ViewSpec, sample_ids: SampleIds, views: Views) -> tuple[Offsets, Offsets, Flips]:
    """dy, dx and flip of each view: the crop's corner in the padded image, 0 … 2 × padding, and whether it is mirrored.

    An exhaustive spec counts through flip, dy, dx, the last fastest; (padding, padding, False) is the image itself.

    Raises:
        ValueError: the spec is of another kind, or a view is not one of its views.
    """
    augment = pad_crop_of(spec)
    check_views(spec, views)
    num_offsets = 2 * augment.padding + 1
    if spec.exhaustive:
        corner, dx = np.divmod(views, num_offsets)
        flip, dy = np.divmod(corner, num_offsets)
        return dy, dx, flip > 0
    words = random_words(spec.seed, Purpose.PAD_CROP, sample_ids, views)
    dy, dx = choose_below(words[:, 0], num_offsets), choose_below(words[:, 1], num_offsets)
    return dy, dx, _choose_flip(words[:, 2], augment.flip)


def pad_crop_of(spec: ViewSpec) -> PadCrop:
    """How the views are cropped, if they are of kind pad_crop.

    Raises:
        ValueError: they are of another kind.
    """
    if not isinstance(spec.augment, PadCrop):
        raise ValueError(f"views of kind {spec.augment.kind} have no pad_crop parameters")
    return spec.augment


def resized_crop_boxes(
    spec: ViewSpec,
    sample_ids: SampleIds,
    views: Views,
    heights: Int64[np.ndarray, " sample"],
    widths: Int64[np.ndarray, " sample"],
) -> tuple[Boxes, Flips]:
    """(top, left, height, width) of each view's box in pixels of its image, and whether it is mirrored.

    The box's share of the image is uniform in [min_area, 1]; its longer side is 1 to max_stretch times the shorter one,
    uniformly, upright or lying with equal chance; a box that would stick out is made squarer until it fits, at the same
    area (only an image more stretched than max_stretch gets boxes that are, too). Sides are rounded to whole pixels.

    Raises:
        ValueError: the spec is of another kind, a view is not one of its views, or an image has no pixels.
    """
    augment = spec.augment
    if not isinstance(augment, ResizedCrop):
        raise ValueError(f"views of kind {augment.kind} have no resized_crop boxes")
    check_views(spec, views)
    if len(heights) and min(heights.min(), widths.min()) < 1:
        raise ValueError(f"images must have at least 1 pixel a side, got {min(heights.min(), widths.min())}")
    side_words = random_words(spec.seed, Purpose.RESIZED_CROP_SIDES, sample_ids, views)
    box_heights, box_widths = _box_sides(augment, side_words, heights, widths)
    place_words = random_words(spec.seed, Purpose.RESIZED_CROP_PLACE, sample_ids, views)
    top = choose_below(place_words[:, 0], heights - box_heights + 1)
    left = choose_below(place_words[:, 1], widths - box_widths + 1)
    return np.stack([top, left, box_heights, box_widths], axis=1), _choose_flip(place_words[:, 2], augment.flip)


def _box_sides(
    augment: ResizedCrop,
    words: UInt32[np.ndarray, "sample 4"],
    heights: Int64[np.ndarray, " sample"],
    widths: Int64[np.ndarray, " sample"],
) -> tuple[Int64[np.ndarray, " sample"], Int64[np.ndarray, " sample"]]:
    """Height and width of each box, at least 1 pixel and never more than the image has."""
    area = (augment.min_area + fractions(words[:, 0]) * (1 - augment.min_area)) * (heights * widths)
    stretch = 1 + fractions(words[:, 1]) * (augment.max_stretch - 1)
    upright = choose_below(words[:, 2], 2) > 0
    # Division and square root are rounded exactly by IEEE 754; exp and log, for a log-uniform stretch, are not.
    box_heights = np.sqrt(np.where(upright, area * stretch, area / stretch))
    box_heights = np.clip(box_heights, area / widths, heights)
    box_widths = np.rint(area / box_heights).astype(np.int64)
    return np.clip(np.rint(box_heights).astype(np.int64), 1, heights), np.clip(box_widths, 1, widths)


def count_views(knobs: StudentViews) -> int:
    """How many views of each image there are: the number asked for, or all of a finite space."""
    augment = knobs.space.augment
    if knobs.number is not None:
        return knobs.number
    if not isinstance(augment, PadCrop):
        raise ValueError(f"views of kind {augment.kind} cannot be counted")
    return (2 * augment.padding + 1) ** 2 * (2 if augment.flip else 1)


@dataclass(frozen=True)
class ViewRange:
    """Views first … stop-1, those of one soft-label file.

    >>> str(ViewRange(0, 8)), ViewRange.parse("8-15")
    ('0-7', ViewRange(first=8, stop=16))
    """

    first: int
    stop: int

    def __str__(self) -> str:
        return f"{self.first}-{self.stop - 1}"

    @property
    def num_views(self) -> int:
        """How many."""
        return self.stop - self.first

    @classmethod
    def parse(cls, text: str) -> "ViewRange":
        """The range that a file name or an option gives, its last view included.

        Raises:
            ValueError: not two whole numbers, the first not the larger, with a hyphen between.
        """
        first, hyphen, last = text.partition("-")
        if not (hyphen and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise ValueError(f"views must be FIRST-LAST, such as 0-7, got {text!r}")
        return cls(int(first), int(last) + 1)


def view_ranges(num_views: int, per_file: int) -> tuple[ViewRange, ...]:
    """The files over which so many views are spread; more views leave full files as they are.

    >>> [str(views) for views in view_ranges(20, 8)]
    ['0-7', '8-15', '16-19']
    """
    return tuple(ViewRange(first, min(first + per_file, num_views)) for first in range(0, num_views, per_file))


def check_views(spec: ViewSpec, views: Views) -> None:
    """Nothing, if all of them are views of the spec.

    Raises:
        ValueError: a view outside [0, spec.num_views).
    """
    if len(views) and not 0 <= views.min() <= views.max() < spec.num_views:
        raise ValueError(f"views must be in [0, {spec.num_views}), got {views.min()} to {views.max()}")


def _choose_flip(words: UInt32[np.ndarray, " sample"], is_wanted: bool) -> Flips:
    return choose_below(words, 2) > 0 if is_wanted else np.zeros(len(words), dtype=bool)
