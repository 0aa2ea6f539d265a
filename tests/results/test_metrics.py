"""Metrics against obvious oracles and hand values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edpipe.results.measures.metrics import (
    Hits,
    Spread,
    expected_calibration_error,
    mean_and_spread,
    top_k_hits,
)

COARSE = st.integers(-3, 3).map(float)


@st.composite
def answers(draw):
    """Logits with many ties, and labels."""
    samples, classes = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    logits = draw(hnp.arrays(np.float32, (samples, classes), elements=COARSE))
    return logits, draw(hnp.arrays(np.int64, samples, elements=st.integers(0, classes - 1)))


@given(answers(), st.integers(1, 7))
def test_hits_are_labels_among_the_first_k_of_a_stable_sort(answer, k):
    logits, labels = answer
    ranked = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    expected = sum(label in row for label, row in zip(labels, ranked, strict=True))
    assert top_k_hits(logits, labels, k) == Hits(expected, len(labels))


@given(answers())
def test_first_hit_is_argmax(answer):
    logits, labels = answer
    assert top_k_hits(logits, labels, 1).correct == (logits.argmax(axis=1) == labels).sum()


@given(answers(), st.integers(0, 6))
def test_pooled_batches_are_the_whole(answer, cut):
    logits, labels = answer
    pooled = top_k_hits(logits[:cut], labels[:cut], 2) + top_k_hits(logits[cut:], labels[cut:], 2)
    assert pooled == top_k_hits(logits, labels, 2)


def test_constant_network_is_right_by_chance_only():
    assert top_k_hits(np.zeros((10, 10), np.float32), np.arange(10), 1).top1 == 0.1
    assert top_k_hits(np.zeros((10, 10), np.float32), np.arange(10), 5).top1 == 0.5


def test_hits_that_cannot_be_are_refused():
    for correct, total in ((2, 1), (-1, 3)):
        with pytest.raises(ValueError, match=f"hits must satisfy 0 <= correct <= asked, got {correct} of {total}"):
            Hits(correct, total)
    with pytest.raises(ValueError, match="no sample was asked, so there is no share of correct answers"):
        _ = Hits(0, 0).top1


def test_answers_that_cannot_be_are_refused():
    logits, labels = np.zeros((2, 3), np.float32), np.array([0, 2])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        top_k_hits(logits, labels, 0)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), got 0 to 3"):
        top_k_hits(logits, np.array([0, 3]), 1)
    broken = np.full((2, 3), np.nan, np.float32)
    for call in (
        lambda: top_k_hits(broken, labels, 1),
        lambda: expected_calibration_error(broken, labels),
    ):
        with pytest.raises(ValueError, match="logits must be numbers, got NaN"):
            call()


def calibration_oracle(logits, labels, num_bins):
    probs = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    confidence, is_correct = probs.max(axis=1), logits.argmax(axis=1) == labels
    total = 0.0
    for b in range(num_bins):
        inside = (confidence > b / num_bins) & (confidence <= (b + 1) / num_bins)
        if inside.any():
            total += inside.mean() * abs(is_correct[inside].mean() - confidence[inside].mean())
    return total


@given(st.integers(0, 9999), st.integers(1, 30), st.integers(2, 5), st.integers(1, 20))
def test_calibration_error_is_the_formula(seed, samples, classes, num_bins):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 2, (samples, classes)), rng.integers(0, classes, samples)
    expected = calibration_oracle(logits, labels, num_bins)
    assert expected_calibration_error(logits, labels, num_bins) == pytest.approx(expected, abs=1e-9)


def test_calibration_error_by_hand():
    # Confidence 3/4 four times: right three times is calibrated, right always is off by a quarter.
    logits = np.tile(np.log([3.0, 1.0]), (4, 1))
    assert expected_calibration_error(logits, np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert expected_calibration_error(logits, np.array([0, 0, 0, 0])) == pytest.approx(0.25)


def test_calibration_of_huge_logits_does_not_overflow():
    assert expected_calibration_error(np.array([[1e30, 0.0]], np.float32), np.array([0])) == 0


def test_calibration_of_nothing_is_refused():
    with pytest.raises(ValueError, match="calibration needs at least 1 sample, got none"):
        expected_calibration_error(np.zeros((0, 3)), np.empty(0, np.int64))
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        expected_calibration_error(np.zeros((1, 3)), np.array([0]), 0)


def test_spread_by_hand():
    # Three repeats: t(2; 0.975) = 4.302653, s = 1, so the margin is 4.302653 / √3.
    spread = mean_and_spread([1.0, 2.0, 3.0])
    assert (spread.mean, spread.std, spread.n) == (2.0, 1.0, 3)
    assert spread.low == pytest.approx(2 - 2.484138, abs=1e-5)
    assert spread.high == pytest.approx(2 + 2.484138, abs=1e-5)


def test_one_repeat_has_no_spread():
    assert mean_and_spread([0.5]) == Spread(0.5, None, None, None, 1)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_interval_holds_the_mean_and_equal_repeats_have_none(values):
    spread = mean_and_spread(values)
    assert spread.low <= spread.mean <= spread.high
    equal = mean_and_spread([values[0]] * len(values))
    assert equal.low == equal.high == pytest.approx(values[0])


def test_mean_of_nothing_or_of_no_number_is_refused():
    with pytest.raises(ValueError, match="a mean needs at least 1 value, got none"):
        mean_and_spread([])
    with pytest.raises(ValueError, match="a mean needs finite values, got nan"):
        mean_and_spread([0.5, float("nan")])
