"""Logits that pass from the reference of the stage before to the student's own (Karras et al. 2018, section 2)."""

from jaxtyping import Float, Int64
from torch import Tensor


def faded(
    logits: Float[Tensor, "sample head"],
    before: Float[Tensor, "sample known"],
    columns: Int64[Tensor, " known"],
    own_share: float,
) -> Float[Tensor, "sample head"]:
    """(1 - own_share) · before + own_share · logits, where there is something before; else the logits alone.

    Args:
        logits: of the student.
        before: of the reference that the stage before ended with.
        columns: where its classes sit among the student's outputs.
        own_share: 0 to 1.
    """
    mixed = (1 - own_share) * before + own_share * logits[:, columns]
    return logits.index_copy(1, columns, mixed)
