"""How rows are stored: what comes back, which class is named, and what that costs at most."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import logsumexp, rel_entr, softmax
from strategies import logits

from edpipe.params.soft_labels import StorageKnobs
from edpipe.soft_labels.encoding import precisions
from edpipe.soft_labels.encoding.precisions import (
    Affine,
    Column,
    Floats,
    Sampled,
    TopK,
    index_dtype,
    make_precision,
    pack_nibbles,
    row_bytes,
    unpack_nibbles,
)
from edpipe.soft_labels.encoding.quantisation import kl_bound
from edpipe.soft_labels.encoding.softmax import log_softmax, row_kl

BITS = st.sampled_from([8, 4])


def back(precision, exact, sample_ids=None, view=0):
    """Rows as they come back, after their columns were seen to be those that were promised."""
    ids = np.arange(len(exact)) if sample_ids is None else sample_ids
    parts = precision.encode(exact, ids, view)
    assert {name: Column(part.dtype, part.shape[1:]) for name, part in parts.items()} == precision.columns()
    assert all(len(part) == len(exact) for part in parts.values())
    decoded = precision.decode(parts)
    assert (decoded.dtype, decoded.shape) == (np.float32, exact.shape)
    return parts, decoded


def errors(stored, exact):
    return stored.astype(np.float64) - exact


@given(logits(bound=60_000.0, max_classes=9), BITS)
@example(np.array([[0, 1, 2, 3, 4]], np.float32), 4)
def test_codes_are_off_by_half_a_step_at_most(exact, bits):
    parts, stored = back(Affine(exact.shape[1], bits), exact)
    scale = parts["scale"].astype(np.float64)[:, None]
    rounding = np.spacing(np.abs(stored)) + scale * 2.0 ** (bits - 23)
    assert (np.abs(errors(stored, exact)) <= scale / 2 + rounding).all()


@given(logits(bound=60_000.0))
def test_float16_is_off_by_half_of_its_spacing_at_most(exact):
    parts, stored = back(Floats(exact.shape[1], np.dtype(np.float16)), exact)
    assert (np.abs(errors(stored, exact)) <= np.spacing(np.abs(parts["logits"])).astype(np.float64) / 2).all()


@given(logits(bound=float(np.float32(3e38))))
def test_float32_comes_back_exactly(exact):
    assert np.array_equal(back(Floats(exact.shape[1], np.dtype(np.float32)), exact)[1], exact)


@pytest.mark.parametrize("value", [1e5, np.inf, np.nan])
def test_what_float16_cannot_hold_is_refused_with_its_value(value):
    with pytest.raises(ValueError, match=rf"^a logit of {value:.3g} does not fit float16$".replace("+", r"\+")):
        Floats(2, np.dtype(np.float16)).encode(np.array([[0, value]], np.float32), np.array([0]), 0)
    for row in ([0, 1, value], [value, value, 1]):
        with pytest.raises(ValueError, match="does not fit float16"), np.errstate(invalid="ignore"):
            TopK(3, 1).encode(np.array([row], np.float32), np.array([0]), 0)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 4), st.integers(1, 9)), elements=st.integers(0, 15)))
def test_packed_nibbles_come_back(codes):
    packed = pack_nibbles(codes)
    assert packed.shape == (len(codes), (codes.shape[1] + 1) // 2)
    assert np.array_equal(unpack_nibbles(packed, codes.shape[1]), codes)
    for row, column in np.ndindex(codes.shape):
        assert packed[row, column // 2] >> 4 * (column % 2) & 15 == codes[row, column]
    if codes.shape[1] % 2:
        assert (packed[:, -1] < 16).all()


def every_precision(num_classes):
    """One of each kind that this number of classes allows."""
    floats = [Floats(num_classes, np.dtype(dtype)) for dtype in (np.float32, np.float16)]
    top = [TopK(num_classes, k) for k in {1, num_classes - 1} if 0 < k < num_classes]
    return [*floats, Affine(num_classes, 8), Affine(num_classes, 4), *top, Sampled(num_classes, 7, 2.0)]


@given(logits(bound=1000.0, max_classes=6))
def test_the_class_that_a_row_names_is_where_its_decoded_logits_are_largest(exact):
    for precision in every_precision(exact.shape[1]):
        parts, stored = back(precision, exact)
        named = precision.top_class(parts)
        assert named.dtype == np.int64
        assert (stored[np.arange(len(stored)), named] == stored.max(axis=1)).all()
        if not isinstance(precision, TopK):
            assert np.array_equal(named, stored.argmax(axis=1))


@given(logits(bound=1000.0, max_classes=6))
def test_top_k_names_the_teachers_own_class_even_where_float16_cannot_tell_it(exact):
    for precision in every_precision(exact.shape[1]):
        if isinstance(precision, TopK):
            assert np.array_equal(precision.top_class(back(precision, exact)[0]), exact.argmax(axis=1))


def test_of_equal_logits_the_first_class_is_named():
    exact = np.array([[1, 5, 5, 5, 0]], np.float32)
    for precision in every_precision(5)[:-1]:
        assert precision.top_class(precision.encode(exact, np.array([0]), 0)).tolist() == [1]
    drawn = {"index": np.array([[1, 1, 3, 3, 4]], np.uint16)}
    assert Sampled(5, 5, 1.0).top_class(drawn).tolist() == [1]


@given(logits(bound=500.0, max_classes=9).filter(lambda rows: rows.shape[1] > 1), st.data())
def test_top_k_keeps_the_largest_logits_and_the_weight_of_the_rest(exact, data):
    num_classes = exact.shape[1]
    k = data.draw(st.integers(1, num_classes - 1))
    parts, stored = back(TopK(num_classes, k), exact)
    kept = parts["index"].astype(np.int64)
    assert np.array_equal(kept, np.argsort(-exact, axis=1, kind="stable")[:, :k])
    assert np.array_equal(parts["logits"], np.take_along_axis(exact, kept, axis=1).astype(np.float16))
    assert np.array_equal(np.take_along_axis(stored, kept, axis=1), parts["logits"].astype(np.float32))
    is_rest = np.ones(exact.shape, dtype=bool)
    np.put_along_axis(is_rest, kept, False, axis=1)
    rest = exact[is_rest].reshape(len(exact), num_classes - k).astype(np.float64)
    assert np.array_equal(np.unique(stored[is_rest]), np.unique(parts["remainder"].astype(np.float32)))
    # Without float16's rounding the rest would have together just the weight that it had, at temperature 4.
    oracle = 4 * (logsumexp(rest / 4, axis=1) - np.log(num_classes - k))
    assert np.allclose(parts["remainder"].astype(np.float64), oracle, rtol=2**-11, atol=2**-24)
    mass = logsumexp(rest / 4, axis=1) - logsumexp(exact.astype(np.float64) / 4, axis=1)
    remainder = np.repeat(oracle[:, None], num_classes - k, axis=1)
    top = np.take_along_axis(exact, kept, axis=1).astype(np.float64)
    found = logsumexp(remainder / 4, axis=1) - logsumexp(np.concatenate([top, remainder], axis=1) / 4, axis=1)
    assert np.allclose(found, mass, atol=1e-9)


def test_top_k_takes_equal_logits_in_the_order_of_their_classes():
    parts = TopK(5, 3).encode(np.array([[2, 7, 2, 7, 2]], np.float32), np.array([0]), 0)
    assert parts["index"].tolist() == [[1, 3, 0]]
    assert parts["logits"].tolist() == [[7, 7, 2]]
    assert parts["remainder"].tolist() == [2]


def test_class_positions_take_two_bytes_up_to_65536_classes():
    assert index_dtype(65_536) == np.uint16
    assert index_dtype(65_537) == np.uint32
    assert TopK(65_536, 3).columns()["index"] == Column(np.dtype(np.uint16), (3,))
    assert Sampled(65_537, 3, 1.0).columns()["index"] == Column(np.dtype(np.uint32), (3,))


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        (Floats(1000, np.dtype(np.float32)), 4000),
        (Floats(1000, np.dtype(np.float16)), 2000),
        (Affine(1000, 8), 1004),
        (Affine(1000, 4), 504),
        (Affine(5, 4), 7),
        (TopK(1000, 20), 82),
        (Sampled(1000, 50, 4.0), 100),
    ],
)
def test_a_row_takes_so_many_bytes(precision, expected):
    assert row_bytes(precision) == expected


def test_sampled_rows_are_unbiased():
    """Shares of classes over 40,000 rows of 5 draws, against the softmax: within 5 standard errors."""
    temperature, draws, views = 3.0, 5, 10
    one = np.array([[4.0, 0.0, -3.0, 7.5, 2.0, -40.0]], np.float32)
    ids = np.arange(4000) * 977
    precision = Sampled(6, draws, temperature)
    rows = np.repeat(one, len(ids), axis=0)
    index = np.concatenate([precision.encode(rows, ids, view)["index"] for view in range(views)])
    p, n = softmax(one[0].astype(np.float64) / temperature), index.size
    shares = np.bincount(index.ravel(), minlength=6) / n
    assert (np.abs(shares - p) <= 5 * np.sqrt(p * (1 - p) / n) + 1e-12).all()
    # Draws of one row do not depend on each other: the counts' spread is that of the multinomial distribution.
    counts = (index == 3).sum(axis=1)
    variance = draws * p[3] * (1 - p[3])
    assert counts.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / len(counts)))


def test_sampled_rows_are_exactly_unbiased_over_evenly_spread_words(monkeypatch):
    """Words that go evenly through all 2**32 give each class its share to within one word."""
    steps = 2**16
    words = (np.arange(steps, dtype=np.uint64) << np.uint64(16)).astype(np.uint32).reshape(-1, 4)
    monkeypatch.setattr(precisions, "random_words", lambda *_: words)
    one = np.array([[0.3, -1.0, 2.0, 0.0, -8.0]], np.float32)
    index = Sampled(5, 4, 1.5).encode(np.repeat(one, len(words), axis=0), np.arange(len(words)), 0)["index"]
    shares = np.bincount(index.ravel(), minlength=5) / steps
    assert np.allclose(shares, softmax(one[0].astype(np.float64) / 1.5), atol=1 / steps)


@given(logits(bound=20.0, max_rows=6, max_classes=7), st.integers(0, 99_999), st.integers(1, 9), st.data())
def test_draws_depend_on_sample_and_view_only(exact, view, draws, data):
    precision = Sampled(exact.shape[1], draws, 1.0)
    ids = 13 + 7 * np.arange(len(exact))
    whole = precision.encode(exact, ids, view)["index"]
    order = np.array(data.draw(st.permutations(range(len(exact)))))[: data.draw(st.integers(1, len(exact)))]
    assert np.array_equal(precision.encode(exact[order], ids[order], view)["index"], whole[order])


def test_a_rows_place_in_its_batch_moves_no_draw(monkeypatch):
    """A share that ends a hair above a word's number counts as above it in the last row of a block as in the first."""
    monkeypatch.setattr(precisions, "random_words", lambda *_: np.full((4096, 4), 2**31, np.uint32))
    a_hair = np.log1p(2e-14)  # class 0 has ½ + 5e-15
    exact = np.repeat(np.array([[a_hair, 0.0]], np.float32), 4096, axis=0)
    index = Sampled(2, 1, 1.0).encode(exact, np.arange(4096), 0)["index"]
    assert (index == 0).all()


