"""The words of `edpipe.views.philox` on a torch device: the same integers, so that only ids need to be sent there.

torch has no full arithmetic for unsigned 64-bit integers; words are int64 in [0, 2**32), and products of two words are
made of parts that stay under 2**63.
"""

import torch
from jaxtyping import Int64
from torch import Tensor

from edpipe.views.philox import MASK, MULTIPLIERS, ROUNDS, WEYL, WORD_BITS, Purpose, seed_words

_HALF_BITS = WORD_BITS // 2
_HALF_MASK = (1 << _HALF_BITS) - 1


def philox4x32(counter: Int64[Tensor, "*batch 4"], key: tuple[int, int]) -> Int64[Tensor, "*batch 4"]:
    """Four random words for each counter under one key: Philox4x32 with ten rounds, as in `edpipe.views.philox`.

    >>> [f"{word:08x}" for word in philox4x32(torch.zeros(4, dtype=torch.int64), (0, 0)).tolist()]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key
    for _ in range(ROUNDS):
        (high0, low0), (high1, low1) = _product(c0, MULTIPLIERS[0]), _product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return torch.stack([c0, c1, c2, c3], dim=-1)


def _product(words: Int64[Tensor, "*batch"], factor: int) -> tuple[Int64[Tensor, "*batch"], Int64[Tensor, "*batch"]]:
    """High and low word of words × factor, both factors below 2**32."""
    low = words * (factor & _HALF_MASK)  # < 2**48
    rest = words * (factor >> _HALF_BITS) + (low >> _HALF_BITS)  # < 2**48 + 2**32
    return rest >> _HALF_BITS, ((rest & _HALF_MASK) << _HALF_BITS) | (low & _HALF_MASK)


def random_words(
    seed: int, purpose: Purpose, sample_ids: Int64[Tensor, " sample"], number: int | Int64[Tensor, " sample"]
) -> Int64[Tensor, "sample 4"]:
    """Four words in [0, 2**32) for each sample, those of `edpipe.views.philox.random_words`, on the ids' device.

    Ids in [0, 2**63) and numbers in [0, 2**32) are taken on trust: a check would make the host wait for the device.

    Raises:
        ValueError: seed outside [0, 2**64).
    """
    key = seed_words(seed)
    counter = torch.empty((len(sample_ids), 4), dtype=torch.int64, device=sample_ids.device)
    counter[:, 0] = sample_ids & MASK
    counter[:, 1] = sample_ids >> WORD_BITS
    counter[:, 2] = number
    counter[:, 3] = int(purpose)
    return philox4x32(counter, key)


def choose_below(words: Int64[Tensor, " sample"], count: int) -> Int64[Tensor, " sample"]:
    """Each word mapped to 0 … count-1 by (word × count) >> 32, as `edpipe.views.philox.choose_below`.

    >>> choose_below(torch.tensor([0, 2**31, 2**32 - 1]), 10).tolist()
    [0, 5, 9]

    Raises:
        ValueError: count outside [1, 2**32].
    """
    if not 1 <= count <= 2**WORD_BITS:
        raise ValueError(f"count must be in [1, {2**WORD_BITS}], got {count}")
    low = (words & _HALF_MASK) * count  # < 2**48
    return ((words >> _HALF_BITS) * count + (low >> _HALF_BITS)) >> _HALF_BITS
