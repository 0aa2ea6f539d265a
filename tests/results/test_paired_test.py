"""Paired differences against scipy, hand values and what must hold of any numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edpipe.results.comparison.paired_test import holm, mean_by_class, paired_difference
from edpipe.results.measures.metrics import mean_and_spread

COUNTS = st.integers(0, 10_000).map(lambda count: count / 10_000)
PAIRS = st.lists(st.tuples(COUNTS, COUNTS), min_size=2, max_size=12)
P_VALUES = st.lists(st.floats(0, 1), max_size=8)


@given(PAIRS)
def test_t_test_and_interval_are_those_of_scipy(pairs):
    own, base = map(list, zip(*pairs, strict=True))
    found = paired_difference(own, base)
    differences = np.subtract(own, base)
    if np.ptp(differences) < 1e-9:
        assert found.t is found.p is None
        return
    expected = stats.ttest_rel(own, base)
    interval = expected.confidence_interval(0.95)
    assert found.t == pytest.approx(expected.statistic, rel=1e-6, abs=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert (found.spread.low, found.spread.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_t_test_by_hand():
    # Differences 1, 2, 3: t = 2 / (1 / √3); with 2 degrees of freedom p = 1 - t / √(t² + 2) = 1 - √(6 / 7).
    found = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.spread == mean_and_spread([1.0, 2.0, 3.0])
    assert found.t == pytest.approx(2 * math.sqrt(3))
    assert found.p == pytest.approx(1 - math.sqrt(6 / 7))


def test_one_degree_of_freedom_by_hand():
    # Differences 1, 3: t = 2; with 1 degree of freedom the distribution is Cauchy's, p = 1 - 2 atan(t) / π.
    assert paired_difference([1.0, 3.0], [0.0, 0.0]).p == pytest.approx(1 - 2 * math.atan(2) / math.pi)


@given(PAIRS)
def test_interval_excludes_nothing_exactly_when_p_is_below_five_percent(pairs):
    own, base = map(list, zip(*pairs, strict=True))
    found = paired_difference(own, base)
    if found.p is not None and abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (not found.spread.low <= 0 <= found.spread.high)


@given(PAIRS)
def test_exchange_turns_the_sign(pairs):
    own, base = map(list, zip(*pairs, strict=True))
    there, back = paired_difference(own, base), paired_difference(base, own)
    assert there.spread.mean == pytest.approx(-back.spread.mean)
    assert there.p == (None if back.p is None else pytest.approx(back.p))
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert there.wins + there.losses + there.ties == len(pairs)


@given(PAIRS, st.floats(-1, 1))
def test_what_a_seed_does_to_both_cancels(pairs, effect):
    """A shift of one pair changes neither its difference nor the test."""
    own, base = map(list, zip(*pairs, strict=True))
    shifted = [own[0] + effect, *own[1:]], [base[0] + effect, *base[1:]]
    assert paired_difference(*shifted).spread.mean == pytest.approx(paired_difference(own, base).spread.mean)


def test_wins_and_losses_are_counted():
    found = paired_difference([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 4.0, 3.0])
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)


def test_one_pair_has_a_difference_only():
    found = paired_difference([0.75], [0.5])
    assert (found.spread.mean, found.spread.low, found.spread.high) == (0.25, None, None)
    assert found.t is found.p is None
    assert found.wins == 1


@pytest.mark.parametrize("step", [0.0, 0.01])
def test_equal_differences_have_no_test_though_rounding_tells_them_apart(step):
    base = [0.1 * k for k in range(1, 8)]
    found = paired_difference([value + step for value in base], base)
    assert found.t is found.p is None
    assert found.spread.mean == pytest.approx(step)


def test_pairs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="pairs need as many values on both sides, got 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="a mean needs at least 1 value, got none"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="a mean needs finite values, got nan"):
        paired_difference([math.nan], [0.0])


def holm_oracle(p_values):
    """Rejects step by step: the adjusted p is the least level at which the test is still rejected."""

    def rejected(level):
        hits, left = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
        for rank, i in enumerate(left):
            if p_values[i] * (len(p_values) - rank) > level:
                break
            hits.add(i)
        return hits

    levels = sorted({min(1.0, p * k) for p in p_values for k in range(1, len(p_values) + 1)} | {1.0})
    return [next((level for level in levels if i in rejected(level)), 1.0) for i in range(len(p_values))]


@given(P_VALUES)
def test_holm_is_the_step_down_test(p_values):
    assert holm(p_values) == pytest.approx(holm_oracle(p_values))


@given(P_VALUES)
def test_holm_lies_between_no_adjustment_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    for p, enlarged in zip(p_values, adjusted, strict=True):
        assert p <= enlarged <= min(1.0, p * len(p_values)) + 1e-15
    ranked = sorted(zip(p_values, adjusted, strict=True))
    assert [a for _, a in ranked] == sorted(adjusted)


def test_holm_by_hand():
    # 0.01 × 4, 0.02 × 3, 0.03 × 2 (not below 0.06), 0.04 × 1 (not below 0.06).
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize("p", [-0.1, 1.5, math.nan])
def test_p_values_that_cannot_be_are_refused(p):
    with pytest.raises(ValueError, match=rf"p values must be in \[0, 1\], got {p}"):
        holm([0.5, p])


def test_mean_by_class_by_hand():
    top1 = np.array([[0.25, math.nan, 0.0], [0.75, math.nan, 1.0]])
    assert mean_by_class(top1) == [0.5, None, 0.5]
    with pytest.raises(ValueError, match="a mean by class needs at least 1 seed, got none"):
        mean_by_class(np.zeros((0, 3)))
