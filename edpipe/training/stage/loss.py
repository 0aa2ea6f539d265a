"""The loss of a batch against labels and teachers, for the student's outputs and for those of kept references."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from edpipe.losses.features import attention_loss, hint_loss
from edpipe.losses.kd import combine, kd_loss, precise, slice_kd_loss, task_loss
from edpipe.losses.logits import dist_loss, dkd_loss, standardise
from edpipe.losses.teacher_weights import teacher_weights
from edpipe.methods.plan import StagePlan
from edpipe.models.students.outputs import StudentOutputs
from edpipe.params.distill import FEATURE_WEIGHTS, DistAlgorithm, DkdAlgorithm, KdAlgorithm


@dataclass(frozen=True)
class TeacherTargets:
    """What one teacher says of the samples of a batch that it teaches."""

    rows: Int64[Tensor, " row"]
    """Which samples of the batch."""
    logits: Float[Tensor, "row class"]
    columns: Int64[Tensor, " class"]
    """Where these classes sit among the student's outputs; ascending."""
    share: Float[Tensor, " row"]
    """1 / number of teachers that teach the sample."""
    maps: tuple[Float[Tensor, "row _ _"], ...] = ()
    """The teacher's attention maps, in the order of feature stages."""
    hint: Float[Tensor, "row channel height width"] | None = None
    """The teacher's features of one stage."""


@dataclass(frozen=True)
class StageBatch:
    """What the loss of some samples needs besides the student; on the training device."""

    images: Float[Tensor, "sample channel height width"]
    """Normalised."""
    labels: Int64[Tensor, " sample"]
    """As positions among the student's outputs."""
    other: tuple[Int64[Tensor, " sample"], Float[Tensor, " sample"]] | None
    """Of mixed views: the other image's labels, and the share of the own one."""
    targets: list[TeacherTargets]
    progress: float = 0.0
    """Which part of the stage lies behind, 0 to 1."""
    num_together: int | None = None
    """Samples of the whole iteration, of which these are the part of one process; None: these."""
    scratch: Float[Tensor, "sample head"] | None = None
    """Logits of the teacher that learns beside the student, in this epoch; classes are the student's outputs."""


def restrict_classes(
    batch: StageBatch, columns: Int64[Tensor, " known"], num_outputs: int
) -> tuple[Tensor, StageBatch]:
    """The samples whose classes a smaller set of outputs knows, numbered as these are; and which samples they are.

    Args:
        batch: numbered as the student's outputs.
        columns: where the smaller set sits among the student's outputs; ascending.
        num_outputs: of the student.
    """
    place = torch.full((num_outputs,), -1, device=columns.device)
    place[columns] = torch.arange(len(columns), device=columns.device)
    rows = torch.nonzero(place[batch.labels] >= 0).flatten()
    other = None if batch.other is None else (place[batch.other[0][rows]], batch.other[1][rows])
    where = torch.full((len(batch.labels),), -1, device=columns.device)
    where[rows] = torch.arange(len(rows), device=columns.device)
    targets = [_restrict_targets(target, place, where) for target in batch.targets]
    images, labels = batch.images[rows], place[batch.labels[rows]]
    return rows, replace(batch, images=images, labels=labels, other=other, targets=targets)


def _restrict_targets(target: TeacherTargets, place: Tensor, where: Tensor) -> TeacherTargets:
    rows, columns = where[target.rows], place[target.columns]
    is_row, is_column = rows >= 0, columns >= 0
    return TeacherTargets(
        rows[is_row],
        target.logits[is_row][:, is_column],
        columns[is_column],
        target.share[is_row],
        tuple(maps[is_row] for maps in target.maps),
        None if target.hint is None else target.hint[is_row],
    )


def batch_loss(
    plan: StagePlan, logits: Float[Tensor, "sample head"], batch: StageBatch, outputs: StudentOutputs | None = None
) -> Float[Tensor, " sample"]:
    """Each sample's weighted sum of task loss and distillation loss, nats.

    Args:
        plan: with the weights.
        logits: of the student or of an earlier reference.
        batch: numbered as these logits are.
        answers: all that the student gives; None for an earlier reference, which has no features to be compared.
    """
    task = _label_loss(plan, logits, batch)
    if batch.scratch is not None:
        return _ctkd_loss(plan, logits, batch, outputs, task)
    if not batch.targets:
        return task
    return combine(task, _distillation_loss(plan, logits, batch, outputs), plan.task_weight, plan.distill_weight)