def test_other_samples_and_other_views_have_other_draws():
    exact = np.zeros((2, 1000), np.float32)
    precision = Sampled(1000, 30, 1.0)
    first = precision.encode(exact, np.array([4, 5]), 0)["index"]
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, precision.encode(exact, np.array([4, 5]), 1)["index"])
    assert (np.diff(first.astype(np.int64), axis=1) >= 0).all()


@given(logits(bound=20.0, max_classes=7), st.integers(1, 9), st.floats(0.5, 20))
def test_softmax_of_sampled_rows_at_their_temperature_is_the_share_of_each_class(exact, draws, temperature):
    num_classes = exact.shape[1]
    parts, stored = back(Sampled(num_classes, draws, temperature), exact)
    counts = np.stack([np.bincount(row, minlength=num_classes) for row in parts["index"]])
    assert np.allclose(softmax(stored.astype(np.float64) / temperature, axis=1), counts / draws, atol=1e-6)
    in_float32 = softmax(stored / np.float32(temperature), axis=1)
    assert (in_float32[counts == 0] == 0).all()


def test_a_class_without_weight_is_never_drawn():
    exact = np.full((500, 4), -1e4, np.float32)
    exact[:, 2] = 1e4
    assert (Sampled(4, 8, 1.0).encode(exact, np.arange(500), 0)["index"] == 2).all()


