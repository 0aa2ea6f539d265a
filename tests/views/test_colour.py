"""Colour jitter and RandAugment: what is drawn is in range and unbiased; pixels are torchvision's own."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import chdtrc
from strategies import drawn_specs, jitters, rand_augments, sample_ids, views_of
from torchvision.transforms.v2 import RandAugment as OutsideRandAugment

from edpipe.params.soft_labels import ColourJitter, PadCrop, RandAugment
from edpipe.views.colour import Change, Operation, jitter_parameters, rand_augment_parameters
from edpipe.views.colour_pixels import apply_jitter, apply_rand_augment, posterize_bits, solarize_threshold, translation
from edpipe.views.spec import ViewSpec

torch.set_num_threads(1)
MANY = np.arange(30_000)
NO_VIEW = np.zeros(30_000, np.int64)
# What files made with VIEW_RULE 1 rely on.
KNOWN_ORDERS = [[3, 1, 0, 2], [2, 0, 3, 1], [1, 0, 2, 3]]
KNOWN_OPERATIONS = [[[0, 7], [11, 0], [12, 7]], [[-1, -1], [1, 1], [-1, 1]]]
NAMES = {
    Operation.AUTO_CONTRAST: "AutoContrast",
    Operation.SHEAR_X: "ShearX",
    Operation.SHEAR_Y: "ShearY",
    Operation.TRANSLATE_X: "TranslateX",
    Operation.TRANSLATE_Y: "TranslateY",
}


def spec_of(jitter=None, rand_augment=None, num_views=1000):
    augment = PadCrop(kind="pad_crop", jitter=jitter, rand_augment=rand_augment)
    return ViewSpec(augment, num_views, False, 0, 32)


def p_value_of_uniform(values, num_values):
    counts = np.bincount(values, minlength=num_values)
    expected = len(values) / num_values
    return chdtrc(num_values - 1, ((counts - expected) ** 2 / expected).sum())


def image_of(seed, channels=3, height=12, width=9):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8))


def jittered_specs():
    return drawn_specs(st.builds(PadCrop, kind=st.just("pad_crop"), jitter=jitters()))


def augmented_specs():
    return drawn_specs(st.builds(PadCrop, kind=st.just("pad_crop"), rand_augment=rand_augments()))


# What is drawn


@given(jittered_specs(), sample_ids(), st.data())
def test_jitter_is_in_range_and_depends_on_its_own_sample_only(spec, ids, data):
    views = data.draw(views_of(spec, len(ids)))
    amounts, orders = jitter_parameters(spec, ids, views)
    jitter = spec.augment.jitter
    widths = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    assert (np.abs(amounts - [1, 1, 1, 0]) <= widths + 1e-15).all()
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    for i in range(len(ids)):
        alone = jitter_parameters(spec, ids[i : i + 1], views[i : i + 1])
        assert (alone[0][0] == amounts[i]).all()
        assert (alone[1][0] == orders[i]).all()


@pytest.mark.slow
def test_jitter_is_unbiased():
    amounts, orders = jitter_parameters(spec_of(ColourJitter(brightness=0.5, hue=0.5)), MANY, NO_VIEW)
    for column, width in zip(Change, (0.5, 0.4, 0.4, 0.5), strict=True):
        middle = 0 if column == Change.HUE else 1
        tenths = np.floor((amounts[:, column] - middle + width) / (2 * width) * 10).astype(np.int64)
        assert p_value_of_uniform(np.clip(tenths, 0, 9), 10) > 1e-3
    number = {order: i for i, order in enumerate(permutations(range(4)))}
    assert p_value_of_uniform(np.array([number[tuple(order)] for order in orders.tolist()]), 24) > 1e-3


@pytest.mark.slow
@given(augmented_specs(), sample_ids(), st.data())
def test_operations_are_as_many_as_asked_and_depend_on_their_own_sample_only(spec, ids, data):
    views = data.draw(views_of(spec, len(ids)))
    operations, signs = rand_augment_parameters(spec, ids, views)
    assert operations.shape == signs.shape == (len(ids), spec.augment.rand_augment.num_ops)
    assert set(operations.ravel().tolist()) <= set(range(14))
    assert set(signs.ravel().tolist()) <= {-1, 1}
    for i in range(len(ids)):
        alone = rand_augment_parameters(spec, ids[i : i + 1], views[i : i + 1])
        assert (alone[0][0] == operations[i]).all()
        assert (alone[1][0] == signs[i]).all()


def test_operations_and_signs_are_unbiased_and_independent_at_every_place():
    operations, signs = rand_augment_parameters(spec_of(rand_augment=RandAugment(num_ops=8)), MANY, NO_VIEW)
    together = operations * 2 + (signs > 0)
    for place in range(8):
        assert p_value_of_uniform(together[:, place], 28) > 1e-3
        assert p_value_of_uniform(operations[:, place] * 14 + operations[:, (place + 1) % 8], 196) > 1e-3


def test_more_operations_leave_the_first_ones_as_they_are():
    few, many = (rand_augment_parameters(spec_of(None, RandAugment(num_ops=n)), MANY, NO_VIEW)[0] for n in (2, 7))
    assert (few == many[:, :2]).all()


def test_known_colours_stay():
    ids = np.arange(3)
    assert jitter_parameters(spec_of(ColourJitter()), ids, ids)[1].tolist() == KNOWN_ORDERS
    operations, signs = rand_augment_parameters(spec_of(None, RandAugment()), ids, ids)
    assert [operations.tolist(), signs.tolist()] == KNOWN_OPERATIONS


# Pixels


@settings(max_examples=40)
@given(st.integers(0, 99), st.permutations(range(4)), st.sampled_from([1, 3]))
def test_jitter_is_torchvisions_functions_in_the_order_drawn(seed, order, channels):
    image = image_of(seed, channels)
    amounts = [0.7, 1.3, 0.6, -0.2]
    expected = image
    for change in order:
        if change < 2 or channels == 3:
            outside = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)[change]
            expected = outside(expected, amounts[change])
    assert torch.equal(apply_jitter(image, amounts, order), expected)


def test_order_of_changes_matters_and_is_kept():
    orders = ([0, 1, 2, 3], [1, 0, 2, 3])
    one, other = (apply_jitter(image_of(0), [1.9, 0.3, 1.0, 0.0], order) for order in orders)
    assert not torch.equal(one, other)


@given(st.integers(0, 99), st.permutations(range(4)))
def test_jitter_by_nothing_is_the_image_itself(seed, order):
    image = image_of(seed)
    assert torch.equal(apply_jitter(image, [1.0, 1.0, 1.0, 0.0], order), image)


def test_brightness_of_known_pixels():
    image = torch.tensor([[[0, 10, 200]]], dtype=torch.uint8)
    assert apply_jitter(image, [1.5, 1.0, 1.0, 0.0], [0, 1, 2, 3]).tolist() == [[[0, 15, 255]]]
    assert apply_jitter(image, [0.5, 1.0, 1.0, 0.0], [0, 1, 2, 3]).tolist() == [[[0, 5, 100]]]


def outside_magnitude(operation, magnitude, height, width):
    """torchvision's own table for this operation."""
    table, is_signed = OutsideRandAugment()._AUGMENTATION_SPACE[name_of(operation)]
    values = table(31, height, width)
    return (0.0 if values is None else float(values[magnitude])), is_signed


