"""Views made smaller: against exact rational arithmetic, against torch, and whatever comes beside them."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from edpipe.views.resizing import WEIGHT_SUM, resize_weights, resized


@st.composite
def sizes(draw):
    full = draw(st.integers(1, 40))
    return full, draw(st.integers(1, full))


def noise(count, channels, full, seed=0):
    return torch.randint(0, 256, (count, channels, full, full), generator=torch.Generator().manual_seed(seed)).byte()


@given(sizes())
def test_weights_are_a_triangle_around_each_new_centre_in_parts_of_256(pair):
    full, side = pair
    weights = resize_weights(full, side)
    assert (weights.sum(axis=1) == WEIGHT_SUM).all()
    assert (weights >= 0).all()
    scale = Fraction(full, side)
    for i, row in enumerate(weights):
        centre = (i + Fraction(1, 2)) * scale
        exact = [max(Fraction(0), 1 - abs(j + Fraction(1, 2) - centre) / scale) for j in range(full)]
        shares = [WEIGHT_SUM * one / sum(exact) for one in exact]
        assert all(abs(int(got) - share) < 1 for got, share in zip(row, shares, strict=True))


def test_weights_by_hand():
    # Half the size: the triangle is 2 pixels wide to each side, (1, 3, 3, 1) / 8 in the middle, cut off at the edge.
    assert resize_weights(6, 3)[1].tolist() == [0, 32, 96, 96, 32, 0]
    assert resize_weights(4, 2)[0].tolist() == [110, 110, 36, 0]
    assert resize_weights(5, 5).tolist() == (256 * np.eye(5, dtype=int)).tolist()


@given(sizes(), st.integers(0, 255))
def test_an_even_image_stays_even(pair, value):
    full, side = pair
    image = torch.full((1, 1, full, full), value, dtype=torch.uint8)
    assert (resized(image, side) == value).all()


@pytest.mark.parametrize("side", [1, 7, 14, 20, 27])
def test_pixels_are_those_of_torch_within_rounding(side):
    images = noise(8, 3, 28)
    theirs = F.interpolate(images.float(), size=(side, side), mode="bilinear", antialias=True)
    assert (resized(images, side).float() - theirs).abs().max() < 2


@given(sizes(), st.integers(0, 2**16))
def test_pixels_are_exact_integer_arithmetic(pair, seed):
    full, side = pair
    images, weights = noise(2, 2, full, seed), resize_weights(full, side)
    down = (np.einsum("sy,ncyx->ncsx", weights, images.numpy().astype(np.int64)) + WEIGHT_SUM // 2) // WEIGHT_SUM
    both = (np.einsum("sx,ncyx->ncys", weights, down) + WEIGHT_SUM // 2) // WEIGHT_SUM
    assert np.array_equal(resized(images, side).numpy(), both)


@given(st.integers(1, 9))
def test_an_image_does_not_depend_on_its_batch(count):
    images = noise(9, 1, 28)
    assert torch.equal(resized(images[:count], 20), resized(images, 20)[:count])
    assert torch.equal(resized(images, 28), images)
    assert resized(images[:0], 14).shape == (0, 1, 14, 14)


@pytest.mark.parametrize(("shape", "side"), [((1, 1, 8, 8), 9), ((1, 1, 8, 6), 4), ((1, 1, 8, 8), 0)])
def test_what_cannot_be_made_smaller_is_refused(shape, side):
    with pytest.raises(ValueError, match="cannot be made smaller to a square of"):
        resized(torch.zeros(shape, dtype=torch.uint8), side)
