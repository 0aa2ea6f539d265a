"""Pixels of views, against slow and obvious oracles."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edpipe.views.pixels import (
    apply_cutmix,
    apply_mixup,
    apply_pad_crop,
    apply_resized_crop,
    gather_pad_crop,
    normalise,
)

torch.set_num_threads(1)
DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
ON_EACH_DEVICE = pytest.mark.parametrize("device", DEVICES, ids=str)


def images_of(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def pad_crop_oracle(image, dy, dx, flip, padding):
    height, width = image.shape[1:]
    crop = F.pad(image, (padding,) * 4)[:, dy : dy + height, dx : dx + width]
    return crop.flip(-1) if flip else crop


@settings(max_examples=40)
@given(
    st.integers(0, 99),
    st.integers(0, 6),
    st.sampled_from([1, 3]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 4),
)
def test_pad_crop_is_what_padding_and_slicing_each_image_gives(seed, num_samples, channels, height, width, padding):
    images, rng = images_of(seed, num_samples, channels, height, width), np.random.default_rng(seed)
    dy, dx = (rng.integers(0, 2 * padding + 1, num_samples) for _ in range(2))
    flip = rng.random(num_samples) < 0.5
    crops = apply_pad_crop(images, dy, dx, flip, padding)
    assert crops.shape == images.shape
    for i in range(num_samples):
        assert torch.equal(crops[i], pad_crop_oracle(images[i], int(dy[i]), int(dx[i]), bool(flip[i]), padding))
    for device in DEVICES:
        assert torch.equal(apply_pad_crop(images.to(device), dy, dx, flip, padding).cpu(), crops)
        there = [torch.from_numpy(each).to(device) for each in (dy, dx, flip)]
        assert torch.equal(gather_pad_crop(images.to(device), *there, padding).cpu(), crops)


def test_pad_crop_in_the_middle_is_the_image_itself():
    images = images_of(0, 2, 3, 8, 8)
    middle = np.array([4, 4])
    assert torch.equal(apply_pad_crop(images, middle, middle, np.array([False, False]), 4), images)


def test_pad_crop_takes_images_of_any_memory_layout():
    images = images_of(0, 2, 3, 8, 8)
    parameters = np.array([0, 8]), np.array([3, 5]), np.array([True, False])
    strided = images.to(memory_format=torch.channels_last)
    assert torch.equal(apply_pad_crop(strided, *parameters, padding=4), apply_pad_crop(images, *parameters, padding=4))


def test_pad_crop_leaves_the_images_it_is_given_alone():
    images = images_of(0, 3, 3, 8, 8)
    before = images.clone()
    apply_pad_crop(images, np.array([0, 4, 8]), np.array([8, 4, 0]), np.array([True, True, False]), 4)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("name", "dy", "dx"), [("dy", 9, 0), ("dx", 0, -1)])
def test_pad_crop_refuses_offsets_outside_the_padded_image(name, dy, dx):
    value = dy or dx
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 8\], got {value} to {value}"):
        apply_pad_crop(images_of(0, 1, 3, 8, 8), np.array([dy]), np.array([dx]), np.array([False]), 4)


def triangle_oracle(line, size):
    """Antialiased bilinear resizing of one line, in float64: a triangle as wide as the step, at least one pixel."""
    step = len(line) / size
    reach = max(step, 1.0)
    centres = (np.arange(size) + 0.5) * step
    weights = np.maximum(0, 1 - np.abs(np.arange(len(line)) + 0.5 - centres[:, None]) / reach)
    return (weights / weights.sum(axis=1, keepdims=True)) @ line


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 12), st.integers(1, 10), st.booleans())
def test_resized_crop_is_an_antialiased_triangle_filter(seed, height, width, image_size, flip):
    image = images_of(seed, 2, 15, 14)
    resized = apply_resized_crop(image, np.array([2, 1, height, width]), flip, image_size).numpy()
    for channel in range(2):
        crop = image.numpy()[channel, 2 : 2 + height, 1 : 1 + width].astype(float)
        rows = np.apply_along_axis(triangle_oracle, 1, crop, image_size)
        expected = np.apply_along_axis(triangle_oracle, 0, rows, image_size)
        expected = expected[:, ::-1] if flip else expected
        # Rounding to whole values costs half in each direction, and the weights are rounded, too.
        assert np.abs(resized[channel] - expected).max() <= 1.05


@settings(max_examples=20)
@given(st.integers(0, 99), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40), st.integers(1, 30))
def test_resized_crop_does_not_depend_on_the_order_in_memory(seed, channels, height, width, image_size):
    image = images_of(seed, channels, 50, 50)
    box = np.array([3, 5, height, width])
    together = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    expected = apply_resized_crop(image, box, False, image_size)
    assert torch.equal(apply_resized_crop(together, box, False, image_size), expected)


CAPABILITIES = """
import sys; import numpy as np; import torch; from edpipe.views.pixels import apply_resized_crop
torch.set_num_threads(1)
rng = np.random.default_rng(0)
for side in (5, 60, 301):
    image = torch.from_numpy(rng.integers(0, 256, (3, side, side + 3), dtype=np.uint8))
    sys.stdout.buffer.write(apply_resized_crop(image, np.array([1, 2, side - 1, side]), True, 64).contiguous().numpy())
