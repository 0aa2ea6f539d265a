"""Crops and flips of views, as whole numbers drawn from counters; NumPy only."""

import numpy as np
from jaxtyping import Int64, UInt32

from edpipe.params.soft_labels import PadCrop, ResizedCrop
from edpipe.views.axes import Boxes, Flips, Offsets, SampleIds, Views
from edpipe.views.philox import Purpose, choose_below, fractions, random_words
from edpipe.views.spec import ViewSpec, check_views


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


def _choose_flip(words: UInt32[np.ndarray, " sample"], is_wanted: bool) -> Flips:
    return choose_below(words, 2) > 0 if is_wanted else np.zeros(len(words), dtype=bool)
