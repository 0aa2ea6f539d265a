"""What is drawn into val and test stays, whatever else is in the data set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.splits import assign_splits
from edpipe.params.dataset import DatasetKnobs

SEEDS = st.integers(0, 2**32 - 1)


def raw_of(classes):
    """Images without official split: classes maps a class name to its numbers of images."""
    samples = [
        RawSample(label, None, f"{name}/{number}", lambda: np.zeros((4, 4), np.uint8))
        for label, (name, numbers) in enumerate(classes.items())
        for number in numbers
    ]
    return RawDataset(tuple(classes), samples)


def drawn(classes, seed, **values):
    """Split of each source."""
    knobs = DatasetKnobs(reader="folder", image_size=8, seed=seed, **({"val_fraction": 0.25} | values))
    return {sample.source: sample.split for sample in assign_splits(raw_of(classes), knobs).samples}


def members(splits, split):
    return {source for source, found in splits.items() if found == split}


@given(SEEDS, st.integers(5, 30), st.integers(5, 30), st.integers(5, 30))
def test_another_class_changes_nothing_for_the_others(seed, first, second, third):
    few = {"a": range(first), "b": range(second)}
    splits = drawn(few, seed)
    assert drawn({"0": range(third), **few}, seed).items() >= splits.items()


@given(SEEDS, st.integers(5, 30), st.integers(1, 10))
def test_more_images_of_a_class_leave_its_old_test_images_in_rank_order(seed, old, new):
    # The test split is the head of a fixed order: of the old images a longer or shorter head of the same order.
    before = members(drawn({"a": range(old)}, seed), "test")
    after = members(drawn({"a": range(old + new)}, seed), "test") & {f"a/{number}" for number in range(old)}
    assert before <= after or after <= before


@given(SEEDS, st.integers(10, 30))
def test_larger_test_fraction_keeps_the_test_images_of_the_smaller(seed, number):
    small, large = (members(drawn({"a": range(number)}, seed, test_fraction=f), "test") for f in (0.2, 0.4))
    assert small <= large


@given(SEEDS, st.integers(10, 30), st.sampled_from([0.0, 0.1, 0.5]))
def test_val_fraction_does_not_change_the_test_split(seed, number, val_fraction):
    splits = [drawn({"a": range(number)}, seed, val_fraction=f) for f in (val_fraction, 0.25)]
    assert members(splits[0], "test") == members(splits[1], "test")


def test_every_image_is_about_as_likely_to_be_drawn():
    times = np.zeros(10)
    for seed in range(400):
        for source in members(drawn({"a": range(10)}, seed), "test"):
            times[int(source[2:])] += 1
    # 2 of 10 in each of 400 draws: 80 times each, standard deviation sqrt(400 * 0.2 * 0.8) = 8.
    assert times.sum() == 800
    assert np.abs(times - 80).max() < 5 * 8


@pytest.mark.parametrize("number", [2, 3, 4])
def test_smallest_classes_keep_a_train_image_at_the_largest_fractions(number):
    splits = drawn({"a": range(number)}, 0, test_fraction=0.5, val_fraction=0.5)
    assert members(splits, "train")
    assert members(splits, "test")


def test_draw_is_the_same_as_ever():
    # Written down once: another draw would silently make other data sets of the same knobs.
    assert sorted(members(drawn({"a": range(12)}, 7), "test")) == ["a/7", "a/9"]