"""


@pytest.mark.slow
def test_resized_crop_is_the_same_on_every_kind_of_processor():
    made = [
        subprocess.run(
            [sys.executable, "-c", CAPABILITIES],
            env=os.environ | {"ATEN_CPU_CAPABILITY": kind, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for kind in ("default", "avx2", "avx512")
    ]
    assert len(made[0]) == 3 * 3 * 64 * 64
    assert made[0] == made[1] == made[2]


def test_resized_crop_at_its_own_size_keeps_pixels():
    image = images_of(0, 3, 9, 9)
    assert torch.equal(apply_resized_crop(image, np.array([2, 1, 6, 6]), False, 6), image[:, 2:8, 1:7])


@pytest.mark.parametrize("box", [[0, 0, 9, 3], [0, 6, 1, 3], [-1, 0, 3, 3], [0, 0, 0, 3]])
def test_resized_crop_refuses_boxes_that_are_not_inside(box):
    with pytest.raises(ValueError, match=re.escape(f"box {box} is not inside an image of 8 by 8 pixels")):
        apply_resized_crop(images_of(0, 3, 8, 8), np.array(box), False, 4)


@ON_EACH_DEVICE
@given(st.integers(0, 99), st.lists(st.integers(0, 256), min_size=1, max_size=5))
def test_mixup_is_the_weighted_mean_rounded_half_up(device, seed, parts):
    own, partner = images_of(seed, len(parts), 3, 4, 5), images_of(seed + 1, len(parts), 3, 4, 5)
    mixed = apply_mixup(own.to(device), partner.to(device), np.array(parts))
    share = np.array(parts).reshape(-1, 1, 1, 1) / 256
    # 256ths of whole numbers are exact in float64.
    expected = np.floor(share * own.numpy() + (1 - share) * partner.numpy() + 0.5)
    assert (mixed.cpu().numpy() == expected).all()


def test_mixup_of_known_pixels():
    own, partner = torch.tensor([[[[255, 0, 10, 1]]]] * 3).byte(), torch.tensor([[[[255, 255, 20, 0]]]] * 3).byte()
    mixed = apply_mixup(own, partner, np.array([0, 128, 256]))
    assert mixed[:, 0, 0].tolist() == [[255, 255, 20, 0], [255, 128, 15, 1], [255, 0, 10, 1]]


@pytest.mark.parametrize("parts", [-1, 257])
def test_mixup_refuses_other_weights(parts):
    images = images_of(0, 1, 1, 2, 2)
    with pytest.raises(ValueError, match=rf"own_parts must be in \[0, 256\], got {parts} to {parts}"):
        apply_mixup(images, images, np.array([parts]))


@ON_EACH_DEVICE
@given(st.integers(0, 99), st.integers(0, 4))
def test_cutmix_is_slicing_each_image(device, seed, num_samples):
    own, partner = images_of(seed, num_samples, 3, 9, 7), images_of(seed + 1, num_samples, 3, 9, 7)
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 8, (num_samples, 2))
    boxes = np.concatenate([corners, rng.integers(0, 10 - corners.max(initial=0), (num_samples, 2))], axis=1)
    mixed = apply_cutmix(own.to(device), partner.to(device), boxes).cpu()
    for image, other, (top, left, height, width), found in zip(own, partner, boxes, mixed, strict=True):
        expected = image.clone()
        inside = slice(top, top + height), slice(left, left + width)
        expected[:, *inside] = other[:, *inside]
        assert torch.equal(found, expected)


@given(st.integers(0, 99), st.sampled_from([1, 3]))
def test_normalise_is_the_formula(seed, channels):
    images, rng = images_of(seed, 2, channels, 4, 5), np.random.default_rng(seed)
    mean, std = tuple(rng.uniform(0, 1, channels).tolist()), tuple(rng.uniform(0.1, 1, channels).tolist())
    axes = (1, -1, 1, 1)
    expected = (images.numpy() / 255 - np.reshape(mean, axes)) / np.reshape(std, axes)
    normalised = normalise(images, mean, std)
    np.testing.assert_allclose(normalised.numpy(), expected, atol=5e-6)
    assert normalised.is_contiguous(memory_format=torch.channels_last)


@ON_EACH_DEVICE
def test_normalise_gives_the_same_bits_for_any_memory_layout(device):
    images = images_of(0, 4, 3, 6, 5).to(device)
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    strided = normalise(images.to(memory_format=torch.channels_last), mean, std)
    assert torch.equal(strided, normalise(images, mean, std))
    assert strided.is_contiguous(memory_format=torch.channels_last)
    # Each value is rounded twice, after the product and after the sum, wherever it lies.
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).reshape(3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).reshape(3, 1, 1)
    product = images.float() * scale
    assert torch.equal(strided, product + shift)


def test_normalise_refuses_numbers_that_do_not_fit():
    with pytest.raises(ValueError, match="3 channels need as many means and stds, got 3 and 1"):
        normalise(images_of(0, 1, 3, 2, 2), (0.5, 0.5, 0.5), (0.5,))
    with pytest.raises(ValueError, match=r"std must be > 0 in every channel, got \(0.0,\)"):
        normalise(images_of(0, 1, 1, 2, 2), (0.5,), (0.0,))
