"""Batches of views: the same pixels however samples are put together, and mixed as told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import coloured_crops, drawn_specs, mixings, pad_crops, views_of

from edpipe.datasets.dataset_file import Dataset
from edpipe.params.soft_labels import ColourJitter, Mixing, PadCrop, RandAugment, ResizedCrop
from edpipe.views import batches as module
from edpipe.views.batches import CANARY_SAMPLES, ViewBatches
from edpipe.views.colour_pixels import apply_jitter, apply_rand_augment
from edpipe.views.crops import pad_crop_parameters
from edpipe.views.pixels import apply_pad_crop
from edpipe.views.spec import ViewSpec

torch.set_num_threads(1)
CPU = torch.device("cpu")
DEVICES = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]
SIDE = 6
NUM_SAMPLES = 40


def dataset_of(channels=3, num_samples=NUM_SAMPLES, side=SIDE):
    """Noise, in memory."""
    none = np.zeros(num_samples)
    pixels = np.random.default_rng(channels).integers(0, 256, (num_samples, channels, side, side), dtype=np.uint8)
    return Dataset(
        name="noise",
        class_names=("a", "b"),
        encoding="raw",
        image_size=side,
        channels=channels,
        stored_side=side,
        path=Path("noise.h5"),
        digest="0" * 16,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        labels=none.astype(np.int32),
        splits=none.astype(np.uint8),
        sample_keys=none.astype(np.uint64),
        sources=none.astype(object),
        _pixels=pixels,
        _offsets=None,
        _stored_keys=none.astype(np.uint64),
        _pixels_start=0,
        _is_checked=np.ones(num_samples, np.bool_),  # there is no file
    )


DATASETS = {channels: dataset_of(channels) for channels in (1, 3)}
POOLS = np.arange(0, 30), np.arange(39, 29, -1)


def batches_of(spec, channels=3, device=CPU, pools=POOLS):
    return ViewBatches(DATASETS[channels], spec, device, pools)


def spec_of(augment=None, mixing=None, num_views=100, seed=0):
    return ViewSpec(augment or PadCrop(kind="pad_crop", padding=2), num_views, False, seed, SIDE, mixing)


def specs(**fields):
    return drawn_specs(coloured_crops(), SIDE, **fields)


# Independence


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(specs(mixing=st.none() | mixings()), st.sampled_from([1, 3]), st.data())
def test_pixels_depend_on_their_own_sample_and_view_only(spec, channels, data):
    batches = batches_of(spec, channels)
    ids = np.array(data.draw(st.lists(st.integers(0, NUM_SAMPLES - 1), min_size=1, max_size=6)), dtype=np.int64)
    views = data.draw(views_of(spec, len(ids)))
    together = batches.views(ids, views)
    assert together.shape == (len(ids), channels, SIDE, SIDE)
    assert together.dtype == torch.uint8
    for i in range(len(ids)):
        assert torch.equal(batches.views(ids[i : i + 1], views[i : i + 1])[0], together[i])
    order = np.array(data.draw(st.permutations(range(len(ids)))))
    assert torch.equal(batches.views(ids[order], views[order]), together[torch.from_numpy(order)])
    for device in DEVICES[1:]:
        assert torch.equal(batches_of(spec, channels, device).views(ids, views).cpu(), together)


@settings(max_examples=30)
@given(drawn_specs(pad_crops(), SIDE), st.data())
def test_crops_from_images_that_lie_on_the_device_are_the_same(spec, data):
    ids = np.array(data.draw(st.lists(st.integers(0, NUM_SAMPLES - 1), min_size=1, max_size=9)), dtype=np.int64)
    views = data.draw(views_of(spec, len(ids)))
    for device in DEVICES:
        batches = batches_of(spec, device=device)
        images = torch.from_numpy(batches.dataset.images(np.arange(NUM_SAMPLES))).to(device)
        there = batches._pad_crops_there(ids, views, images)
        assert torch.equal(there.cpu(), batches_of(spec).views(ids, views))


def test_images_are_kept_on_a_device_that_is_no_cpu_and_holds_them(monkeypatch):
    assert batches_of(spec_of())._resident is None
    # torch's device without data stands for a GPU.
    kept = ViewBatches(DATASETS[3], spec_of(), torch.device("meta"))._resident
    assert kept.shape == (NUM_SAMPLES, 3, SIDE, SIDE)
    assert kept.device.type == "meta"
    monkeypatch.setattr(module, "RESIDENT_BYTES", NUM_SAMPLES * 3 * SIDE**2 - 1)
    assert ViewBatches(DATASETS[3], spec_of(), torch.device("meta"))._resident is None


@pytest.mark.parametrize(("threads", "on_cpu", "on_gpu"), [(1, 0, 1), (2, 1, 2), (8, 1, 8)])
def test_views_that_take_time_are_made_ahead_where_a_thread_is_left_for_it(monkeypatch, threads, on_cpu, on_gpu):
    monkeypatch.setenv("EDPIPE_THREADS", str(threads))
    spec = spec_of(ResizedCrop(kind="resized_crop"))
    assert batches_of(spec).num_workers == on_cpu
    assert batches_of(spec, device=torch.device("meta")).num_workers == on_gpu


def test_shifts_of_raw_images_are_made_ahead_only_to_be_sent_to_a_gpu(monkeypatch):
    assert batches_of(spec_of()).num_workers == 0
    assert batches_of(spec_of(), device=torch.device("meta")).num_workers == 0  # all images lie there
    monkeypatch.setattr(module, "RESIDENT_BYTES", 0)
    assert batches_of(spec_of(), device=torch.device("meta")).num_workers == 1


@pytest.mark.parametrize("part", [1, 7, NUM_SAMPLES, NUM_SAMPLES + 1])
def test_images_sent_to_a_device_in_parts_are_all_there(monkeypatch, part):
    monkeypatch.setattr(module, "_UPLOAD_IMAGES", part)
    assert np.array_equal(module._upload(DATASETS[3], CPU).numpy(), DATASETS[3]._pixels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_plain_images_are_the_same_on_a_gpu():
    ids = np.array([5, 0, 5, 39])
    there = ViewBatches(DATASETS[3], spec_of(), torch.device("cuda"))
    assert torch.equal(there.plain(ids).cpu(), batches_of(spec_of()).plain(ids))


# What is done, in which order


def test_views_without_colour_and_mixing_are_the_crops_of_the_spec():
    spec, ids, views = spec_of(), np.arange(NUM_SAMPLES), np.arange(NUM_SAMPLES)
    images = torch.from_numpy(DATASETS[3].images(ids))
    expected = apply_pad_crop(images, *pad_crop_parameters(spec, ids, views), padding=2)
    assert torch.equal(batches_of(spec, pools=()).views(ids, views), expected)


@pytest.mark.parametrize("kind", [PadCrop, ResizedCrop])
def test_colour_comes_after_the_crop_jitter_first(kind):
    name = "pad_crop" if kind is PadCrop else "resized_crop"
    jitter, rand_augment = ColourJitter(hue=0.2), RandAugment(magnitude=20)
    ids, views = np.arange(20), np.arange(20)
    crops = batches_of(spec_of(kind(kind=name))).views(ids, views)
    expected = []
    spec = spec_of(kind(kind=name, jitter=jitter, rand_augment=rand_augment))
    jitters = zip(*module.jitter_parameters(spec, ids, views), strict=True)
    operations = zip(*module.rand_augment_parameters(spec, ids, views), strict=True)
    for crop, jittered, augmented in zip(crops, jitters, operations, strict=True):
        image = apply_jitter(crop, *(each.tolist() for each in jittered))
        expected.append(apply_rand_augment(image, *(each.tolist() for each in augmented), 20))
    assert torch.equal(batches_of(spec).views(ids, views), torch.stack(expected))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(specs(mixing=mixings()), st.data())
def test_mixed_views_are_made_of_the_same_view_of_both_in_the_shares_told(spec, data):
    ids = np.array(data.draw(st.lists(st.integers(0, NUM_SAMPLES - 1), min_size=1, max_size=6)), dtype=np.int64)
    views = data.draw(views_of(spec, len(ids)))
    batches, unmixed = batches_of(spec), batches_of(replace(spec, mixing=None))
    mix = batches.mix(ids, views)
    own, partner = unmixed.views(ids, views), unmixed.views(mix.partner_ids, views)
    parameters = batches._mix_parameters(ids, views)
    for i, mixed in enumerate(batches.views(ids, views)):
        if parameters.boxes[i].any():
            is_foreign = torch.zeros(SIDE, SIDE, dtype=torch.bool)
            top, left, height, width = parameters.boxes[i].tolist()
            is_foreign[top : top + height, left : left + width] = True
            assert torch.equal(mixed, torch.where(is_foreign, partner[i], own[i]))
            assert mix.own_share[i] == pytest.approx(1 - is_foreign.float().mean().item(), abs=1e-6)
        else:
            share = float(mix.own_share[i])
            expected = share * own[i].double() + (1 - share) * partner[i].double()
            assert (mixed - expected).abs().max() <= 0.5
            assert (mix.partner_ids[i] == ids[i]) == (share == 1)


def test_mixing_is_not_computed_where_it_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(module, "mix_parameters", None)
    one = np.array([3])
    assert len(batches_of(spec_of(), pools=()).views(one, one)) == 1


@settings(max_examples=30, deadline=None)
@given(specs(mixing=st.none() | mixings()) | st.just(spec_of(ResizedCrop(kind="resized_crop"))))
def test_no_samples_are_no_pixels(spec):
    none = np.empty(0, dtype=np.int64)
    assert batches_of(spec).views(none, none).shape == (0, 3, SIDE, SIDE)


def test_plain_images_are_never_changed():
    augment = PadCrop(kind="pad_crop", jitter=ColourJitter(), rand_augment=RandAugment())
    batches = batches_of(spec_of(augment, Mixing(mixup=1.0)), pools=())
    ids = np.array([7, 3])
    assert (batches.plain(ids).numpy() == DATASETS[3].images(ids)).all()


# Canary


def test_canary_is_spread_over_the_samples_and_views_and_differs_with_any_pixel():
    spec, dataset = spec_of(), dataset_of()
    ids = np.arange(NUM_SAMPLES)
    canary = ViewBatches(dataset, spec, CPU).canary(ids)
    rows = np.linspace(0, NUM_SAMPLES - 1, CANARY_SAMPLES).astype(int)
    assert rows[-1] == NUM_SAMPLES - 1
    for sample_id in range(NUM_SAMPLES):
        dataset._pixels[sample_id] ^= 1
        assert (ViewBatches(dataset, spec, CPU).canary(ids) != canary) == (sample_id in rows)
        dataset._pixels[sample_id] ^= 1
    assert ViewBatches(dataset, spec, CPU).canary(ids) == canary


def test_canary_of_a_file_is_of_its_own_views():
    batches = batches_of(spec_of(num_views=100))
    ids = np.arange(NUM_SAMPLES)
    canaries = [batches.canary(ids), batches.canary(ids, 0, 3), batches.canary(ids, 3, 3), batches.canary(ids, 99)]
    assert len(set(canaries)) == 4
    # More views leave the canary of a range as it is; so do all views from a first one, if they are the same.
    fewer = batches_of(spec_of(num_views=6))
    assert fewer.canary(ids, 3, 3) == fewer.canary(ids, 3) == canaries[2]


def test_canary_asks_for_views_first_and_so_on_and_round_again(monkeypatch):
    batches, asked = batches_of(spec_of()), []
    plain = batches.views
    monkeypatch.setattr(batches, "views", lambda ids, views: asked.append((ids, views)) or plain(ids, views))
    batches.canary(np.arange(10, 21), 5, 3)
    assert [each.tolist() for each in asked[0]] == [[10, 11, 12, 14, 15, 17, 18, 20], [5, 6, 7, 5, 6, 7, 5, 6]]
    batches.canary(np.array([4, 2]), 97)
    assert [each.tolist() for each in asked[1]] == [[4, 2], [97, 98]]


def test_canary_of_mixed_views_sees_the_mixing():
    ids = np.arange(30)
    assert batches_of(spec_of(mixing=Mixing(mixup=1.0))).canary(ids) != batches_of(spec_of()).canary(ids)


@pytest.mark.parametrize(
    ("num_samples", "first_view", "num_views", "text"),
    [
        (0, 0, 5, "got 0 samples, and 5 views from 0"),
        (3, 0, 0, "got 3 samples, and 0 views from 0"),
        (3, 100, None, "got 3 samples, and 0 views from 100"),
        (3, -1, 5, "got 3 samples, and 5 views from -1"),
        (3, 98, 3, "got 3 samples, and 3 views from 98"),
    ],
)
def test_canary_of_nothing_is_refused(num_samples, first_view, num_views, text):
    with pytest.raises(ValueError, match=rf"needs at least 1 sample, and views within \[0, 100\); {text}"):
        batches_of(spec_of()).canary(np.arange(num_samples), first_view, num_views)


# Refusals


def test_mixed_sample_in_no_pool_is_refused_by_its_id():
    batches = batches_of(spec_of(mixing=Mixing(cutmix=1.0)), pools=(np.array([1, 2]),))
    with pytest.raises(ValueError, match="sample 9 is in no pool of partners"):
        batches.views(np.array([1, 9]), np.array([0, 0]))


def test_mix_of_views_that_are_not_mixed_is_refused():
    with pytest.raises(ValueError, match="these views are not mixed"):
        batches_of(spec_of()).mix(np.array([1]), np.array([0]))


@pytest.mark.parametrize("sample_id", [-1, NUM_SAMPLES])
def test_sample_that_does_not_exist_is_refused_wherever_the_images_lie(sample_id):
    batches, images = batches_of(spec_of()), torch.zeros(NUM_SAMPLES, 3, SIDE, SIDE, dtype=torch.uint8)
    one, view = np.array([sample_id]), np.array([0])
    for ask in (lambda: batches.views(one, view), lambda: batches._pad_crops_there(one, view, images)):
        with pytest.raises(ValueError, match=f"sample ids must be from 0 to 39, got {sample_id}|sample id must be in"):
            ask()
    with pytest.raises(ValueError, match=r"views must be in \[0, 100\), got 100 to 100"):
        batches._pad_crops_there(np.array([1]), np.array([100]), images)
