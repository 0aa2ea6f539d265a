"""What storing soft labels costs and saves: bytes, error, teacher forwards, and when a store has paid for itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from edpipe.params.soft_labels import StorageKnobs
from edpipe.soft_labels.encoding.precisions import index_dtype, make_precision, row_bytes
from edpipe.soft_labels.encoding.quantisation import kl_bound
from edpipe.soft_labels.encoding.softmax import row_kl
from edpipe.views.axes import SampleIds

PLAIN = {"max_kl": None, "attention": False, "hint": None}
"""Knobs that change no byte of the logits, as they are where precisions are compared."""
_LOGIT_BYTES = _REMAINDER_BYTES = 2
_MOST_TOP_K = 65_535


@dataclass(frozen=True)
class PrecisionCost:
    """One way to store rows of logits; errors are None until a teacher can be asked."""

    name: str
    storage: StorageKnobs
    row_bytes: int
    mean_kl: float | None = None
    """KL(teacher ‖ stored) of the rows that were tried, nats."""
    max_kl: float | None = None
    bound: float | None = None
    """Certified for these rows: R² / (8 τ²), nats."""


def candidates(num_classes: int, chosen: StorageKnobs) -> tuple[PrecisionCost, ...]:
    """The precisions to compare, the finest first; top_k at the bytes of uint8, and what is chosen if it is neither."""
    dense = [_knobs(precision=name) for name in ("float32", "float16", "uint8", "uint4")]
    same_bytes = (num_classes + 4 - _REMAINDER_BYTES) // (_LOGIT_BYTES + index_dtype(num_classes).itemsize)
    if 0 < same_bytes < min(num_classes, _MOST_TOP_K + 1):
        dense.append(_knobs(precision="top_k", top_k=same_bytes))
    plain = chosen.model_copy(update=PLAIN)
    if plain not in dense:
        dense.append(plain)
    return tuple(PrecisionCost(_name(knobs), knobs, row_bytes(make_precision(knobs, num_classes))) for knobs in dense)


def _knobs(**values: object) -> StorageKnobs:
    return StorageKnobs.model_validate({"max_kl": None, **values})


def _name(storage: StorageKnobs) -> str:
    if storage.precision == "top_k":
        return f"top_k {storage.top_k}"
    return f"sampled {storage.draws}" if storage.precision == "sampled" else storage.precision


def measure(
    cost: PrecisionCost, logits: Float32[np.ndarray, "row class"], sample_ids: SampleIds, temperature: float
) -> PrecisionCost:
    """The same with the errors of these rows at a temperature; of sampled rows, an estimate, there are none."""
    precision = make_precision(cost.storage, logits.shape[1])
    if precision.temperature is not None:
        return cost
    stored = precision.decode(precision.encode(logits, sample_ids, 0))
    kl, error = row_kl(logits, stored, temperature), stored.astype(np.float64) - logits
    bound = kl_bound(np.ptp(error, axis=1), temperature)
    return PrecisionCost(cost.name, cost.storage, cost.row_bytes, float(kl.mean()), float(kl.max()), float(bound.max()))


def store_bytes(
    storage: StorageKnobs, counts: Sequence[tuple[int, int]], num_views: int, feature_bytes: int = 0
) -> int:
    """Bytes of all rows; `counts` are samples and classes of each teacher, `beside_bytes` are a row's beside logits."""
    return sum(
        num_views * samples * (row_bytes(make_precision(storage, classes)) + feature_bytes)
        for samples, classes in counts
    )


@dataclass(frozen=True)
class ViewCost:
    """What so many views of every sample cost, and when that is less than asking the teacher while students train."""

    num_views: int
    forwards: int
    """Teacher forward passes to make the store, once."""
    num_bytes: int
    break_even: int
    """From so many students on the store takes no more teacher forwards than online distillation."""


def view_cost(
    num_views: int,
    storage: StorageKnobs,
    counts: Sequence[tuple[int, int]],
    images_per_student: int,
    feature_bytes: int = 0,
) -> ViewCost:
    """For so many views of all teachers' samples; `images_per_student` are those that a student sees with a teacher.

    >>> view_cost(8, StorageKnobs(), [(1000, 10)], images_per_student=3000).break_even
    3
    """
    forwards = num_views * sum(samples for samples, _ in counts)
    num_bytes = store_bytes(storage, counts, num_views, feature_bytes)
    return ViewCost(num_views, forwards, num_bytes, -(-forwards // images_per_student))
