"""What a student is trained on, per sample, in nats: the task loss, the kd loss, and their weighted mean."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def task_loss(
    logits: Float[Tensor, "sample head"], labels: Int64[Tensor, " sample"], label_smoothing: float = 0.0
) -> Float[Tensor, " sample"]:
    """Cross-entropy of each sample with its label; labels are numbered as the outputs are.

    Label smoothing gives that share of the label to all outputs alike (Szegedy et al. 2016, section 7).
    """
    return F.cross_entropy(precise(logits), labels, reduction="none", label_smoothing=label_smoothing)


def kd_loss(
    student: Float[Tensor, "sample class"], teacher: Float[Tensor, "sample class"], temperature: float
) -> Float[Tensor, " sample"]:
    """τ² · KL(teacher ‖ student) of each sample, both given as logits.

    The factor: softening by τ divides the gradient by about τ², and the weight against the task loss must not change
    with the temperature (Hinton et al. 2015, section 2).

    Raises:
        ValueError: temperature is not positive.
    """
    check_temperature(temperature)
    return _divergence(F.log_softmax(precise(student) / temperature, dim=-1), teacher, temperature)


def slice_kd_loss(
    student_logits: Float[Tensor, "sample head"],
    teacher_logits: Float[Tensor, "sample class"],
    columns: Int64[Tensor, " class"],
    temperature: float,
    normalisation: Literal["slice", "full"],
) -> Float[Tensor, " sample"]:
    """kd loss against a teacher of some of the student's classes.

    Args:
        student_logits: of all of the student's outputs.
        teacher_logits: of the teacher's own classes.
        columns: where the teacher's classes sit among the student's outputs.
        temperature: divides both logits.
        normalisation: slice: the student's softmax runs over the teacher's classes alone; full: over all its outputs,
            so that what it gives to other classes costs too.

    Raises:
        ValueError: temperature is not positive, or an unknown normalisation.
    """
    if normalisation == "slice":
        return kd_loss(student_logits[:, columns], teacher_logits, temperature)
    if normalisation != "full":
        raise ValueError(f"normalisation must be 'slice' or 'full', got '{normalisation}'")
    check_temperature(temperature)
    log_probs = F.log_softmax(precise(student_logits) / temperature, dim=-1)
    return _divergence(log_probs[:, columns], teacher_logits, temperature)


def combine(
    task: Float[Tensor, " sample"], distill: Float[Tensor, " sample"], task_weight: float, distill_weight: float
) -> Float[Tensor, " sample"]:
    """task_weight · task + distill_weight · distill of each sample.

    Raises:
        ValueError: a weight below 0.
    """
    if min(task_weight, distill_weight) < 0:
        raise ValueError(f"weights must be >= 0, got {task_weight} and {distill_weight}")
    return task_weight * task + distill_weight * distill


def precise(values: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Values in at least float32: logarithms and squares of half-precision sums lose too much."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def check_temperature(temperature: float) -> None:
    """Nothing, for a temperature that logits can be divided by.

    Raises:
        ValueError: temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")


def _divergence(
    student_log_probs: Float[Tensor, "sample class"], teacher: Float[Tensor, "sample class"], temperature: float
) -> Float[Tensor, " sample"]:
    """τ² · KL(teacher ‖ student); the student's probabilities may add up to less than 1."""
    teacher_log_probs = F.log_softmax(precise(teacher) / temperature, dim=-1)
    terms = F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True)
    return terms.sum(dim=-1) * temperature**2
