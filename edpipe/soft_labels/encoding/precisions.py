"""How rows of logits are stored, one class for each `storage.precision`; NumPy only.

A stored row consists of parts, each a column of the file. Every precision gives logits back, so that temperature and
loss stay the student's choice; `sampled` is the exception: its rows are an estimate at one temperature.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped, UInt8

from edpipe.params.soft_labels import StorageKnobs
from edpipe.soft_labels.encoding.quantisation import dequantise, quantise
from edpipe.soft_labels.encoding.softmax import log_softmax, log_sum_exp
from edpipe.views.axes import SampleIds
from edpipe.views.philox import WORD_BITS, Purpose, random_words

CERTIFIED_TEMPERATURE = 4.0
"""The temperature at which errors are stated; the certified bound scales with 1/temperature²."""
_WORDS = 4
_ABSENT = -1e4
"""Divided by the temperature: a logit whose softmax is 0 in float32, and whose product with 0 is 0."""
_LARGEST_UINT16 = 65_535
Parts = Mapping[str, Shaped[np.ndarray, "row ..."]]


@dataclass(frozen=True)
class Column:
    """One array of a file: for each row `shape` numbers; an empty shape is one number."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


@runtime_checkable
class Precision(Protocol):
    """What every precision can do."""

    @property
    def num_classes(self) -> int:
        """Length of a row."""
        ...

    @property
    def temperature(self) -> float | None:
        """The only one that the rows serve; None: any."""
        ...

    def columns(self) -> dict[str, Column]:
        """What a row consists of."""
        ...

    def encode(self, logits: Float32[np.ndarray, "row class"], sample_ids: SampleIds, view: int) -> Parts:
        """Parts of each row.

        Raises:
            ValueError: a logit does not fit.
        """
        ...

    def decode(self, parts: Parts) -> Float32[np.ndarray, "row class"]:
        """Logits that the parts stand for."""
        ...

    def top_class(self, parts: Parts) -> Int64[np.ndarray, " row"]:
        """Which class each row names; of equal ones the first."""
        ...


@dataclass(frozen=True)
class Floats:
    """Logits as they are (float32), or rounded (float16)."""

    num_classes: int
    dtype: np.dtype
    temperature: float | None = None

    def columns(self) -> dict[str, Column]:
        """One column."""
        return {"logits": Column(self.dtype, (self.num_classes,))}

    def encode(self, logits: Float32[np.ndarray, "row class"], sample_ids: SampleIds, view: int) -> Parts:
        """Rounded to the nearest."""
        with np.errstate(over="ignore"):
            stored = logits.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise ValueError(f"a logit of {np.abs(logits).max():.3g} does not fit {self.dtype}")
        return {"logits": stored}

    def decode(self, parts: Parts) -> Float32[np.ndarray, "row class"]:
        """In float32."""
        return parts["logits"].astype(np.float32)

    def top_class(self, parts: Parts) -> Int64[np.ndarray, " row"]:
        """The largest."""
        return parts["logits"].argmax(axis=1)


@dataclass(frozen=True)
class Affine:
    """Codes of 8 or 4 bits with a scale and a zero for each row: logits ≈ codes · scale + zero."""

    num_classes: int
    bits: int
    temperature: float | None = None

    def columns(self) -> dict[str, Column]:
        """Codes, two a byte where they have 4 bits; scale and zero."""
        width = -(-self.num_classes * self.bits // 8)
        float16 = Column(np.dtype(np.float16), ())
        return {"logits": Column(np.dtype(np.uint8), (width,)), "scale": float16, "zero": float16}

    def encode(self, logits: Float32[np.ndarray, "row class"], sample_ids: SampleIds, view: int) -> Parts:
        """Off by half a scale at most."""
        codes, scale, zero = quantise(logits, self.bits)
        return {"logits": pack_nibbles(codes) if self.bits == 4 else codes, "scale": scale, "zero": zero}

    def decode(self, parts: Parts) -> Float32[np.ndarray, "row class"]:
        """codes · scale + zero."""
        return dequantise(self._codes(parts), parts["scale"], parts["zero"])

    def top_class(self, parts: Parts) -> Int64[np.ndarray, " row"]:
        """Codes keep the order of the logits."""
        return self._codes(parts).argmax(axis=1)

    def _codes(self, parts: Parts) -> UInt8[np.ndarray, "row class"]:
        return unpack_nibbles(parts["logits"], self.num_classes) if self.bits == 4 else parts["logits"]


def pack_nibbles(codes: UInt8[np.ndarray, "row class"]) -> UInt8[np.ndarray, "row byte"]:
    """Two codes below 16 in a byte, the first in the lower half; an odd last one alone.

    >>> pack_nibbles(np.array([[1, 2, 15]], np.uint8)).tolist()
    [[33, 15]]
    """
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return even[:, 0::2] | (even[:, 1::2] << 4)


def unpack_nibbles(packed: UInt8[np.ndarray, "row byte"], count: int) -> UInt8[np.ndarray, "row {count}"]:
    """The codes that `pack_nibbles` was given."""
    return np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), 2 * packed.shape[1])[:, :count]


