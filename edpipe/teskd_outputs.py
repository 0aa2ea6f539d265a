"""What a network in training with TESKD says; apart from its loss, whose edits change no evaluation."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class TeskdOutputs(NamedTuple):
    """What a network and its students say of a batch; the students from the deepest to the shallowest."""

    logits: Float[Tensor, "sample class"]
    """Of the backbone."""
    student_logits: list[Float[Tensor, "sample class"]]
    features: Float[Tensor, "sample channel"]
    """Mean of the backbone's deepest feature map."""
    student_features: list[Float[Tensor, "sample channel"]]
    """What each student's classifier sees."""
