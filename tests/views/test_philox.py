"""The generator: known answers, independent streams, no seed cut short."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from philox_answers import KNOWN_ANSWERS, words
from strategies import EPOCHS, SEEDS, sample_ids

from edpipe.views.philox import Purpose, choose_below, philox4x32, random_words

# Random123's kat_vectors, philox4x32 10.


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers_of_random123(counter, key, answer):
    assert philox4x32(words(counter), words(key)).tolist() == words(answer).tolist()


def test_many_counters_at_once_give_what_each_gives_alone():
    counters = np.stack([words(counter) for counter, _, _ in KNOWN_ANSWERS])
    keys = np.stack([words(key) for _, key, _ in KNOWN_ANSWERS])
    answers = np.stack([words(answer) for _, _, answer in KNOWN_ANSWERS])
    assert (philox4x32(counters, keys) == answers).all()


def philox_oracle(counter, key):
    """Plain Python integers, after the paper's section 3.3."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@given(SEEDS, st.sampled_from(Purpose), sample_ids(5, 2**63 - 1), EPOCHS)
def test_words_are_philox_of_the_documented_counter(seed, purpose, ids, number):
    key = (seed % 2**32, seed // 2**32)
    expected = [philox_oracle((i % 2**32, i // 2**32, number, purpose), key) for i in ids.tolist()]
    assert random_words(seed, purpose, ids, number).tolist() == expected


@given(sample_ids(10), st.integers(1, 8))
def test_words_do_not_depend_on_the_batch(ids, cut):
    whole = random_words(3, Purpose.PAD_CROP, ids, 7)
    parts = [random_words(3, Purpose.PAD_CROP, part, 7) for part in (ids[:cut], ids[cut:])]
    assert (whole == np.concatenate(parts)).all()


def test_high_bits_of_a_seed_count():
    ids = np.arange(4)
    drawn = [random_words(seed, Purpose.PAD_CROP, ids, 0).tobytes() for seed in (1, 1 + 2**32, 1 + 2**62, 1 + 2**63)]
    assert len(set(drawn)) == 4


def test_purposes_have_streams_of_their_own():
    streams = [random_words(1, purpose, np.arange(100), 0) for purpose in Purpose]
    assert len({tuple(row) for stream in streams for row in stream.tolist()}) == 100 * len(Purpose)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**32))
def test_choose_below_is_the_exact_product_shifted(word, count):
    chosen = int(choose_below(np.array([word], np.uint32), count)[0])
    assert chosen == word * count >> 32
    assert 0 <= chosen < count


@given(st.integers(1, 300))
def test_choose_below_gives_every_value_the_same_share_of_words(count):
    # The words 0 … 2**32-1 fall into `count` runs; the ends of the runs are ceil(i × 2**32 / count).
    starts = np.array([-(-i * 2**32 // count) for i in range(count)], dtype=np.uint64)
    assert choose_below(starts.astype(np.uint32), count).tolist() == list(range(count))
    if count > 1:
        before = (starts[1:] - np.uint64(1)).astype(np.uint32)
        assert choose_below(before, count).tolist() == list(range(count - 1))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((-1, np.array([0]), 0), r"seed must be in \[0, 2\*\*64\), got -1"),
        ((2**64, np.array([0]), 0), r"seed must be in \[0, 2\*\*64\), got 18446744073709551616"),
        ((0, np.array([5, -2]), 0), r"sample id must be in \[0, 9223372036854775808\), got -2"),
        ((0, np.array([0]), 2**32), r"epoch or view must be in \[0, 4294967296\), got 4294967296"),
        ((0, np.array([0, 1]), np.array([0, -1])), r"epoch or view must be in \[0, 4294967296\), got -1"),
    ],
)
def test_words_refuse_what_would_be_cut(arguments, text):
    seed, ids, number = arguments
    with pytest.raises(ValueError, match=text):
        random_words(seed, Purpose.PAD_CROP, ids, number)


@pytest.mark.parametrize("count", [0, 2**32 + 1])
def test_choose_below_refuses_other_counts(count):
    with pytest.raises(ValueError, match=rf"count must be in \[1, 4294967296\], got {count}"):
        choose_below(np.zeros(1, np.uint32), count)
