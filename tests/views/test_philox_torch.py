"""The generator and the views' parameters on a torch device: the integers that NumPy gives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from philox_answers import KNOWN_ANSWERS, words
from strategies import EPOCHS, SEEDS, drawn_specs, pad_crops, sample_ids, views_of

from edpipe.params.soft_labels import PadCrop, ResizedCrop
from edpipe.views import crops, crops_torch, philox, philox_torch, sampling
from edpipe.views.philox import Purpose
from edpipe.views.spec import ViewSpec

DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
ON_EACH_DEVICE = pytest.mark.parametrize("device", DEVICES, ids=str)
EXTREMES = np.array([0, 1, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], dtype=np.int64)


@ON_EACH_DEVICE
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers_of_random123(device, counter, key, answer):
    low, high = words(key).tolist()
    found = philox_torch.philox4x32(torch.from_numpy(words(counter).astype(np.int64)).to(device), (low, high))
    assert found.tolist() == words(answer).tolist()


@ON_EACH_DEVICE
def test_thousands_of_counters_and_all_extremes_give_numpys_words(device):
    drawn = np.random.default_rng(0).integers(0, 2**32, (20_000, 4))
    counters = np.concatenate([np.stack(np.meshgrid(*[EXTREMES] * 4), axis=-1).reshape(-1, 4), drawn])
    for key in ((0, 0), (2**32 - 1, 2**32 - 1), (0x243F6A88, 0x85A308D3)):
        expected = philox.philox4x32(counters.astype(np.uint32), np.array(key, np.uint32))
        found = philox_torch.philox4x32(torch.from_numpy(counters).to(device), key)
        assert (found.cpu().numpy() == expected).all()


@ON_EACH_DEVICE
@given(SEEDS, st.sampled_from(Purpose), sample_ids(9, 2**63 - 1), EPOCHS)
def test_words_of_samples_are_numpys(device, seed, purpose, ids, number):
    expected = philox.random_words(seed, purpose, ids, number)
    there = torch.from_numpy(ids).to(device)
    assert philox_torch.random_words(seed, purpose, there, number).tolist() == expected.tolist()
    numbers = torch.full_like(there, number)
    assert philox_torch.random_words(seed, purpose, there, numbers).tolist() == expected.tolist()


@ON_EACH_DEVICE
@pytest.mark.parametrize("count", [1, 2, 9, 100_000, 2**31, 2**32 - 1, 2**32])
def test_choices_are_numpys(device, count):
    drawn = np.concatenate([EXTREMES, np.random.default_rng(1).integers(0, 2**32, 5_000)])
    expected = philox.choose_below(drawn.astype(np.uint32), count)
    assert philox_torch.choose_below(torch.from_numpy(drawn).to(device), count).tolist() == expected.tolist()


@pytest.mark.slow
@ON_EACH_DEVICE
@given(SEEDS, sample_ids(), st.integers(1, 100_000), st.sampled_from(["random", "cycle"]), st.data())
def test_views_of_epochs_are_numpys(device, seed, ids, num_views, choice, data):
    epochs = np.array([data.draw(EPOCHS) for _ in ids], dtype=np.int64)
    there, there_epochs = (torch.from_numpy(each).to(device) for each in (ids, epochs))
    found = crops_torch.view_of(seed, there_epochs, there, num_views, choice)
    assert found.tolist() == sampling.view_of(seed, epochs, ids, num_views, choice).tolist()
    found = crops_torch.view_of(seed, int(epochs[0]), there, num_views, choice)
    assert found.tolist() == sampling.view_of(seed, int(epochs[0]), ids, num_views, choice).tolist()


@ON_EACH_DEVICE
@given(drawn_specs(pad_crops()), sample_ids(), st.data())
def test_drawn_crops_are_numpys(device, spec, ids, data):
    numbers = data.draw(views_of(spec, len(ids)))
    same_parameters(device, spec, ids, numbers)


@ON_EACH_DEVICE
@given(pad_crops())
def test_counted_crops_are_numpys(device, augment):
    num_views = (2 * augment.padding + 1) ** 2 * (1 + augment.flip)
    numbers = np.arange(num_views)
    same_parameters(device, ViewSpec(augment, num_views, True, 0, 32), numbers, numbers)


def same_parameters(device, spec, ids, numbers):
    there = (torch.from_numpy(each).to(device) for each in (ids, numbers))
    found = crops_torch.pad_crop_parameters(spec, *there)
    for one, other in zip(found, crops.pad_crop_parameters(spec, ids, numbers), strict=True):
        assert one.tolist() == other.tolist()


# Refusals


def test_what_the_host_can_check_is_refused():
    one = torch.tensor([1])
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*64\), got -1"):
        philox_torch.random_words(-1, Purpose.PAD_CROP, one, 0)
    for count in (0, 2**32 + 1):
        with pytest.raises(ValueError, match=rf"count must be in \[1, 4294967296\], got {count}"):
            philox_torch.choose_below(one, count)
    with pytest.raises(ValueError, match="for choice: cycle, got 0"):
        crops_torch.view_of(0, 0, one, 0, "cycle")
    spec = ViewSpec(ResizedCrop(kind="resized_crop"), 5, False, 0, 32)
    with pytest.raises(ValueError, match="views of kind resized_crop have no pad_crop parameters"):
        crops_torch.pad_crop_parameters(spec, one, one)


def test_plain_padding_without_flip_is_never_mirrored():
    ids = torch.arange(99)
    spec = ViewSpec(PadCrop(kind="pad_crop", flip=False), 100, False, 0, 32)
    assert not crops_torch.pad_crop_parameters(spec, ids, ids)[2].any()