def _ctkd_loss(
    plan: StagePlan,
    logits: Float[Tensor, "sample head"],
    batch: StageBatch,
    outputs: StudentOutputs | None,
    task: Float[Tensor, " sample"],
) -> Float[Tensor, " sample"]:
    """CTKD: the task loss, the kd loss against what the scratch teacher said then, and the expert's attention maps."""
    assert batch.scratch is not None, "only stages with a trajectory come here"
    teacher_logits = kd_loss(logits, batch.scratch, plan.temperature)
    losses = combine(task, teacher_logits, plan.task_weight, plan.distill_weight)
    if not batch.targets:
        return losses
    return losses + plan.attention_weight * _distillation_loss(plan, logits, batch, outputs)


def _label_loss(plan: StagePlan, logits: Float[Tensor, "sample head"], batch: StageBatch) -> Float[Tensor, " sample"]:
    """Each sample's loss against its label; of a mixed view against both labels, by their shares."""
    own = task_loss(logits, batch.labels, plan.label_smoothing)
    if batch.other is None:
        return own
    labels, share = batch.other
    return share * own + (1 - share) * task_loss(logits, labels, plan.label_smoothing)


def _distillation_loss(
    plan: StagePlan, logits: Float[Tensor, "sample head"], batch: StageBatch, outputs: StudentOutputs | None
) -> Float[Tensor, " sample"]:
    """Each sample's loss against its teachers, weighed as the panel's rule says."""
    losses = precise(logits).new_zeros(len(logits))
    for target, share in zip(batch.targets, _teacher_shares(plan, logits, batch), strict=True):
        if len(target.rows):
            own = _teacher_loss(plan, logits[target.rows], batch, target, outputs)
            losses = losses + torch.zeros_like(losses).index_put((target.rows,), (share * own).to(losses.dtype))
    return losses


def _teacher_shares(
    plan: StagePlan, logits: Float[Tensor, "sample head"], batch: StageBatch
) -> list[Float[Tensor, " row"]]:
    """The weight of each teacher for each sample that it teaches; a sample's weights add up to 1."""
    if plan.teacher_weighting == "aver" or len(batch.targets) == 1:
        return [target.share for target in batch.targets]
    # Teachers of all classes, as params.yaml was checked for: all teach all samples of the batch.
    columns = batch.targets[0].columns
    labels = torch.searchsorted(columns, batch.labels)
    stacked = torch.stack([target.logits for target in batch.targets])
    return list(teacher_weights(plan.teacher_weighting, logits[:, columns].detach(), stacked, labels, plan.temperature))


def _teacher_loss(
    plan: StagePlan,
    logits: Float[Tensor, "row head"],
    batch: StageBatch,
    target: TeacherTargets,
    outputs: StudentOutputs | None,
) -> Float[Tensor, " row"]:
    """Each sample's loss against one teacher."""
    algorithm, temperature = plan.algorithm, plan.temperature
    if algorithm.kind in FEATURE_WEIGHTS:
        return precise(logits).new_zeros(len(logits)) if outputs is None else _feature_loss(outputs, target)
    own, teacher_logits = logits[:, target.columns], target.logits
    if isinstance(algorithm, DkdAlgorithm):
        labels = torch.searchsorted(target.columns, batch.labels[target.rows])
        losses = dkd_loss(own, teacher_logits, labels, temperature, algorithm.alpha, algorithm.beta)
        return losses * min(1.0, batch.progress / algorithm.warmup if algorithm.warmup else 1.0)
    if isinstance(algorithm, DistAlgorithm):
        return dist_loss(own, teacher_logits, temperature, algorithm.beta, algorithm.gamma)
    if isinstance(algorithm, KdAlgorithm) and algorithm.standardise:
        return kd_loss(standardise(own), standardise(teacher_logits), temperature)
    return slice_kd_loss(logits, teacher_logits, target.columns, temperature, plan.normalisation)


def _feature_loss(outputs: StudentOutputs, target: TeacherTargets) -> Float[Tensor, " row"]:
    """Each sample's loss against what one teacher sees: its hint if it has one, else all attention maps."""
    if target.hint is not None and outputs.hint is not None:
        return hint_loss(outputs.hint[target.rows], target.hint)
    pairs = zip(outputs.maps, target.maps, strict=False)  # a lower level has fewer feature stages than its teacher
    return torch.stack([attention_loss(own[target.rows], teacher_logits) for own, teacher_logits in pairs]).sum(dim=0)
