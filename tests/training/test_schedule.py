"""Budgets, rates and the stream of samples."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, subsets

from edpipe.params.recipe import RecipeKnobs
from edpipe.params.stage import StageKnobs
from edpipe.training.sample_stream import SampleStream
from edpipe.training.schedule import batch_positions, num_images, num_iterations, rate_factor
from edpipe.views.sampling import sample_order

FRACTIONS = st.floats(0, 1, exclude_max=True)
RECIPES = st.builds(
    RecipeKnobs,
    schedule=st.sampled_from(["constant", "cosine", "step"]),
    warmup=st.floats(0, 0.5),
    gamma=st.floats(0.01, 1),
)
MIXINGS = st.sampled_from(["mixed", "sequential"])


@given(RECIPES, FRACTIONS)
def test_rate_is_a_share_of_its_peak(recipe, fraction):
    assert 0 <= rate_factor(recipe, fraction) <= 1


@given(RECIPES, FRACTIONS, FRACTIONS)
def test_rate_never_rises_after_the_warmup(recipe, one, other):
    earlier, later = sorted((max(one, recipe.warmup), max(other, recipe.warmup)))
    assert rate_factor(recipe, earlier) >= rate_factor(recipe, later)


@pytest.mark.parametrize(
    ("schedule", "warmup", "fraction", "factor"),
    [
        ("constant", 0.0, 0.9, 1.0),
        ("constant", 0.2, 0.0, 0.01),
        ("constant", 0.2, 0.1, 0.505),
        ("constant", 0.2, 0.2, 1.0),
        ("cosine", 0.0, 0.0, 1.0),
        ("cosine", 0.0, 1 / 3, 0.75),
        ("cosine", 0.2, 0.2, 1.0),
        ("cosine", 0.2, 0.6, 0.5),
        ("step", 0.0, 0.624, 1.0),
        ("step", 0.0, 0.625, 0.1),
        ("step", 0.0, 0.8, 0.01),
        ("step", 0.0, 0.9, 0.001),
    ],
)
def test_rates_by_hand(schedule, warmup, fraction, factor):
    assert rate_factor(RecipeKnobs(schedule=schedule, warmup=warmup), fraction) == pytest.approx(factor)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_rate_outside_the_window_is_refused(fraction):
    with pytest.raises(ValueError, match=rf"fraction of the window must be in \[0, 1\), got {fraction}"):
        rate_factor(RecipeKnobs(), fraction)


@pytest.mark.parametrize(
    ("budget", "num_samples", "images"),
    [
        (StageKnobs(epochs=3.0), 7, 21),
        (StageKnobs(epochs=0.5), 9, 4),
        (StageKnobs(epochs=0.01), 7, 1),
        (StageKnobs(images=5), 7, 5),
    ],
)
def test_images_of_a_budget(budget, num_samples, images):
    assert num_images(budget, num_samples) == images


def test_budget_without_samples_is_refused():
    with pytest.raises(ValueError, match="a stage needs at least 1 sample, got 0"):
        num_images(StageKnobs(epochs=1.0), 0)


@given(st.integers(1, 1000), st.integers(2, 70))
def test_batches_cover_the_stream_once_and_none_is_a_lonely_image(total, batch_size):
    batches = [batch_positions(i, batch_size, total) for i in range(num_iterations(total, batch_size))]
    assert [position for start, stop in batches for position in range(start, stop)] == list(range(total))
    sizes = [stop - start for start, stop in batches]
    assert set(sizes[:-1]) <= {batch_size}
    assert min(2, total) <= sizes[-1] <= batch_size + 1


@pytest.mark.parametrize("iteration", [-1, 2])
def test_iteration_that_does_not_exist_is_refused(iteration):
    with pytest.raises(ValueError, match=rf"iteration must be in \[0, 2\), got {iteration}"):
        batch_positions(iteration, 4, 8)


def test_batches_of_nothing_or_of_one_are_refused():
    with pytest.raises(ValueError, match="total must be at least 1 image, got 0"):
        num_iterations(0, 4)
    with pytest.raises(ValueError, match="batch_size must be at least 2, got 1"):
        num_iterations(4, 1)


@given(SEEDS, subsets(), MIXINGS, st.integers(1, 4))
def test_every_epoch_shows_every_sample_once(seed, ids, subset_order, num_epochs):
    stream = SampleStream(seed, ids, subset_order)
    epochs, shown = stream.slice(0, num_epochs * stream.num_samples)
    for epoch in range(num_epochs):
        assert sorted(shown[epochs == epoch]) == sorted(np.concatenate(ids))


@pytest.mark.slow
@settings(deadline=None)
@given(SEEDS, subsets(), MIXINGS, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=5))
def test_a_slice_does_not_depend_on_what_was_asked_before(seed, ids, subset_order, pairs):
    stream = SampleStream(seed, ids, subset_order)
    for start, stop in (sorted(pair) for pair in pairs):
        whole = SampleStream(seed, ids, subset_order).slice(0, stop)
        for part, all_of_it in zip(stream.slice(start, stop), whole, strict=True):
            assert (part == all_of_it[start:]).all()


@given(SEEDS, subsets())
def test_sequential_shows_one_subset_after_the_other(seed, ids):
    stream = SampleStream(seed, ids, "sequential")
    _, shown = stream.slice(stream.num_samples, 2 * stream.num_samples)
    assert (shown == np.concatenate([sample_order(seed, 1, subset) for subset in ids])).all()


@given(SEEDS, subsets())
def test_mixed_shuffles_all_samples_together(seed, ids):
    stream = SampleStream(seed, ids, "mixed")
    assert (stream.slice(0, stream.num_samples)[1] == sample_order(seed, 0, np.concatenate(ids))).all()


def test_stream_far_from_its_start_is_as_quick_as_at_its_start():
    stream = SampleStream(0, (np.arange(10),), "mixed")
    epochs, shown = stream.slice(10 * (2**32 - 1) + 4, 10 * (2**32 - 1) + 6)
    assert epochs.tolist() == [2**32 - 1] * 2
    assert (shown == sample_order(0, 2**32 - 1, np.arange(10))[4:6]).all()


def test_step_milestones_are_counted_exactly():
    recipe = RecipeKnobs(schedule="step", milestones=(0.5,), gamma=0.5)
    assert [rate_factor(recipe, float(Fraction(i, 10))) for i in (4, 5)] == [1.0, 0.5]


def test_streams_that_make_no_sense_are_refused():
    for nothing in ((), (np.empty(0, np.int64),)):
        with pytest.raises(ValueError, match="a stream needs at least 1 sample, got none"):
            SampleStream(0, nothing, "mixed")
    with pytest.raises(ValueError, match="a sample is in more than one of the taught subsets"):
        SampleStream(0, (np.arange(3), np.arange(2, 5)), "mixed")
    with pytest.raises(ValueError, match="positions must satisfy 0 <= start <= stop, got 3 and 2"):
        SampleStream(0, (np.arange(3),), "mixed").slice(3, 2)


def torch_rates(make, iterations):
    """What torch's own schedule makes of a peak rate of 1, before each iteration."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer, iterations)
    rates = []
    for _ in range(iterations):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("iterations", [10, 400])