@dataclass(frozen=True)
class TopK:
    """The k largest logits (float16), and one value for all others.

    That value gives the others together the weight that they have at temperature 4.
    """

    num_classes: int
    k: int
    temperature: float | None = None

    def columns(self) -> dict[str, Column]:
        """Logits in falling order, their classes, and the value of the rest."""
        return {
            "logits": Column(np.dtype(np.float16), (self.k,)),
            "index": Column(index_dtype(self.num_classes), (self.k,)),
            "remainder": Column(np.dtype(np.float16), ()),
        }

    def encode(self, logits: Float32[np.ndarray, "row class"], sample_ids: SampleIds, view: int) -> Parts:
        """Of equal logits the first class comes first."""
        order = np.argsort(-logits, axis=1, kind="stable")
        sorted_logits = np.take_along_axis(logits, order, axis=1)
        rest = sorted_logits[:, self.k :].astype(np.float64) / CERTIFIED_TEMPERATURE
        remainder = CERTIFIED_TEMPERATURE * (log_sum_exp(rest) - np.log(rest.shape[1]))
        with np.errstate(over="ignore"):
            largest, remainder = sorted_logits[:, : self.k].astype(np.float16), remainder.astype(np.float16)
        if not (np.isfinite(largest).all() and np.isfinite(remainder).all()):
            raise ValueError(f"a logit of {np.abs(logits).max():.3g} does not fit float16")
        return {
            "logits": largest,
            "index": order[:, : self.k].astype(index_dtype(self.num_classes)),
            "remainder": remainder,
        }

    def decode(self, parts: Parts) -> Float32[np.ndarray, "row class"]:
        """The stored logits at their classes, the remainder elsewhere."""
        logits = np.repeat(parts["remainder"].astype(np.float32)[:, None], self.num_classes, axis=1)
        np.put_along_axis(logits, parts["index"].astype(np.int64), parts["logits"].astype(np.float32), axis=1)
        return logits

    def top_class(self, parts: Parts) -> Int64[np.ndarray, " row"]:
        """The first that is stored."""
        return parts["index"][:, 0].astype(np.int64)


