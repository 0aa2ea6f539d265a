"""What a comparison of sampled rows says: which are bad, and how many of all may be, against SciPy's own intervals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from strategies import logits

from edpipe.soft_labels.encoding.fidelity import (
    NOISE_KL,
    NOISE_MAP,
    NOISE_MISFIT,
    Fidelity,
    compare_draws,
    compare_rows,
    hint_difference,
    map_difference,
)
from edpipe.soft_labels.encoding.precisions import Affine, Sampled
from edpipe.soft_labels.encoding.softmax import log_softmax, row_kl

ROWS = 40
CLASSES = 6
FOUND = Fidelity(1000, 0, 2, 0.5, 1e-5, 2e-4)


def draw(seed, rows=ROWS):
    return np.random.default_rng(seed).normal(0, 3, (rows, CLASSES)).astype(np.float32)


def no_maps(rows):
    return np.zeros(len(rows), dtype=np.float32)


def found_bad(exact, stored, stored_kl=0.0, map_difference=None):
    maps = no_maps(exact) if map_difference is None else map_difference
    fidelity, is_bad = compare_rows(exact, stored, stored_kl, maps)
    assert fidelity.num_bad_rows == is_bad.sum()
    return is_bad


# The share of all rows that may be bad


@settings(deadline=None)
@given(st.integers(1, 5000), st.data())
def test_the_share_that_may_be_bad_is_clopper_and_pearsons_one_sided_bound(rows, data):
    bad = data.draw(st.integers(0, rows))
    share = replace(FOUND, num_rows=rows, num_bad_rows=bad).max_bad_share
    expected = binomtest(bad, rows, alternative="less").proportion_ci(confidence_level=0.99).high
    assert share == pytest.approx(expected, rel=1e-9)
    assert bad / rows <= share <= 1


def test_the_bound_holds_at_least_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for truth in (0.001, 0.01, 0.2):
        bad = rng.binomial(500, truth, 2000)
        bounds = {
            count: replace(FOUND, num_rows=500, num_bad_rows=int(count)).max_bad_share for count in set(bad.tolist())
        }
        assert np.mean([truth <= bounds[count] for count in bad.tolist()]) >= 0.985


def test_a_thousand_good_rows_leave_less_than_half_a_percent():
    assert FOUND.max_bad_share == pytest.approx(1 - 0.01 ** (1 / 1000), rel=1e-9) == pytest.approx(0.0046, abs=1e-4)


def test_the_line_says_it_all():
    assert FOUND.say() == (
        "1000 rows: 0 bad (at most 0.46% of all at 99 % confidence), largest difference 0.5, "
        "KL at temperature 4 mean 1e-05, largest 0.0002 nats, 2 argmax flips"
    )


# What lies beside the logits


def hints(seed, rows=3):
    return np.random.default_rng(seed).normal(0, 2, (rows, 4, 3, 2)).astype(np.float32)


@settings(deadline=None)
@given(st.integers(0, 99), st.floats(1e-3, 1e3), st.floats(0, 0.5))
def test_hints_are_apart_by_the_share_of_the_longer_one_however_loud_they_are(seed, loudness, share):
    now = hints(seed) * np.float32(loudness)
    assert hint_difference(now, now).tolist() == [0, 0, 0]
    assert hint_difference(now, now * np.float32(1 - share)) == pytest.approx(share, rel=1e-3, abs=1e-6)
    assert hint_difference(now * np.float32(1 - share), now) == pytest.approx(share, rel=1e-3, abs=1e-6)


def test_silent_hints_are_the_same_and_numbers_that_are_none_are_not():
    silent, loud = np.zeros((4, 2, 3, 3), np.float32), np.zeros((4, 2, 3, 3), np.float32)
    loud[1], loud[2, 0, 0, 0], loud[3, 1, 2, 2] = 1, np.nan, np.inf
    with np.errstate(invalid="ignore"):
        found = hint_difference(silent, loud)
    assert found[:2].tolist() == [0, 1]
    assert np.isnan(found[2:]).all()


def test_maps_are_apart_by_their_largest_difference():
    now = np.zeros((2, 3, 4), np.float32)
    stored = now.copy()
    stored[1, 2, 3], stored[1, 0, 0] = 0.25, -0.5
    assert map_difference(now, stored).tolist() == [0, 0.5]


# Rows of logits


@settings(deadline=None)
@given(logits(max_rows=20))
def test_the_same_rows_are_good_in_whatever_frame_of_reference(exact):
    assert not found_bad(exact, exact).any()
    # Softmax does not see a constant; this one is exact in float32 for numbers of this size.
    assert not found_bad(np.rint(exact), np.rint(exact) + np.float32(64)).any()


@settings(deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([4, 8]))
def test_rows_that_were_only_stored_are_good(seed, bits):
    exact, precision = draw(seed), Affine(CLASSES, bits)
    stored = precision.decode(precision.encode(exact, np.arange(ROWS), 0))
    assert not found_bad(exact, stored, float(row_kl(exact, stored, 4.0).max())).any()


@settings(deadline=None)
@given(st.integers(0, 2**16), st.floats(0, 0.04))
def test_rows_that_were_stored_and_computed_once_more_are_good(seed, noise):
    exact, precision = draw(seed), Affine(CLASSES, 4)
    stored = precision.decode(precision.encode(exact, np.arange(ROWS), 0))
    again = exact + np.float32(noise) * np.random.default_rng(seed + 1).normal(0, 1, exact.shape).astype(np.float32)
    assert row_kl(exact, again, 4.0).max() < NOISE_KL / 2
    assert not found_bad(again, stored, float(row_kl(exact, stored, 4.0).max())).any()


def test_a_row_is_bad_once_it_is_farther_than_storing_and_noise_reach():
    exact = np.zeros((2, 2), dtype=np.float32)
    for stored_kl in (0.0, 1e-4, 0.05):
        reach = (np.sqrt(stored_kl) + np.sqrt(NOISE_KL)) ** 2
        steps = np.linspace(0, 8, 4001, dtype=np.float32)
        others = np.stack([steps, np.zeros_like(steps)], axis=1)
        kl = row_kl(np.zeros_like(others), others, 4.0)
        inside = steps[np.flatnonzero(kl <= reach * 0.999)[-1]]
        outside = steps[np.flatnonzero(kl > reach * 1.001)[0]]
        assert found_bad(exact, np.array([[inside, 0], [outside, 0]], np.float32), stored_kl).tolist() == [False, True]


@settings(deadline=None)
@given(st.integers(0, 2**16))
def test_rows_of_another_sample_are_bad(seed):
    exact = draw(seed)
    stored = np.roll(exact, 1, axis=0)
    is_far = row_kl(exact, stored, 4.0) > NOISE_KL
    assert np.array_equal(found_bad(exact, stored), is_far)
    assert is_far.mean() > 0.9


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_no_number_is_bad(value):
    exact, stored = draw(0), draw(0)
    stored[3, 1] = value
    with np.errstate(invalid="ignore"):
        assert np.flatnonzero(found_bad(exact, stored)).tolist() == [3]


def test_a_row_whose_maps_differ_is_bad():
    exact, difference = draw(0), no_maps(draw(0))
    difference[[4, 5, 6]] = [NOISE_MAP, NOISE_MAP * 1.01, np.nan]
    assert np.flatnonzero(found_bad(exact, exact, 0.0, difference)).tolist() == [5, 6]


def test_figures_are_those_of_the_rows():
    exact, stored = draw(0), draw(0)
    stored[2] = stored[2][::-1]
    stored[5, 0] += np.float32(0.5)
    kl = row_kl(exact, stored, 4.0)
    fidelity, _ = compare_rows(exact, stored, 0.0, no_maps(exact))
    assert fidelity.num_rows == ROWS
    assert fidelity.max_difference == np.abs(exact - stored).max()
    assert (fidelity.mean_kl, fidelity.max_kl) == (kl.mean(), kl.max())
    assert fidelity.num_argmax_flips == (exact.argmax(axis=1) != stored.argmax(axis=1)).sum() > 0


# Sampled rows


def said_of_sampled(precision, exact, parts, view=3):
    """The comparison of stored parts with what a teacher of these logits says now."""
    ids = np.arange(len(exact))
    now = precision.encode(exact, ids, view)
    return compare_draws(precision, now, parts, precision.misfit(exact, parts, ids, view), no_maps(exact))


@pytest.mark.parametrize("draws", [1, 4, 20])
@pytest.mark.parametrize("classes", [2, 10, 300])
def test_the_same_teacher_with_noise_passes_and_another_does_not(draws, classes):
    precision, rng = Sampled(classes, draws, 4.0), np.random.default_rng(0)
    exact, other = rng.normal(0, 3, (2, 500, classes)).astype(np.float32)
    parts = precision.encode(exact, np.arange(500), 3)
    fidelity, _ = said_of_sampled(precision, exact, parts)
    assert (fidelity.num_bad_rows, fidelity.max_kl, fidelity.num_argmax_flips, fidelity.max_difference) == (0, 0, 0, 0)
    again = exact + rng.normal(0, 0.03, exact.shape).astype(np.float32)
    assert row_kl(exact, again, 4.0).max() < NOISE_KL
    assert said_of_sampled(precision, again, parts)[0].num_bad_rows == 0
    assert said_of_sampled(precision, other, parts)[1].mean() > 0.15
    rolled = {"index": np.roll(parts["index"], 1, axis=0)}
    assert said_of_sampled(precision, exact, rolled)[1].mean() > 0.15


@settings(deadline=None)
@given(st.integers(0, 2**16), st.floats(0, 3), st.integers(1, 12), st.integers(2, 40))
def test_a_misfit_is_never_more_than_the_total_variation(seed, noise, draws, classes):
    precision, rng = Sampled(classes, draws, 4.0), np.random.default_rng(seed)
    exact = rng.normal(0, 3, (20, classes)).astype(np.float32)
    moved = exact + rng.normal(0, noise, exact.shape).astype(np.float32)
    p, q = (np.exp(log_softmax(logits, 4.0)) for logits in (exact, moved))
    ids = np.arange(20)
    parts = precision.encode(exact, ids, 7)
    assert precision.misfit(exact, parts, ids, 7).max() <= 1e-9
    misfit = precision.misfit(moved, parts, ids, 7)
    assert (misfit <= np.abs(p - q).sum(axis=1) / 2 + 1e-9).all()
    # Pinsker's inequality.
    assert (misfit <= np.sqrt(row_kl(exact, moved, 4.0) / 2) + 1e-6).all()


def test_draws_of_another_view_are_bad():
    precision, exact = Sampled(CLASSES, 20, 4.0), draw(0)
    parts = precision.encode(exact, np.arange(ROWS), 4)
    assert said_of_sampled(precision, exact, parts, view=3)[1].mean() > 0.9


def test_figures_of_sampled_rows_are_shares_of_draws():
    precision, index = Sampled(CLASSES, 20, 4.0), np.zeros((4, 20), dtype=np.uint16)
    other = index.copy()
    for row, count in enumerate((0, 1, 2, 3)):
        other[row, 20 - count :] = 1
    misfit = np.array([0, NOISE_MISFIT, NOISE_MISFIT * 1.01, np.nan])
    maps = np.array([0, 0.01, 0.2, 0], dtype=np.float32)
    fidelity, is_bad = compare_draws(precision, {"index": index}, {"index": other}, misfit, maps)
    assert is_bad.tolist() == [False, False, True, True]
    assert fidelity.max_kl == pytest.approx(0.15, rel=1e-5)
    assert fidelity.mean_kl == pytest.approx(0.075, rel=1e-5)
    assert fidelity.max_difference == pytest.approx(0.2)


def test_a_sampled_row_whose_maps_differ_is_bad():
    precision, difference = Sampled(CLASSES, 20, 4.0), no_maps(draw(0))
    parts = precision.encode(draw(0), np.arange(ROWS), 3)
    difference[7] = 0.2
    _, is_bad = compare_draws(precision, parts, parts, np.zeros(ROWS), difference)
    assert np.flatnonzero(is_bad).tolist() == [7]
