"""Stored logits: how far off they can be, and the proof of what that can cost."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import logits

from edpipe.soft_labels.encoding.quantisation import dequantise, kl_bound, quantise

BITS = st.sampled_from([8, 4])


def log_softmax(scores):
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def kl_oracle(exact, stored, temperature):
    log_p, log_q = (log_softmax(scores.astype(np.float64) / temperature) for scores in (exact, stored))
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


def error_range(exact, stored):
    error = stored.astype(np.float64) - exact
    return error.max(axis=1) - error.min(axis=1)


@given(logits(np.float64), st.integers(0, 9999), st.floats(0, 10), st.floats(0.1, 20))
def test_true_kl_never_exceeds_the_bound(exact, seed, size, temperature):
    # Errors at the ends of their range are the worst of a given range.
    stored = exact + size * np.random.default_rng(seed).choice([-1.0, 0.3, 1.0], exact.shape)
    bound = kl_bound(error_range(exact, stored), temperature)
    for one, other in ((exact, stored), (stored, exact)):
        assert (kl_oracle(one, other, temperature) <= bound + 1e-12 * (1 + bound)).all()


def test_bound_is_nearly_reached_by_two_equal_classes():
    exact, stored = np.zeros((1, 2)), np.array([[0.05, -0.05]])
    bound = kl_bound(error_range(exact, stored), 1.0)
    assert kl_oracle(exact, stored, 1.0) == pytest.approx(bound, rel=1e-2)


def test_bound_by_hand():
    assert kl_bound(np.array([4.0, 0.0], np.float32), 4.0).tolist() == [0.125, 0.0]


@given(logits(bound=60_000.0), st.floats(1, 20), BITS)
@example(np.array([[65504.0, -65504.0]], np.float32), 1.0, 8)
@example(np.array([[65504.0, -65504.0]], np.float32), 1.0, 4)
@example(np.array([[5e5, 5e5]], np.float32), 1.0, 4)
@example(np.array([[1e6, 1e6]], np.float32), 1.0, 8)
@example(np.array([[100.0, 100.00001]], np.float32), 1.0, 8)
@example(np.array([[1e-8, 0.0]], np.float32), 1.0, 8)
@example(np.array([[-1e-8, -1e-8]], np.float32), 1.0, 4)
def test_stored_logits_are_off_by_half_a_scale_at_most(exact, temperature, bits):
    codes, scale, zero = quantise(exact, bits)
    assert (codes < 2**bits).all()
    stored = dequantise(codes, scale, zero)
    # Rounding: of the restored sum, and in float32 of a quotient that is a code.
    rounding = np.spacing(np.abs(stored)) + scale.astype(np.float64)[:, None] * 2.0 ** (bits - 23)
    off = np.abs(stored.astype(np.float64) - exact)
    assert (off <= scale.astype(np.float64)[:, None] / 2 + rounding).all()
    assert (kl_oracle(exact, stored, temperature) <= kl_bound(error_range(exact, stored), temperature) + 1e-12).all()


@given(logits(bound=60_000.0), BITS)
def test_scale_is_hardly_larger_than_it_must_be(exact, bits):
    _, scale, zero = quantise(exact, bits)
    low, high = exact.min(axis=1).astype(np.float64), exact.max(axis=1).astype(np.float64)
    spacing_of_zero = np.spacing(np.maximum(np.abs(zero), np.float16(2**-14))).astype(np.float64)
    assert (zero <= low).all()
    assert (scale.astype(np.float64) <= (high - low + spacing_of_zero) / (2**bits - 1) * (1 + 2**-10) + 2**-24).all()


@given(logits(bound=1000.0), BITS)
def test_codes_keep_the_order_of_the_logits(exact, bits):
    codes, _, _ = quantise(exact, bits)
    order = np.argsort(exact, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(codes, order, axis=1).astype(int), axis=1) >= 0).all()


@given(logits(bound=1000.0), BITS)
def test_codes_keep_the_argmax_of_rows_where_it_is_clear(exact, bits):
    codes, scale, _ = quantise(exact, bits)
    ordered = np.sort(exact, axis=1)
    if exact.shape[1] > 1:
        is_clear = ordered[:, -1] - ordered[:, -2] > 1.01 * scale.astype(np.float32)
        assert (codes.argmax(axis=1) == exact.argmax(axis=1))[is_clear].all()


@given(hnp.arrays(np.float16, 3, elements=st.floats(-60000, 60000, width=16)), st.integers(1, 4), BITS)
def test_constant_rows_that_float16_can_hold_come_back_exactly(values, classes, bits):
    exact = np.repeat(values.astype(np.float32)[:, None], classes, axis=1)
    codes, scale, zero = quantise(exact, bits)
    assert (dequantise(codes, scale, zero) == exact).all()
    assert not codes.any()
    assert not scale.any()


def test_largest_and_smallest_logit_use_all_codes():
    codes, scale, zero = quantise(np.array([[0.0, 127.5, 255.0]], np.float32), 8)
    assert codes.tolist() == [[0, 128, 255]]
    assert (float(scale[0]), float(zero[0])) == (1.0, 0.0)
    codes, scale, zero = quantise(np.array([[0.0, 7.5, 15.0]], np.float32), 4)
    assert codes.tolist() == [[0, 8, 15]]
    assert (float(scale[0]), float(zero[0])) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([0.0, np.nan], "logits must be finite, got nan"),
        ([0.0, -np.inf], "logits must be finite, got -inf"),
        ([0.0, -1e5], "smallest logit must be at most 65504 in size to fit float16, got -100000"),
        ([0.0, 1e8], r"range of a row's logits / 255 must be at most 65504 in size to fit float16, got 392157"),
        ([0.0, 3e38], r"range of a row's logits / 255 must be at most 65504 in size to fit float16, got 1.17647e\+36"),
    ],
)
def test_logits_that_cannot_be_stored_are_refused_with_their_value(row, text):
    with pytest.raises(ValueError, match=text):
        quantise(np.array([[1.0, 2.0], row], np.float32), 8)


def test_four_bits_have_less_room_than_eight():
    row = np.array([[0.0, 1e6]], np.float32)
    quantise(row, 8)
    text = r"^range of a row's logits / 15 must be at most 65504 in size to fit float16, got 66666\.7$"
    with pytest.raises(ValueError, match=text):
        quantise(row, 4)


def test_bounds_of_nonsense_are_refused():
    with pytest.raises(ValueError, match=r"temperature must be > 0, got 0\.0"):
        kl_bound(np.zeros(1), 0.0)
    for value in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=f"error_range must be >= 0, got {value}"):
            kl_bound(np.array([0.0, value]), 1.0)