def test_cosine_and_step_are_torchs(iterations):
    places = [i / iterations for i in range(iterations)]
    cosine = [rate_factor(RecipeKnobs(schedule="cosine"), place) for place in places]
    theirs = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, iterations)
    assert cosine == pytest.approx(theirs, abs=1e-9)
    step = [rate_factor(RecipeKnobs(schedule="step", milestones=(0.5, 0.9), gamma=0.2), place) for place in places]
    milestones = [iterations // 2, iterations * 9 // 10]
    theirs = torch_rates(lambda o, n: torch.optim.lr_scheduler.MultiStepLR(o, milestones, 0.2), iterations)
    assert step == pytest.approx(theirs, abs=1e-9)


def test_one_cycle_is_torchs_but_for_half_an_iteration():
    iterations = 2000
    recipe = RecipeKnobs(schedule="one_cycle", warmup=0.3)
    ours = [rate_factor(recipe, i / iterations) for i in range(iterations)]

    def make(optimizer, total):
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1.0, total_steps=total, pct_start=0.3, cycle_momentum=False
        )

    theirs = torch_rates(make, iterations - 1)
    assert ours[:-1] == pytest.approx(theirs, abs=3e-3)
    assert (ours[0], max(ours)) == (pytest.approx(1 / 25), pytest.approx(1.0))
    assert rate_factor(recipe, 1 - 1e-9) == pytest.approx(1 / 250_000, rel=1e-3)


def test_one_cycle_without_a_rise_is_refused():
    with pytest.raises(ValueError, match=r"schedule one_cycle needs a warmup > 0, such as 0\.3"):
        RecipeKnobs(schedule="one_cycle")
