"""Views are pure functions of (spec, sample, view): complete, unbiased, inside the image."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import chdtrc
from strategies import EPOCHS, SEEDS, drawn_specs, pad_crops, resized_crops, sample_ids

from edpipe.params.soft_labels import ColourJitter, Mixing, PadCrop, ResizedCrop, StudentViews, ViewSpace
from edpipe.views.crops import pad_crop_parameters, resized_crop_boxes
from edpipe.views.sampling import sample_order, view_of
from edpipe.views.spec import ViewRange, ViewSpec, view_ranges

PAD_CROP = PadCrop(kind="pad_crop")
RESIZED_CROP = ResizedCrop(kind="resized_crop")
# What files made with VIEW_RULE 1 rely on.
KNOWN_VIEWS = [28, 147, 15, 100, 16, 81]
KNOWN_CYCLE = [[3, 1, 0], [2, 2, 3], [1, 3, 2], [0, 0, 1], [0, 1, 0], [3, 2, 1], [2, 3, 2], [1, 0, 3]]
KNOWN_ORDER = [3, 4, 5, 2, 1, 7, 0, 6]
KNOWN_CROPS = [[2, 4, 6], [7, 3, 8], [False, True, False]]
KNOWN_BOXES = [[21, 78, 129, 170], [14, 105, 227, 170], [176, 30, 263, 269]]


def spec_of(augment, number=1000, seed=0, mixing=None):
    """Without a number: all views there are."""
    space = ViewSpace(augment=augment, mixing=mixing, exhaustive=number is None, seed=seed)
    return ViewSpec.from_knobs(StudentViews(space=space, number=number, choice="random"), 32)


def p_value_of_uniform(values, num_values):
    """Chance of counts at least as uneven, if values are drawn uniformly."""
    counts = np.bincount(values, minlength=num_values)
    expected = len(values) / num_values
    return chdtrc(num_values - 1, ((counts - expected) ** 2 / expected).sum())


# Specs


@given(pad_crops())
def test_exhaustive_views_are_counted(augment):
    spec = spec_of(augment, None)
    assert spec.exhaustive
    assert spec.num_views == (2 * augment.padding + 1) ** 2 * (1 + augment.flip)


def test_padding_of_four_with_flip_has_162_views():
    assert spec_of(PAD_CROP, None).num_views == 162


def test_drawn_views_are_as_many_as_asked():
    spec = spec_of(RESIZED_CROP, 7)
    assert (spec.num_views, spec.exhaustive) == (7, False)


@pytest.mark.parametrize(
    "other",
    [
        spec_of(PAD_CROP, 10, seed=1),
        spec_of(PAD_CROP, 10, mixing=Mixing(mixup=1.0)),
        spec_of(PadCrop(kind="pad_crop", jitter=ColourJitter()), 10),
        spec_of(PadCrop(kind="pad_crop", padding=3), 10),
        spec_of(PadCrop(kind="pad_crop", flip=False), 10),
        spec_of(RESIZED_CROP, 10),
        spec_of(PAD_CROP, None),
        replace(spec_of(PAD_CROP, 10), image_size=28),
    ],
)
def test_other_views_have_another_canonical_text(other):
    assert other.canonical() != spec_of(PAD_CROP, 10).canonical()


def test_seed_without_effect_is_not_in_the_canonical_text():
    assert spec_of(PAD_CROP, None, seed=1).canonical() == spec_of(PAD_CROP, None, seed=2).canonical()


def test_more_views_leave_the_canonical_text_and_the_views_as_they_are():
    few, many = spec_of(PAD_CROP, 10), spec_of(PAD_CROP, 11)
    assert few.canonical() == many.canonical()
    ids, views = np.arange(10), np.arange(10)
    for less, more in zip(pad_crop_parameters(few, ids, views), pad_crop_parameters(many, ids, views), strict=True):
        assert (less == more).all()


def test_canonical_text_of_a_known_spec_stays():
    assert spec_of(PAD_CROP, 10).canonical() == (
        '{"augment":{"flip":true,"jitter":null,"kind":"pad_crop","padding":4,"rand_augment":null},"exhaustive":false,'
        '"image_size":32,"mixing":null,"seed":0,"view_rule":1}'
    )


def test_deciding_views_needs_no_torch():
    names = (
        "views.sampling",
        "views.crops",
        "views.mixing",
        "views.colour",
        "training.schedule",
        "soft_labels.encoding.quantisation",
    )
    code = f"import sys, {', '.join(f'edpipe.{name}' for name in names)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Which view an epoch shows


@given(SEEDS, EPOCHS, sample_ids(), st.integers(1, 1000))
def test_view_is_one_of_the_views_and_depends_on_its_own_sample_only(seed, epoch, ids, num_views):
    views = view_of(seed, epoch, ids, num_views)
    assert views.min() >= 0
    assert views.max() < num_views
    assert views.tolist() == [int(view_of(seed, epoch, ids[i : i + 1], num_views)[0]) for i in range(len(ids))]


@given(SEEDS, sample_ids())
def test_epoch_of_each_sample_is_what_one_epoch_for_all_gives(seed, ids):
    epochs = np.arange(len(ids))
    views = view_of(seed, epochs, ids, 162)
    assert views.tolist() == [int(view_of(seed, e, ids, 162)[e]) for e in range(len(ids))]


@pytest.mark.parametrize("num_views", [2, 10, 162])
def test_views_are_shown_equally_often(num_views):
    over_samples = view_of(1, 0, np.arange(40_000), num_views)
    over_epochs = view_of(1, np.arange(40_000), np.full(40_000, 5), num_views)
    assert p_value_of_uniform(over_samples, num_views) > 1e-3
    assert p_value_of_uniform(over_epochs, num_views) > 1e-3


def test_known_views_stay():
    assert view_of(0, 0, np.arange(6), 162).tolist() == KNOWN_VIEWS


@pytest.mark.slow
@given(SEEDS, st.integers(0, 10**6), sample_ids(5), st.integers(1, 200))
def test_a_cycle_shows_every_view_of_every_sample_exactly_once(seed, cycle, ids, num_views):
    epochs = range(cycle * num_views, (cycle + 1) * num_views)
    shown = np.stack([view_of(seed, epoch, ids, num_views, "cycle") for epoch in epochs])
    assert (np.sort(shown, axis=0) == np.arange(num_views)[:, None]).all()


@given(SEEDS, sample_ids(), st.integers(1, 100_000), st.data())
def test_view_in_a_cycle_depends_on_its_own_sample_and_epoch_only(seed, ids, num_views, data):
    epochs = np.array([data.draw(EPOCHS) for _ in ids], dtype=np.int64)
    together = view_of(seed, epochs, ids, num_views, "cycle")
    alone = [view_of(seed, int(e), ids[i : i + 1], num_views, "cycle") for i, e in enumerate(epochs)]
    assert together.tolist() == [int(view[0]) for view in alone]


@pytest.mark.parametrize("num_views", [2, 3, 10, 162, 100_000])
def test_views_in_a_cycle_are_unbiased_at_every_place(num_views):
    for epoch in (0, 1, num_views - 1, num_views, 3 * num_views + 1):
        num_runs = min(num_views, 250)  # of equally many views
        runs = view_of(4, epoch, np.arange(40_000), num_views, "cycle") * num_runs // num_views
        assert p_value_of_uniform(runs, num_runs) > 1e-3


def test_samples_cycles_and_seeds_have_orders_of_their_own():
    epochs = np.arange(162)
    orders = [
        view_of(seed, epochs + 162 * cycle, np.full(162, sample_id), 162, "cycle").tobytes()
        for seed in (0, 1, 2**32)
        for cycle in range(5)
        for sample_id in range(5)
    ]
    # 162 × 54 orders to draw from: 75 draws repeat one with a chance of 27 %, two hardly ever.
    assert len(set(orders)) >= 72


def test_both_numbers_of_an_order_are_drawn_evenly():
    first, second = (view_of(0, epoch, np.arange(40_000), 9, "cycle") for epoch in (0, 1))
    steps = (second - first) % 9
    assert sorted(set(steps.tolist())) == [1, 2, 4, 5, 7, 8]
    place = np.searchsorted([1, 2, 4, 5, 7, 8], steps)
    assert p_value_of_uniform(place * 9 + first, 54) > 1e-3


def test_known_cycle_stays():
    shown = [view_of(0, epoch, np.arange(3), 4, "cycle").tolist() for epoch in range(8)]
    assert shown == KNOWN_CYCLE


@pytest.mark.parametrize("num_views", [0, 100_001])
def test_cycle_refuses_other_numbers_of_views(num_views):
    with pytest.raises(ValueError, match=rf"num_views must be in \[1, 100000\] for choice: cycle, got {num_views}"):
        view_of(0, 0, np.arange(3), num_views, "cycle")


# Order


@given(SEEDS, EPOCHS, sample_ids(), st.randoms())
def test_order_holds_each_sample_once_whatever_order_they_are_given_in(seed, epoch, ids, random):
    order = sample_order(seed, epoch, ids)
    assert sorted(order.tolist()) == sorted(ids.tolist())
    shuffled = ids.copy()
    random.shuffle(shuffled)
    assert (sample_order(seed, epoch, shuffled) == order).all()


@given(SEEDS, EPOCHS, sample_ids(), st.data())
def test_leaving_samples_out_keeps_the_order_of_the_others(seed, epoch, ids, data):
    kept = np.array([i for i in ids if data.draw(st.booleans())], dtype=np.int64)
    order = sample_order(seed, epoch, ids)
    assert (sample_order(seed, epoch, kept) == order[np.isin(order, kept)]).all()


@pytest.mark.slow
def test_every_sample_comes_at_every_place_equally_often():
    orders = np.array([sample_order(3, epoch, np.arange(8)) for epoch in range(2000)])
    for place in range(8):
        assert p_value_of_uniform(orders[:, place], 8) > 1e-3


def test_epochs_and_seeds_have_orders_of_their_own():
    ids = np.arange(100)
    orders = [sample_order(seed, epoch, ids).tobytes() for seed in (0, 1, 2**32) for epoch in range(3)]
    assert len(set(orders)) == 9


def test_known_order_stays():
    assert sample_order(0, 0, np.arange(8)).tolist() == KNOWN_ORDER


# Pad and crop


@given(pad_crops(), st.integers(0, 2**40))
def test_exhaustive_views_show_every_crop_exactly_once(augment, sample_id):
    spec = spec_of(augment, None)
    views = np.arange(spec.num_views)
    dy, dx, flip = pad_crop_parameters(spec, np.full(spec.num_views, sample_id), views)
    span = range(2 * augment.padding + 1)
    expected = {(y, x, f) for y in span for x in span for f in ((False, True) if augment.flip else (False,))}
    assert set(zip(dy.tolist(), dx.tolist(), flip.tolist(), strict=True)) == expected
    assert len(expected) == spec.num_views


def test_middle_exhaustive_view_is_the_image_itself():
    dy, dx, flip = pad_crop_parameters(spec_of(PAD_CROP, None), np.array([0]), np.array([40]))
    assert (int(dy[0]), int(dx[0]), bool(flip[0])) == (4, 4, False)


@given(drawn_specs(pad_crops()), sample_ids(), st.data())
def test_drawn_crops_are_in_range_and_depend_on_their_own_sample_only(spec, ids, data):
    views = np.array([data.draw(st.integers(0, spec.num_views - 1)) for _ in ids])
    drawn = pad_crop_parameters(spec, ids, views)
    for offsets in drawn[:2]:
        assert offsets.min() >= 0
        assert offsets.max() <= 2 * spec.augment.padding
    assert spec.augment.flip or not drawn[2].any()
    for i in range(len(ids)):
        alone = pad_crop_parameters(spec, ids[i : i + 1], views[i : i + 1])
        assert [each[i] for each in drawn] == [each[0] for each in alone]


def test_drawn_crops_are_unbiased_together():
    dy, dx, flip = pad_crop_parameters(spec_of(PAD_CROP), np.arange(40_000), np.zeros(40_000, np.int64))
    assert p_value_of_uniform((dy * 9 + dx) * 2 + flip, 162) > 1e-3


def test_known_crops_stay():
    drawn = pad_crop_parameters(spec_of(PAD_CROP), np.arange(3), np.array([0, 1, 2]))
    assert [each.tolist() for each in drawn] == KNOWN_CROPS


# Resized crops


@given(drawn_specs(resized_crops()), st.integers(1, 400), st.integers(1, 400), st.integers(0, 99))
def test_boxes_are_inside_their_image(spec, height, width, first_view):
    views = np.minimum(np.arange(first_view, first_view + 16), spec.num_views - 1)
    sizes = np.full(16, height), np.full(16, width)
    top, left, box_height, box_width = resized_crop_boxes(spec, np.arange(16), views, *sizes)[0].T
    assert min(top.min(), left.min()) >= 0
    assert min(box_height.min(), box_width.min()) >= 1
    assert (top + box_height).max() <= height
    assert (left + box_width).max() <= width


@given(drawn_specs(resized_crops()), st.integers(100, 400), st.integers(100, 400))
def test_boxes_keep_the_promised_area_and_stretch(spec, height, width):
    sizes = np.full(64, height), np.full(64, width)
    boxes, _ = resized_crop_boxes(spec, np.arange(64), np.zeros(64, np.int64), *sizes)
    box_height, box_width = boxes[:, 2].astype(float), boxes[:, 3].astype(float)
    # A side is off by half a pixel at most.
    assert ((box_height + 0.5) * (box_width + 0.5) >= spec.augment.min_area * height * width).all()
    longer, shorter = np.maximum(box_height, box_width), np.minimum(box_height, box_width)
    allowed = max(spec.augment.max_stretch, height / width, width / height)
    assert ((longer - 0.5) / (shorter + 0.5) <= allowed + 1e-9).all()


def test_boxes_are_unbiased():
    spec, n = spec_of(RESIZED_CROP), 40_000
    boxes, flips = resized_crop_boxes(spec, np.arange(n), np.zeros(n, np.int64), np.full(n, 2000), np.full(n, 2000))
    top, left, height, width = boxes.T
    area = height * width / 2000**2
    assert p_value_of_uniform(np.minimum(((area - 0.25) / 0.75 * 10).astype(int), 9), 10) > 1e-3
    assert abs((height > width).mean() - 0.5) < 0.02
    for corner, side in ((top, height), (left, width)):
        # Where there are many places to choose from, so that tenths of them are nearly equal.
        corner, num_places = corner[side <= 1200], 2001 - side[side <= 1200]
        assert p_value_of_uniform(corner * 10 // num_places, 10) > 1e-3
    assert abs(flips.mean() - 0.5) < 0.01


def test_whole_image_is_the_only_box_where_area_must_be_whole():
    spec = spec_of(ResizedCrop(kind="resized_crop", min_area=1.0))
    boxes, _ = resized_crop_boxes(spec, np.arange(9), np.arange(9), np.full(9, 33), np.full(9, 70))
    assert (boxes == [0, 0, 33, 70]).all()


def test_boxes_without_flip_are_never_mirrored():
    spec = spec_of(ResizedCrop(kind="resized_crop", flip=False))
    assert not resized_crop_boxes(spec, np.arange(99), np.arange(99), np.full(99, 50), np.full(99, 50))[1].any()


def test_known_boxes_stay():
    sizes = np.array([256, 300, 500]), np.array([256, 400, 333])
    boxes, _ = resized_crop_boxes(spec_of(RESIZED_CROP), np.arange(3), np.array([0, 1, 2]), *sizes)
    assert boxes.tolist() == KNOWN_BOXES


def test_no_samples_are_no_trouble():
    none = np.empty(0, np.int64)
    assert resized_crop_boxes(spec_of(RESIZED_CROP), none, none, none, none)[0].shape == (0, 4)
    assert len(pad_crop_parameters(spec_of(PAD_CROP), none, none)[0]) == 0
    assert len(view_of(0, 0, none, 5)) == len(sample_order(0, 0, none)) == 0


# Views over files


@given(st.integers(1, 1000), st.integers(1, 100))
def test_files_hold_each_view_once_and_more_views_leave_full_files_alone(num_views, per_file):
    files = view_ranges(num_views, per_file)
    assert [view for file in files for view in range(file.first, file.stop)] == list(range(num_views))
    assert all(file.num_views == per_file for file in files[:-1])
    assert view_ranges(num_views + 1, per_file)[: num_views // per_file] == files[: num_views // per_file]


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_range_is_read_from_its_own_text(first, num_views):
    views = ViewRange(first, first + num_views)
    assert ViewRange.parse(str(views)) == views


@pytest.mark.parametrize("text", ["", "7", "-7", "7-", "3-2", "0-7-9", "a-b", "0--1", "²-3"])
def test_text_that_is_no_range_is_refused(text):
    with pytest.raises(ValueError, match=f"views must be FIRST-LAST, such as 0-7, got '{text}'"):
        ViewRange.parse(text)


# Refusals


def test_views_of_the_other_kind_are_refused():
    one = np.array([0])
    with pytest.raises(ValueError, match="views of kind resized_crop have no pad_crop parameters"):
        pad_crop_parameters(spec_of(RESIZED_CROP), one, one)
    with pytest.raises(ValueError, match="views of kind pad_crop have no resized_crop boxes"):
        resized_crop_boxes(spec_of(PAD_CROP), one, one, one + 9, one + 9)


@pytest.mark.parametrize("view", [-1, 162])
def test_view_that_does_not_exist_is_refused(view):
    with pytest.raises(ValueError, match=rf"views must be in \[0, 162\), got {min(view, 0)} to {max(view, 0)}"):
        pad_crop_parameters(spec_of(PAD_CROP, None), np.array([0, 1]), np.array([0, view]))


def test_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match="images must have at least 1 pixel a side, got 0"):
        resized_crop_boxes(spec_of(RESIZED_CROP), np.array([0]), np.array([0]), np.array([0]), np.array([5]))


def test_views_that_cannot_be_counted_are_refused():
    space = ViewSpace.model_construct(augment=RESIZED_CROP, mixing=None, exhaustive=True, seed=0)
    knobs = StudentViews.model_construct(space=space, number=None, choice="random")
    with pytest.raises(ValueError, match="views of kind resized_crop cannot be counted"):
        ViewSpec.from_knobs(knobs, 32)
