"""Random words that depend only on what they are for: Philox4x32-10, a counter-based generator.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The words are a pure function of (seed, purpose,
sample id, number): no order of visiting, batch size, device or library version can change them.
"""

from enum import IntEnum

import numpy as np
from jaxtyping import Float64, Int64, UInt32

from edpipe.views.axes import SampleIds

# Multipliers and Weyl increments of Philox4x32: Salmon et al. 2011, and Random123's philox.h.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF
WORD_BITS = 32


class Purpose(IntEnum):
    """What words are drawn for: streams of two purposes share no counter. A number, once used, keeps its meaning."""

    VIEW_CHOICE = 1
    SAMPLE_ORDER = 2
    PAD_CROP = 3
    RESIZED_CROP_SIDES = 4
    RESIZED_CROP_PLACE = 5
    VIEW_CYCLE = 6
    JITTER_FACTORS = 7
    JITTER_ORDER = 8
    RAND_AUGMENT = 9
    RAND_AUGMENT_MORE = 10
    MIX = 11
    MIX_PLACE = 12
    SAMPLED_CLASS = 20
    TRAINING_NOISE = 30


def philox4x32(
    counter: UInt32[np.ndarray, "*batch 4"], key: UInt32[np.ndarray, "*#batch 2"]
) -> UInt32[np.ndarray, "*batch 4"]:
    """Four random words for each counter under its key: Philox4x32 with ten rounds.

    >>> [f"{word:08x}" for word in philox4x32(np.zeros(4, np.uint32), np.zeros(2, np.uint32))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    # 64-bit lanes hold the 32×32-bit products; each array is one contiguous column.
    c0, c1, c2, c3 = np.moveaxis(counter, -1, 0).astype(np.uint64)
    k0, k1 = np.moveaxis(key, -1, 0).astype(np.uint64)
    for _ in range(ROUNDS):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (product1 >> WORD_BITS) ^ c1 ^ k0, product1 & MASK
        c2, c3 = (product0 >> WORD_BITS) ^ c3 ^ k1, product0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def random_words(
    seed: int, purpose: Purpose, sample_ids: SampleIds, number: int | Int64[np.ndarray, " sample"]
) -> UInt32[np.ndarray, "sample 4"]:
    """Four words for each sample; `number` is the epoch or the view they are for.

    The key is the 64-bit seed; the counter is (low and high half of the sample id, number, purpose).

    Raises:
        ValueError: seed outside [0, 2**64), a negative sample id, or a number outside [0, 2**32).
    """
    low, high = seed_words(seed)
    _check_range("sample id", sample_ids, 2**63)
    number = np.asarray(number, dtype=np.int64)
    _check_range("epoch or view", number, 2**WORD_BITS)
    counter = np.empty((len(sample_ids), 4), dtype=np.uint32)
    counter[:, 0] = sample_ids & MASK
    counter[:, 1] = sample_ids >> WORD_BITS
    counter[:, 2] = number
    counter[:, 3] = purpose
    return philox4x32(counter, np.array([low, high], dtype=np.uint32))


def seed_words(seed: int) -> tuple[int, int]:
    """Low and high half of a seed: the key.

    Raises:
        ValueError: seed outside [0, 2**64).
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in [0, 2**64), got {seed}")
    return seed & MASK, seed >> WORD_BITS


def choose_below(
    words: UInt32[np.ndarray, " sample"], count: int | Int64[np.ndarray, " sample"]
) -> Int64[np.ndarray, " sample"]:
    """Each word mapped to 0 … count-1 by (word × count) >> 32; each value's share is 1/count to within 2**-32.

    >>> choose_below(np.array([0, 2**31, 2**32 - 1], np.uint32), 10).tolist()
    [0, 5, 9]

    Raises:
        ValueError: a count outside [1, 2**32].
    """
    counts = np.asarray(count, dtype=np.int64)
    if counts.size and not 1 <= counts.min() <= counts.max() <= 2**WORD_BITS:
        bad = counts.min() if counts.min() < 1 else counts.max()
        raise ValueError(f"count must be in [1, {2**WORD_BITS}], got {bad}")
    return ((words.astype(np.uint64) * counts.astype(np.uint64)) >> WORD_BITS).astype(np.int64)


def fractions(words: UInt32[np.ndarray, "*any"]) -> Float64[np.ndarray, "*any"]:
    """Each word as a number in [0, 1), exactly word / 2**32."""
    return words * 2.0**-32


def _check_range(what: str, values: Int64[np.ndarray, "*any"], end: int) -> None:
    """Raises ValueError naming the first value outside [0, end)."""
    if values.size == 0:
        return
    for value in (int(values.min()), int(values.max())):
        if not 0 <= value < end:
            raise ValueError(f"{what} must be in [0, {end}), got {value}")
