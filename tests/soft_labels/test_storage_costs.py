"""What soft labels cost: bytes by hand, errors against SciPy, and the number of students from which a store pays."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax

from edpipe.params.soft_labels import HintKnobs, StorageKnobs
from edpipe.soft_labels.encoding.costs import candidates, measure, store_bytes, view_cost
from edpipe.soft_labels.encoding.precisions import make_precision, row_bytes

DENSE = ("float32", "float16", "uint8", "uint4")
CHOSEN = StorageKnobs()
COUNTS = st.lists(st.tuples(st.integers(1, 2_000_000), st.integers(2, 2000)), min_size=1, max_size=4)


def top_k(k, **more):
    return StorageKnobs(precision="top_k", top_k=k, max_kl=None, **more)


def sampled(draws, temperature=4.0):
    return StorageKnobs(precision="sampled", draws=draws, temperature=temperature, max_kl=None)


def plain(precision):
    return StorageKnobs(precision=precision, max_kl=None)


def names(num_classes, chosen=CHOSEN):
    return [cost.name for cost in candidates(num_classes, chosen)]


def logits(num_rows=40, num_classes=11, spread=3.0):
    return np.random.default_rng(5).normal(0, spread, (num_rows, num_classes)).astype(np.float32)


# Bytes


@pytest.mark.parametrize(
    ("storage", "num_classes", "expected"),
    [
        (plain("float32"), 10, 40),
        (plain("float16"), 10, 20),
        (plain("uint8"), 10, 14),  # 10 codes, scale and zero of 2 each
        (plain("uint4"), 10, 9),
        (plain("uint4"), 11, 10),  # the odd last code has a byte of its own
        (plain("uint4"), 1, 5),
        (top_k(3), 10, 14),  # 3 · (2 + 2) and the remainder's 2
        (top_k(3), 65_536, 14),  # the largest class is 65,535
        (top_k(3), 65_537, 20),  # 32 bits for each class
        (sampled(7), 10, 14),
        (sampled(7), 65_536, 14),
        (sampled(7), 65_537, 28),
    ],
    ids=lambda value: value.precision if isinstance(value, StorageKnobs) else str(value),
)
def test_bytes_of_a_row_are_those_counted_by_hand(storage, num_classes, expected):
    assert store_bytes(storage, [(1, num_classes)], 1) == expected
    chosen = [cost for cost in candidates(num_classes, storage) if cost.storage == storage]
    assert [cost.row_bytes for cost in chosen] == [expected]


def test_a_stores_bytes_are_those_of_all_views_and_all_teachers():
    # 8 · (600 · (5 + 4) + 400 · (3 + 4))
    assert store_bytes(CHOSEN, [(600, 5), (400, 3)], 8) == 65_600


def test_whether_maps_are_stored_and_what_error_is_allowed_changes_no_byte_of_logits():
    with_maps = StorageKnobs(precision="uint8", attention=True, hint=HintKnobs(feature_stage=2), max_kl=1.0)
    assert store_bytes(with_maps, [(600, 5)], 8) == store_bytes(plain("uint8"), [(600, 5)], 8)


# What is compared


def test_the_precisions_are_compared_from_the_finest_on():
    assert names(100) == ["float32", "float16", "uint8", "uint4", "top_k 25"]


@pytest.mark.parametrize(
    ("num_classes", "k"), [(1, None), (2, 1), (5, 1), (6, 2), (10, 3), (100, 25), (1000, 250), (65_537, 10_923)]
)
def test_top_k_is_compared_at_the_bytes_of_uint8(num_classes, k):
    found = [cost.storage.top_k for cost in candidates(num_classes, CHOSEN) if cost.storage.top_k]
    assert found == ([k] if k else [])


@given(st.integers(2, 500_000))
@example(65_536)
@example(65_537)
def test_top_k_keeps_as_many_as_fit_and_can_be_stored(num_classes):
    costs = {cost.storage.precision: cost for cost in candidates(num_classes, CHOSEN)}
    if "top_k" not in costs:
        assert num_classes > 65_536
        return
    one_more = row_bytes(make_precision(top_k(costs["top_k"].storage.top_k + 1), num_classes + 2))
    assert costs["top_k"].row_bytes <= costs["uint8"].row_bytes < one_more


@given(
    st.integers(2, 2000),
    st.sampled_from(
        [plain(name) for name in DENSE]
        + [CHOSEN, StorageKnobs(attention=True, hint=HintKnobs(feature_stage=1)), sampled(9), top_k(1)]
    ),
)
def test_what_is_chosen_is_compared_exactly_once(num_classes, chosen):
    costs = candidates(num_classes, chosen)
    wanted = chosen.model_copy(update={"max_kl": None, "attention": False, "hint": None})
    assert [cost.storage for cost in costs].count(wanted) == 1
    assert len({cost.name for cost in costs}) == len(costs)
    assert [cost.name for cost in costs[:4]] == list(DENSE)


def test_another_top_k_than_that_of_the_same_bytes_is_added_at_the_end():
    assert names(100, top_k(4))[4:] == ["top_k 25", "top_k 4"]
    assert names(100, top_k(25))[4:] == ["top_k 25"]
    assert names(100, sampled(50))[4:] == ["top_k 25", "sampled 50"]


def test_nothing_is_measured_until_there_are_rows():
    assert {(c.mean_kl, c.max_kl, c.bound) for c in candidates(10, sampled(5))} == {(None, None, None)}


# Errors


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("name", [*DENSE, "top_k 3"])
def test_errors_are_those_that_scipy_finds(name, temperature):
    exact, ids = logits(), np.arange(40)
    [cost] = [one for one in candidates(11, CHOSEN) if one.name == name]
    precision = make_precision(cost.storage, 11)
    stored = precision.decode(precision.encode(exact, ids, 0))
    kl = rel_entr(*(softmax(x.astype(np.float64) / temperature, axis=1) for x in (exact, stored))).sum(axis=1)
    error = stored.astype(np.float64) - exact
    found = measure(cost, exact, ids, temperature)
    assert found.mean_kl == pytest.approx(kl.mean(), rel=1e-6, abs=1e-14)
    assert found.max_kl == pytest.approx(kl.max(), rel=1e-6, abs=1e-14)
    assert found.bound == pytest.approx((error.max(axis=1) - error.min(axis=1)).max() ** 2 / 8 / temperature**2)
    assert (found.name, found.storage, found.row_bytes) == (cost.name, cost.storage, cost.row_bytes)


def test_float16_is_off_by_its_rounding_and_nothing_else():
    exact = logits()
    rounded = exact.astype(np.float16).astype(np.float64)
    log_p, log_q = log_softmax(exact.astype(np.float64), axis=1), log_softmax(rounded, axis=1)
    found = measure(candidates(11, CHOSEN)[1], exact, np.arange(40), 1.0)
    assert found.mean_kl == pytest.approx((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean(), rel=1e-6)


@pytest.mark.slow
@given(st.floats(0.1, 20), st.floats(0.5, 8))
def test_no_row_is_farther_off_than_certified_and_fewer_bits_are(spread, temperature):
    costs = [measure(c, logits(spread=spread), np.arange(40), temperature) for c in candidates(11, CHOSEN)]
    assert all(c.mean_kl <= c.max_kl <= c.bound + 1e-12 for c in costs)
    assert costs[0].max_kl == costs[0].bound == 0
    assert costs[2].bound < costs[3].bound


def test_sampled_rows_have_no_errors():
    cost = candidates(11, sampled(20))[-1]
    assert measure(cost, logits(), np.arange(40), 4.0) == cost
    assert (cost.mean_kl, cost.max_kl, cost.bound) == (None, None, None)


def test_attention_hint_and_budget_of_the_chosen_precision_change_nothing():
    loud, quiet = (
        candidates(11, StorageKnobs(precision="uint8", attention=a, hint=h, max_kl=k))
        for a, h, k in ((True, HintKnobs(feature_stage=3), 1e-9), (False, None, None))
    )
    assert loud == quiet


# When a store has paid for itself


def test_views_cost_what_is_counted_by_hand():
    cost = view_cost(8, CHOSEN, [(600, 5), (400, 3)], images_per_student=3000)
    assert (cost.num_views, cost.forwards, cost.num_bytes) == (8, 8000, 65_600)
    assert cost.break_even == 3  # 2 students ask 6,000 times, 3 ask 9,000 times


@pytest.mark.parametrize(("images", "students"), [(1, 1000), (999, 2), (1000, 1), (1001, 1), (10**9, 1)])
def test_a_store_pays_from_the_first_student_that_asks_as_often(images, students):
    assert view_cost(1, CHOSEN, [(1000, 10)], images).break_even == students


@given(st.integers(1, 100_000), COUNTS, st.integers(1, 10**12))
@example(100_000, [(2_000_000_000_000, 2), (1, 2)], 100_001)  # more forwards than a float counts
def test_break_even_is_the_smallest_number_of_students_that_ask_as_often(num_views, counts, images):
    cost = view_cost(num_views, CHOSEN, counts, images)
    assert cost.forwards == num_views * sum(samples for samples, _ in counts)
    assert cost.break_even * images >= cost.forwards > (cost.break_even - 1) * images
    assert cost.num_bytes == store_bytes(CHOSEN, counts, num_views)
