"""Bilinear resizing: torch's values, torch's gradient, and the same gradient at every repeat."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edpipe.models.resize import interpolation_matrix, resize_bilinear

torch.set_num_threads(1)
SIDES = st.integers(1, 9)


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(deadline=None)
@given(st.integers(0, 999), SIDES, SIDES, SIDES, SIDES)
def test_values_and_gradient_are_those_of_torch(seed, height, width, new_height, new_width):
    own, theirs = (draw(seed, 2, 3, height, width).requires_grad_() for _ in range(2))
    upstream = draw(seed + 1, 2, 3, new_height, new_width)
    resized = resize_bilinear(own, new_height, new_width)
    expected = F.interpolate(theirs, size=(new_height, new_width), mode="bilinear", align_corners=True)
    assert torch.equal(resized, expected)
    resized.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(own.grad, theirs.grad)


@given(SIDES, SIDES)
def test_the_matrix_makes_each_pixel_of_shares_that_add_up_to_1(size, new_size):
    matrix = interpolation_matrix(size, new_size, torch.empty(0, dtype=torch.float64))
    assert matrix.shape == (new_size, size)
    assert matrix.min() >= 0
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(new_size, dtype=torch.float64))


def test_the_gradient_is_the_numerical_one():
    assert torch.autograd.gradcheck(lambda x: resize_bilinear(x, 7, 6), draw(0, 1, 2, 4, 3).requires_grad_())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_and_any_layout_keep_the_type_of_the_gradient(layout):
    features = draw(0, 2, 3, 4, 4, dtype=torch.bfloat16).contiguous(memory_format=layout).requires_grad_()
    resize_bilinear(features, 7, 7).sum().backward()
    assert features.grad.dtype == torch.bfloat16
    share = torch.tensor([1.5, 2.0, 2.0, 1.5])  # of 7 pixels an inner one of 4 has 1 and twice 1/2
    torch.testing.assert_close(features.grad.float(), (share[:, None] * share).expand(2, 3, 4, 4))


def test_corners_stay_corners_by_hand():
    found = resize_bilinear(torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]]), 4, 3)
    assert found.squeeze().tolist() == [[0.0, 1.5, 3.0], [2.0, 3.5, 5.0], [4.0, 5.5, 7.0], [6.0, 7.5, 9.0]]