def name_of(operation):
    return NAMES.get(operation, operation.name.capitalize())


@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.name)
@pytest.mark.parametrize("magnitude", [0, 1, 9, 17, 30])
@pytest.mark.parametrize("sign", [-1, 1])
def test_operations_are_those_of_torchvisions_rand_augment(operation, magnitude, sign):
    image = image_of(int(operation), 3, 33, 29)
    value, is_signed = outside_magnitude(operation, magnitude, 33, 29)
    outside = OutsideRandAugment()._apply_image_or_video_transform(
        image, name_of(operation), value * (sign if is_signed else 1), "nearest", {type(image): None}
    )
    found = apply_rand_augment(image, [int(operation)], [sign], magnitude)
    # torchvision's table is in float32: a pixel may be rounded otherwise, or taken from beside a tie.
    assert (found != outside).float().mean() < 0.01


@given(st.integers(0, 30))
def test_magnitudes_are_those_of_torchvision(magnitude):
    assert posterize_bits(magnitude) == outside_magnitude(Operation.POSTERIZE, magnitude, 9, 9)[0]
    value = outside_magnitude(Operation.SOLARIZE, magnitude, 9, 9)[0]
    assert solarize_threshold(magnitude) == pytest.approx(255 * value, abs=1e-4)
    for side in (8, 28, 32, 224):
        outside = outside_magnitude(Operation.TRANSLATE_X, magnitude, 9, side)[0]
        assert translation(magnitude, side) == math.floor(outside)


