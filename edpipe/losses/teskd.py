"""The loss of TESKD, in which a network learns from students that grow on its own stages (arXiv 2110.00329).

Where the paper's text and its code differ, the code is followed (zhengli427/TESKD: classification/utils.py, main.py).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from edpipe.losses.kd import task_loss
from edpipe.models.students.teskd_branches import TeskdOutputs

TARGET_OFFSET = 1e-7
"""Added to each probability of the backbone, so that none is zero; they then add up to more than 1."""


@dataclass(frozen=True)
class TeskdWeights:
    """How the terms of the loss are weighed; the defaults are those of the code.

    Raises:
        ValueError: temperature <= 0, task_share outside [0, 1], feature_weight < 0, or an unknown feature_reduction.
    """

    temperature: float = 4.0
    """Divides the logits of the kd loss. The code's first release had 3; which one made the paper's numbers is open."""
    task_share: float = 0.2
    """Of the sum of all cross-entropies; the kd losses get the rest."""
    feature_weight: float = 1e-7
    """Of the features' squared distances."""
    detach_target: bool = False
    """True: the kd loss teaches the students alone. The code's way is False: it pulls at the backbone's logits too."""
    feature_reduction: Literal["sum", "mean"] = "sum"
    """Over the samples of a batch. sum is the code's: the term grows with the batch size. mean: it does not."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")
        if not 0 <= self.task_share <= 1:
            raise ValueError(f"task_share must be in [0, 1], got {self.task_share}")
        if not self.feature_weight >= 0:
            raise ValueError(f"feature_weight must be >= 0, got {self.feature_weight}")
        if self.feature_reduction not in ("sum", "mean"):
            raise ValueError(f"feature_reduction must be 'sum' or 'mean', got {self.feature_reduction!r}")


def teskd_loss(
    outputs: TeskdOutputs,
    labels: Int64[Tensor, " sample"],
    weights: TeskdWeights = TeskdWeights(),
    batch_size: int | None = None,
) -> Float[Tensor, " sample"]:
    """Loss of each sample, nats; its mean over a batch is the code's loss of that batch.

    task_share · Σ cross-entropies of backbone and students + (1 - task_share) · Σ kd losses of the students
    + feature_weight · Σ squared distances of the students' features.

    With feature_reduction sum, a sample's feature term is multiplied by the batch size, for its mean to be the code's
    sum: the loss of a sample then depends on how many others there are, and a run with another batch size weighs
    features otherwise.

    Args:
        outputs: of the whole network, for these samples.
        labels: classes, numbered as the outputs are.
        weights: of the terms.
        batch_size: samples of the whole batch, if these are but one process's share of it.

    Raises:
        ValueError: there is no student, or not one of features for each of logits; batch_size is below the samples.
    """
    factor = _feature_factor(len(labels), batch_size, weights)
    loss = weights.task_share * task_loss(outputs.logits, labels)
    for logits, features in _students(outputs):
        kd = self_kd_loss(logits, outputs.logits, weights.temperature, weights.detach_target)
        loss = loss + weights.task_share * task_loss(logits, labels) + (1 - weights.task_share) * kd
        loss = loss + weights.feature_weight * factor * feature_loss(features, outputs.features)
    return loss


def self_kd_loss(
    student: Float[Tensor, "sample class"],
    backbone: Float[Tensor, "sample class"],
    temperature: float,
    detach_target: bool = False,
) -> Float[Tensor, " sample"]:
    """τ² · KL(backbone + 1e-7 ‖ student) of each sample, nats; unless detached, its gradient reaches both.

    Because of the offset, equal logits cost up to 1e-7 · τ² · (the number of classes) in place of 0.

    Raises:
        ValueError: temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    target = backbone.detach() if detach_target else backbone
    probs = F.softmax(_precise(target) / temperature, dim=-1) + TARGET_OFFSET
    log_probs_student = F.log_softmax(_precise(student) / temperature, dim=-1)
    return temperature**2 * (probs * (probs.log() - log_probs_student)).sum(dim=-1)


def feature_loss(
    student: Float[Tensor, "sample channel"], backbone: Float[Tensor, "sample channel"]
) -> Float[Tensor, " sample"]:
    """Squared distance of each sample's features to the backbone's, which stand still, over channels.

    Channels in which neither is positive are left out.
    """
    fixed = _precise(backbone.detach())
    own = _precise(student)
    is_active = (own > 0) | (fixed > 0)
    return ((own - fixed).square() * is_active).sum(dim=-1)


def _feature_factor(num_samples: int, batch_size: int | None, weights: TeskdWeights) -> int:
    if batch_size is not None and batch_size < num_samples:
        raise ValueError(f"batch_size must be >= the {num_samples} samples given, got {batch_size}")
    if weights.feature_reduction == "mean":
        return 1
    return num_samples if batch_size is None else batch_size


def _students(outputs: TeskdOutputs) -> list[tuple[Tensor, Tensor]]:
    counts = len(outputs.student_logits), len(outputs.student_features)
    if 0 in counts or counts[0] != counts[1]:
        raise ValueError(
            f"each student gives logits and features, got {counts[0]} of logits and {counts[1]} of features"
        )
    return list(zip(outputs.student_logits, outputs.student_features, strict=True))


def _precise(values: Float[Tensor, "sample number"]) -> Float[Tensor, "sample number"]:
    """In at least float32: sums of half-precision squares and logarithms lose too much."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
