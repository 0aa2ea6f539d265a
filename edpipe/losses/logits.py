"""Losses on logits beyond plain KD, per sample, in nats: standardised logits, DKD and DIST."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from edpipe.losses.kd import check_temperature, kd_loss, precise

_STD_FLOOR = 1e-7  # that of the authors' code (Sun et al. 2024)
_ROUNDING = 64  # machine epsilons: logits of some tens are rounded by so much, and their probabilities with them
_LEAST_SPREAD = 1e-30  # probabilities that differ by less have gradients beyond float32


def dkd_loss(
    student: Float[Tensor, "sample class"],
    teacher: Float[Tensor, "sample class"],
    labels: Int64[Tensor, " sample"],
    temperature: float,
    alpha: float,
    beta: float,
) -> Float[Tensor, " sample"]:
    """Decoupled KD of logits, τ² · (α · TCKD + β · NCKD) in nats (Zhao et al. 2022).

    TCKD: divergence of (label, any other class); NCKD: divergence within the other classes. KL is TCKD + (1 - p) · NCKD
    with p the teacher's probability of the label, so that plain KD forgets NCKD exactly where the teacher is sure.
    One class leaves nothing to learn: 0.

    Args:
        student: logits.
        teacher: logits of the same classes.
        labels: the true class of each sample, as a column of both.
        temperature: divides both logits.
        alpha: weight of TCKD, at least 0.
        beta: weight of NCKD, at least 0.

    Raises:
        ValueError: temperature is not positive, or a weight is negative.
    """
    check_temperature(temperature)
    _check_weights(alpha=alpha, beta=beta)
    if student.shape[1] == 1:
        return kd_loss(student, teacher, temperature)
    (student_label, student_others), (teacher_label, teacher_others) = (
        _label_and_others(precise(logits) / temperature, labels) for logits in (student, teacher)
    )
    target = kd_loss(_two_classes(student_label, student_others), _two_classes(teacher_label, teacher_others), 1.0)
    others = kd_loss(student_others, teacher_others, 1.0)
    return temperature**2 * (alpha * target + beta * others)


def dist_loss(
    student: Float[Tensor, "sample class"],
    teacher: Float[Tensor, "sample class"],
    temperature: float,
    beta: float,
    gamma: float,
) -> Float[Tensor, " sample"]:
    """DIST of logits, τ² · (β · inter + γ · intra) (Huang et al. 2022); correlations have no unit.

    inter: 1 - Pearson correlation of student and teacher over a sample's class probabilities. intra: mean over classes
    of 1 - their correlation over the batch; one number of the batch, given to each of its samples, so it changes with
    the samples that are shown together.

    Where the teacher's probabilities are all equal (a batch of one sample, a single class) there is nothing to be
    correlated with: 0. Where only the student's are, the correlation counts as 0: 1, without gradient. The authors'
    code instead adds 1e-8 to the product of lengths, which also mutes rare classes; the formula itself does not.

    Raises:
        ValueError: temperature is not positive, or a weight is negative.
    """
    check_temperature(temperature)
    _check_weights(beta=beta, gamma=gamma)
    student_probs, teacher_probs = (F.softmax(precise(logits) / temperature, dim=-1) for logits in (student, teacher))
    inter = _decorrelation(student_probs, teacher_probs)
    # Of no samples there is no mean.
    intra = _decorrelation(student_probs.T, teacher_probs.T).mean() if len(student) else inter.sum()
    return temperature**2 * (beta * inter + gamma * intra)


def standardise(logits: Float[Tensor, "sample class"]) -> Float[Tensor, "sample class"]:
    """Logits less their mean over classes, divided by their standard deviation (Sun et al. 2024).

    Both sides of `kd_loss` go through it, at a base temperature. The deviation is the unbiased one and 1e-7 is added to
    it, as in the authors' code. Equal logits and a single class give 0; the gradient at equal logits is finite, but
    large (up to 1e7), so it is no start for a head whose weights are all zero.
    """
    # Less the first: the mean of equal numbers may be rounded, that of zeros is not. It moves no gradient.
    shifted = precise(logits) - precise(logits)[:, :1].detach()
    centred = shifted - shifted.mean(dim=-1, keepdim=True)
    # Not torch.std, which is NaN for one class; the length has a gradient at 0, its square root has none.
    std = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / max(logits.shape[1] - 1, 1) ** 0.5
    return centred / (std + _STD_FLOOR)


def _label_and_others(
    logits: Float[Tensor, "sample class"], labels: Int64[Tensor, " sample"]
) -> tuple[Float[Tensor, "sample 1"], Float[Tensor, "sample other"]]:
    """The label's logit, and those of the other classes in their order."""
    label = labels[:, None]
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, label), logits.gather(1, columns + (columns >= label))


def _two_classes(label: Float[Tensor, "sample 1"], others: Float[Tensor, "sample other"]) -> Float[Tensor, "sample 2"]:
    """Logits of (label, any other class): log-sums, because 1 - p loses all digits where p is near 1."""
    return torch.cat([label, others.logsumexp(dim=1, keepdim=True)], dim=1)


def _decorrelation(student: Float[Tensor, "row entry"], teacher: Float[Tensor, "row entry"]) -> Float[Tensor, " row"]:
    """1 - Pearson correlation of each row of probabilities, with the exceptions that `dist_loss` names."""
    (student_units, student_varies), (teacher_units, teacher_varies) = _units(student), _units(teacher)
    # Half the squared distance of unit vectors is 1 - their product, but exactly 0 at equality and never below.
    distance = (student_units - teacher_units).pow(2).sum(dim=1) / 2
    return torch.where(student_varies, distance, torch.ones_like(distance)) * teacher_varies


def _units(probs: Float[Tensor, "row entry"]) -> tuple[Float[Tensor, "row entry"], Bool[Tensor, " row"]]:
    """Rows less their mean, of length 1, and whether a row varies by more than rounding; if not, it is 0."""
    low, high = probs.detach().amin(dim=1, keepdim=True), probs.detach().amax(dim=1, keepdim=True)
    spread = high - low
    varies = spread > (_ROUNDING * torch.finfo(probs.dtype).eps * high).clamp_min(_LEAST_SPREAD)
    # Correlation knows no shift and no scale, so no gradient is due to either; squares of rare classes would be 0.
    shares = (probs - low) / torch.where(varies, spread, 1)
    centred = shares - shares.mean(dim=1, keepdim=True)
    return F.normalize(centred * varies, dim=1), varies.squeeze(1)


def _check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name} must be >= 0, got {weight}")