def test_operations_are_done_one_after_the_other():
    image = image_of(3)
    both = apply_rand_augment(image, [Operation.SOLARIZE, Operation.ROTATE], [1, -1], 20)
    solarized = apply_rand_augment(image, [Operation.SOLARIZE], [1], 20)
    assert torch.equal(both, apply_rand_augment(solarized, [Operation.ROTATE], [-1], 20))
    assert torch.equal(both, tv.rotate(tv.solarize(image, 85.0), -20.0))


def test_an_image_moves_the_way_its_sign_says():
    image = torch.arange(1, 11, dtype=torch.uint8).repeat(10, 1)[None]
    right = apply_rand_augment(image, [Operation.TRANSLATE_X], [1], 30)
    left = apply_rand_augment(image, [Operation.TRANSLATE_X], [-1], 30)
    assert right[0, 0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert left[0, 0].tolist() == [5, 6, 7, 8, 9, 10, 0, 0, 0, 0]


@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.name)
def test_grey_images_stay_grey_and_keep_their_shape(operation):
    image = image_of(1, 1)
    for magnitude in (0, 30):
        found = apply_rand_augment(image, [int(operation)], [1], magnitude)
        assert (found.shape, found.dtype) == (image.shape, torch.uint8)
    if operation in (Operation.IDENTITY, Operation.COLOR):
        assert torch.equal(found, image)


def test_images_handed_in_are_not_changed():
    image = image_of(2)
    before = image.clone()
    for operation in Operation:
        apply_rand_augment(image, [int(operation)], [1], 30)
    apply_jitter(image, [0.5, 0.5, 0.5, 0.3], [0, 1, 2, 3])
    assert torch.equal(image, before)


# Refusals


def test_spec_without_colour_is_refused():
    one = np.array([0])
    with pytest.raises(ValueError, match=r"these views have no colour jitter: augment.jitter is absent"):
        jitter_parameters(spec_of(), one, one)
    with pytest.raises(ValueError, match=r"these views have no RandAugment: augment.rand_augment is absent"):
        rand_augment_parameters(spec_of(), one, one)


def test_view_that_does_not_exist_is_refused():
    one = np.array([7])
    with pytest.raises(ValueError, match=r"views must be in \[0, 7\), got 7 to 7"):
        jitter_parameters(spec_of(ColourJitter(), None, 7), one, one)
    with pytest.raises(ValueError, match=r"views must be in \[0, 7\), got 7 to 7"):
        rand_augment_parameters(spec_of(None, RandAugment(), 7), one, one)


@pytest.mark.parametrize("magnitude", [-1, 31])
def test_magnitude_off_the_scale_is_refused(magnitude):
    with pytest.raises(ValueError, match=rf"magnitude must be in \[0, 30\], got {magnitude}"):
        apply_rand_augment(image_of(0), [0], [1], magnitude)


def test_operation_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="14 is not a valid Operation"):
        apply_rand_augment(image_of(0), [14], [1], 9)
