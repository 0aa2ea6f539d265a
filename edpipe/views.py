"""Which augmented version of an image is which: a view is fully given by (spec, sample id, view number).

Nothing here touches pixels or needs torch; `edpipe.pixels` applies what is decided here. All maps are integer, or use
only operations that IEEE 754 rounds exactly, so that every machine decides alike.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt32

from edpipe.params.base import canonical_json
from edpipe.params.soft_labels import PadCrop, ResizedCrop, ViewKnobs
from edpipe.philox import Purpose, choose_below, random_words
from edpipe.shapes import Boxes, Flips, Offsets, SampleIds, Views

# Raised whenever the same (spec, sample id, view) comes to mean other pixels; stored logits of another rule do not fit.
VIEW_RULE = 1


@dataclass(frozen=True)
class ViewSpec:
    """A space of views.

    Attributes:
        augment: how a view is made from an image.
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

    @classmethod
    def from_knobs(cls, knobs: ViewKnobs, image_size: int) -> "ViewSpec":
        """The views that the knobs ask for, with "all" counted."""
        exhaustive = knobs.views == "all"
        num_views = _count_views(knobs.augment) if exhaustive else int(knobs.views)
        return cls(knobs.augment, num_views, exhaustive, knobs.seed, image_size)

    def canonical(self) -> str:
        """One text for equal views; it is stored with logits, and views of another text do not fit them."""
        return canonical_json(
            {
                "augment": self.augment.model_dump(mode="json"),
                "num_views": self.num_views,
                "exhaustive": self.exhaustive,
                "seed": None if self.exhaustive else self.seed,
                "image_size": self.image_size,
                "view_rule": VIEW_RULE,
            }
        )


def view_of(seed: int, epoch: int | Int64[np.ndarray, " sample"], sample_ids: SampleIds, num_views: int) -> Views:
    """The view that each sample shows in its epoch: drawn anew each epoch, all views alike.

    Over an exhaustive space this is exactly what drawing an augmentation for each image does.

    Raises:
        ValueError: num_views < 1, or a seed, epoch or id that `random_words` refuses.
    """
    return choose_below(random_words(seed, Purpose.VIEW_CHOICE, sample_ids, epoch)[:, 0], num_views)


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
    augment = spec.augment
    if not isinstance(augment, PadCrop):
        raise ValueError(f"views of kind {augment.kind} have no pad_crop parameters")
    _check_views(spec, views)
    num_offsets = 2 * augment.padding + 1
    if spec.exhaustive:
        corner, dx = np.divmod(views, num_offsets)
        flip, dy = np.divmod(corner, num_offsets)
        return dy, dx, flip > 0
    words = random_words(spec.seed, Purpose.PAD_CROP, sample_ids, views)
    dy, dx = choose_below(words[:, 0], num_offsets), choose_below(words[:, 1], num_offsets)
    return dy, dx, _choose_flip(words[:, 2], augment.flip)


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
    _check_views(spec, views)
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
    area = (augment.min_area + _fractions(words[:, 0]) * (1 - augment.min_area)) * (heights * widths)
    stretch = 1 + _fractions(words[:, 1]) * (augment.max_stretch - 1)
    upright = choose_below(words[:, 2], 2) > 0
    # Division and square root are rounded exactly by IEEE 754; exp and log, for a log-uniform stretch, are not.
    box_heights = np.sqrt(np.where(upright, area * stretch, area / stretch))
    box_heights = np.clip(box_heights, area / widths, heights)
    box_widths = np.rint(area / box_heights).astype(np.int64)
    return np.clip(np.rint(box_heights).astype(np.int64), 1, heights), np.clip(box_widths, 1, widths)


def _count_views(augment: PadCrop | ResizedCrop) -> int:
    """Size of a finite space of views."""
    if not isinstance(augment, PadCrop):
        raise ValueError(f"views of kind {augment.kind} cannot be counted")
    return (2 * augment.padding + 1) ** 2 * (2 if augment.flip else 1)


def _check_views(spec: ViewSpec, views: Views) -> None:
    if len(views) and not 0 <= views.min() <= views.max() < spec.num_views:
        raise ValueError(f"views must be in [0, {spec.num_views}), got {views.min()} to {views.max()}")


def _fractions(words: UInt32[np.ndarray, " sample"]) -> Float64[np.ndarray, " sample"]:
    """Each word as a number in [0, 1)."""
    return words * 2.0**-32


def _choose_flip(words: UInt32[np.ndarray, " sample"], is_wanted: bool) -> Flips:
    return choose_below(words, 2) > 0 if is_wanted else np.zeros(len(words), dtype=bool)
