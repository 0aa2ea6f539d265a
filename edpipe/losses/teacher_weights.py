"""Several teachers of the same classes: how much each counts for each sample.

The weights of a sample add up to 1 by every rule, so that the kd loss is as strong by all of them. Published code
(Rorozhl/CA-MKD) divides the sums of two rules by the number of teachers once more, and so compares them, for three
teachers, at a third (ca_mkd) or two thirds (ebkd) of the strength of the plain mean.

One teacher has weight 1 exactly: its panel is plain KD, bit for bit.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from edpipe.losses.kd import check_temperature, precise, task_loss

WeightingRule = Literal["aver", "ebkd", "aekd", "ca_mkd"]
_AEKD_CAP = 0.6  # C of the authors' code: with ν = 1 / (C · K), the one-class SVM's bound 1 / (ν · K) is C


# Of the mean squared gradient: it decides between weights that are as good, for the most equal ones.
_RIDGE = 1e-8
_NNLS_ITERATIONS = 10_000  # SciPy's own limit is 3 · K, and the hardest of 6,000 problems took 2.3 · K


def teacher_weights(
    rule: WeightingRule,
    student: Float[Tensor, "sample class"],
    teachers: Float[Tensor, "teacher sample class"],
    labels: Int64[Tensor, " sample"],
    temperature: float,
) -> Float[Tensor, "teacher sample"]:
    """Weight of each teacher for each sample; at least 0, adding up to 1 over teachers, without gradient.

    With K teachers:
    - aver: 1 / K.
    - ebkd: (1 - H_k / ΣH) / (K - 1), H the entropy of the teacher at temperature 1 (Kwon et al. 2020); 1 / K where all
      entropies are 0.
    - ca_mkd: (1 - softmax_k(CE_k)) / (K - 1), CE the teacher's cross-entropy with the label (Zhang et al. 2022).
    - aekd: one weight per teacher for the whole batch, no more than 0.6 each, that make the weighted sum of gradients
      as short as can be (Du et al. 2020): those of the kd losses over the student's logits, averaged over the batch as
      in the authors' code. Of equally good weights, the most equal.

    Args:
        rule: one of the four.
        student: logits; only aekd looks at them.
        teachers: logits, of the same classes.
        labels: columns of the logits; only ca_mkd looks at them.
        temperature: of the kd loss; only aekd looks at it.

    Raises:
        ValueError: the rule is unknown, there is no teacher, or temperature is not positive.
    """
    if rule not in _RULES:
        raise ValueError(f"panel rule must be one of {', '.join(_RULES)}, got {rule!r}")
    if not len(teachers):
        raise ValueError("a panel needs at least 1 teacher, got 0")
    check_temperature(temperature)
    with torch.no_grad():
        logits = precise(teachers)
        if len(logits) == 1:
            return torch.ones_like(logits[..., 0])
        return _RULES[rule](precise(student), logits, labels, temperature)


def _aver(
    student: Float[Tensor, "sample class"],
    teachers: Float[Tensor, "teacher sample class"],
    labels: Int64[Tensor, " sample"],
    temperature: float,
) -> Float[Tensor, "teacher sample"]:
    return torch.full_like(teachers[..., 0], 1 / len(teachers))


def _ebkd(
    student: Float[Tensor, "sample class"],
    teachers: Float[Tensor, "teacher sample class"],
    labels: Int64[Tensor, " sample"],
    temperature: float,
) -> Float[Tensor, "teacher sample"]:
    log_probs = F.log_softmax(teachers, dim=-1)
    entropies = -(log_probs.exp() * log_probs).sum(dim=-1)
    total = entropies.sum(dim=0)
    shares = torch.where(total > 0, entropies / total, 1 / len(teachers))
    return (1 - shares) / (len(teachers) - 1)


def _ca_mkd(
    student: Float[Tensor, "sample class"],
    teachers: Float[Tensor, "teacher sample class"],
    labels: Int64[Tensor, " sample"],
    temperature: float,
) -> Float[Tensor, "teacher sample"]:
    entropies = torch.stack([task_loss(teacher, labels) for teacher in teachers])
    return (1 - F.softmax(entropies, dim=0)) / (len(teachers) - 1)


def _aekd(
    student: Float[Tensor, "sample class"],
    teachers: Float[Tensor, "teacher sample class"],
    labels: Int64[Tensor, " sample"],
    temperature: float,
) -> Float[Tensor, "teacher sample"]:
    # The gradient of τ² · KL is this times τ / samples, the same factor for all: it does not move the shortest sum.
    gradients = F.softmax(student / temperature, dim=-1) - F.softmax(teachers / temperature, dim=-1)
    rows = gradients.cpu().double().mean(dim=1)  # there, for Apple's GPUs have no float64
    weights = _shortest_sum(rows @ rows.T).to(teachers)
    return weights[:, None].expand(teachers.shape[:2])


_Rule = Callable[[Tensor, Tensor, Tensor, float], Tensor]
_RULES: dict[str, _Rule] = {"aver": _aver, "ebkd": _ebkd, "aekd": _aekd, "ca_mkd": _ca_mkd}


def _shortest_sum(gram: Float64[Tensor, "teacher teacher"]) -> Float64[Tensor, " teacher"]:
    """Weights a in [0, 0.6] that add up to 1 and minimise aᵀ · gram · a, for two teachers or more.

    Exact up to rounding, and the same on every run. (libsvm, which the authors call, rounds the kernel to float32.)
    """
    num_teachers = len(gram)
    if not gram.isfinite().all():
        return torch.full_like(gram[0], 1 / num_teachers)  # the loss is not finite either, and says so
    trace = gram.trace().clamp_min(torch.finfo(gram.dtype).tiny)
    hessian = gram / trace + _RIDGE * torch.eye(num_teachers, dtype=gram.dtype)
    vectors = np.linalg.cholesky(hessian.numpy()).T  # the square of |vectors · a| is aᵀ · hessian · a
    weights = _shortest_mean(vectors)
    largest = weights.argmax()
    if weights[largest] > _AEKD_CAP:
        # The problem is convex, so this weight ends at its bound. The others have 0.4 in all and reach no bound.
        others, rest = np.arange(num_teachers) != largest, 1 - _AEKD_CAP
        weights[largest] = _AEKD_CAP
        weights[others] = rest * _shortest_mean(rest * vectors[:, others] + _AEKD_CAP * vectors[:, [largest]])
    return torch.from_numpy(weights)


def _shortest_mean(vectors: Float64[np.ndarray, "axis teacher"]) -> Float64[np.ndarray, " teacher"]:
    """Weights of at least 0 that add up to 1 and make the weighted mean of the columns as short as can be."""
    from scipy.optimize import nnls  # here: only aekd needs it, and it takes a while to import

    # With u = s · a, nnls minimises s² · |vectors · a|² + (s - 1)²: for any s > 0, the best a is the shortest mean.
    rows = np.vstack([vectors, np.ones(vectors.shape[1])])
    goal = np.zeros(len(rows))
    goal[-1] = 1
    scaled, _ = nnls(rows, goal, maxiter=_NNLS_ITERATIONS)
    return scaled / scaled.sum()