@settings(deadline=None)
@given(logits(bound=300.0, max_rows=4, max_classes=9), st.sampled_from([0.5, 1.0, 2.0, 4.0, 20.0]))
def test_measured_kl_never_exceeds_its_bound(exact, temperature):
    for precision in every_precision(exact.shape[1])[:-1]:
        stored = back(precision, exact)[1]
        error = errors(stored, exact)
        bound = kl_bound(error.max(axis=1) - error.min(axis=1), temperature)
        assert (row_kl(exact, stored, temperature) <= bound * (1 + 1e-9) + 1e-13).all(), precision


@given(logits(bound=100.0, max_classes=6), st.integers(0, 999), st.floats(0.3, 20))
def test_row_kl_is_that_of_scipy(exact, seed, temperature):
    noise = np.random.default_rng(seed).normal(0, 1, exact.shape)
    stored = (exact + noise).astype(np.float32)
    p, q = (softmax(values.astype(np.float64) / temperature, axis=1) for values in (exact, stored))
    found = row_kl(exact, stored, temperature)
    assert np.allclose(found, rel_entr(p, q).sum(axis=1), rtol=1e-9, atol=1e-12)
    assert (found >= 0).all()
    assert (row_kl(exact, exact, temperature) == 0).all()
    assert np.allclose(np.exp(log_softmax(exact, temperature)), p, rtol=1e-9)


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"precision": "float32"}, Floats(10, np.dtype(np.float32))),
        ({"precision": "float16"}, Floats(10, np.dtype(np.float16))),
        ({"precision": "uint8"}, Affine(10, 8)),
        ({"precision": "uint4"}, Affine(10, 4)),
        ({"precision": "top_k", "top_k": 9}, TopK(10, 9)),
        ({"precision": "sampled", "draws": 3, "temperature": 4.0, "max_kl": None}, Sampled(10, 3, 4.0)),
    ],
)
def test_knobs_name_their_precision(knobs, expected):
    precision = make_precision(StorageKnobs(**knobs), 10)
    assert precision == expected
    assert precision.temperature == knobs.get("temperature")


@pytest.mark.parametrize("k", [10, 11])
def test_top_k_must_leave_something_out(k):
    with pytest.raises(ValueError, match=rf"^top_k {k} leaves nothing out of 10 classes; use precision: float16$"):
        make_precision(StorageKnobs(precision="top_k", top_k=k), 10)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"precision": "top_k"}, "precision: top_k needs top_k; give it"),
        ({"precision": "sampled", "draws": 3, "max_kl": None}, "precision: sampled needs temperature; give it"),
        ({"precision": "sampled", "temperature": 4.0, "max_kl": None}, "precision: sampled needs draws; give it"),
        ({"precision": "uint8", "top_k": 3}, "precision: uint8 has no top_k; remove it"),
        ({"precision": "top_k", "top_k": 3, "draws": 3}, "precision: top_k has no draws; "),
        ({"precision": "sampled", "draws": 3, "temperature": 4.0}, "no error is certified; give max_kl: null"),
    ],
)
def test_knobs_that_contradict_each_other_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        StorageKnobs(**knobs)