@dataclass(frozen=True)
class Sampled:
    """Classes drawn with replacement from softmax(logits / temperature); a row's target is how often each was drawn.

    Every target's expectation is the teacher's softmax, so that the student's gradient is unbiased, which a cut-off
    after the largest k is not (Sparse Logit Sampling, arXiv 2503.16870). Draws come from the counter of (seed, sample,
    view), with the seed 0: equal dumps are equal.
    """

    num_classes: int
    draws: int
    temperature: float | None

    def columns(self) -> dict[str, Column]:
        """The class of each draw, ascending."""
        return {"index": Column(index_dtype(self.num_classes), (self.draws,))}

    def encode(self, logits: Float32[np.ndarray, "row class"], sample_ids: SampleIds, view: int) -> Parts:
        """Draws by inverting the cumulated softmax."""
        cumulated = np.exp(log_softmax(logits, self._temperature)).cumsum(axis=1)
        # The first word that no longer belongs to each class, as a whole number: no row's place moves a draw.
        ends = np.ceil(np.minimum(cumulated / cumulated[:, -1:], 1.0) * 2.0**WORD_BITS).astype(np.int64)
        # One search over all rows: row r occupies the numbers from r · 2**32 on.
        row = np.arange(len(logits), dtype=np.int64)[:, None]
        shift = row << WORD_BITS
        found = np.searchsorted((ends + shift).ravel(), (self._words(sample_ids, view) + shift).ravel(), side="right")
        classes = found.reshape(len(logits), self.draws) - row * self.num_classes
        return {"index": np.sort(classes, axis=1).astype(index_dtype(self.num_classes))}

    @property
    def _temperature(self) -> float:
        assert self.temperature is not None, "StorageKnobs gives sampled rows a temperature"
        return self.temperature

    def _words(self, sample_ids: SampleIds, view: int) -> Int64[np.ndarray, "row draw"]:
        """Below 2**32."""
        per_view = -(-self.draws // _WORDS)
        words = [random_words(0, Purpose.SAMPLED_CLASS, sample_ids, view * per_view + i) for i in range(per_view)]
        return np.concatenate(words, axis=1)[:, : self.draws].astype(np.int64)

    def misfit(
        self, logits: Float32[np.ndarray, "row class"], parts: Parts, sample_ids: SampleIds, view: int
    ) -> Float64[np.ndarray, " row"]:
        """How far a row's worst draw lies outside its stored class's part of these logits' cumulated softmax.

        0 for the parts that `encode` gives for them. If the logits' softmax moves, no draw's misfit grows by more than
        the total variation.
        """
        ends = np.exp(log_softmax(logits, self._temperature)).cumsum(axis=1)
        ends = np.pad(ends / ends[:, -1:], ((0, 0), (1, 0)))
        # Draws and stored classes ascend alike, so that the k-th of one belongs to the k-th of the other.
        drawn = np.sort(self._words(sample_ids, view), axis=1) * 2.0**-WORD_BITS
        classes = parts["index"].astype(np.int64)
        low, high = np.take_along_axis(ends, classes, axis=1), np.take_along_axis(ends, classes + 1, axis=1)
        return np.maximum(np.maximum(low - drawn, drawn - high), 0.0).max(axis=1)

    def decode(self, parts: Parts) -> Float32[np.ndarray, "row class"]:
        """Logits whose softmax at the temperature is the share of each class among the draws."""
        rows = np.arange(len(parts["index"]))[:, None]
        counts = np.zeros((len(rows), self.num_classes), dtype=np.float32)
        np.add.at(counts, (rows, parts["index"].astype(np.int64)), 1)
        with np.errstate(divide="ignore"):
            scaled = np.log(counts / self.draws)
        return (np.maximum(scaled, _ABSENT) * self._temperature).astype(np.float32)

    def top_class(self, parts: Parts) -> Int64[np.ndarray, " row"]:
        """The class drawn most often."""
        index = parts["index"]
        place = np.arange(self.draws)
        is_first = np.ones(index.shape, dtype=bool)
        is_first[:, 1:] = index[:, 1:] != index[:, :-1]
        # Draws ascend: the longest run of equal ones ends where the distance to its start is largest.
        start = np.maximum.accumulate(np.where(is_first, place, 0), axis=1)
        longest = (place - start).argmax(axis=1)
        return index[np.arange(len(index)), longest].astype(np.int64)


def index_dtype(num_classes: int) -> np.dtype:
    """Of stored class positions: 16 bits as long as they do."""
    return np.dtype(np.uint16 if num_classes <= _LARGEST_UINT16 + 1 else np.uint32)


def make_precision(knobs: StorageKnobs, num_classes: int) -> Precision:
    """The precision that the knobs name.

    Raises:
        ValueError: top_k keeps as many classes as there are.
    """
    if knobs.precision in ("uint8", "uint4"):
        return Affine(num_classes, int(knobs.precision.removeprefix("uint")))
    if knobs.precision == "top_k":
        assert knobs.top_k is not None, "StorageKnobs demands it"
        if knobs.top_k >= num_classes:
            raise ValueError(f"top_k {knobs.top_k} leaves nothing out of {num_classes} classes; use precision: float16")
        return TopK(num_classes, knobs.top_k)
    if knobs.precision == "sampled":
        assert knobs.draws is not None, "StorageKnobs demands it"
        return Sampled(num_classes, knobs.draws, knobs.temperature)
    return Floats(num_classes, np.dtype(knobs.precision))


def row_bytes(precision: Precision) -> int:
    """Bytes that one row takes in a file."""
    return sum(column.row_bytes for column in precision.columns().values())
