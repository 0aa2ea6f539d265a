"""The loss of a batch, for the student's outputs and for those of earlier references: against labels and teachers."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from edpipe.distill_losses import attention_loss, dist_loss, dkd_loss, hint_loss, standardise
from edpipe.losses import combine, kd_loss, precise, slice_kd_loss, task_loss
from edpipe.methods.curriculum import StagePlan
from edpipe.models.aided import Answers
from edpipe.panel import panel_weights
from edpipe.params.algorithm import FEATURE_WEIGHTS, DistAlgorithm, DkdAlgorithm, KdAlgorithm


@dataclass(frozen=True)
class Teaching:
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
class Batch:
    """What the loss of some samples needs besides the student; on the training device."""

    images: Float[Tensor, "sample channel height width"]
    """Normalised."""
    labels: Int64[Tensor, " sample"]
    """As positions among the student's outputs."""
    other: tuple[Int64[Tensor, " sample"], Float[Tensor, " sample"]] | None
    """Of mixed views: the other image's labels, and the share of the own one."""
    teachings: list[Teaching]
    progress: float = 0.0
    """Which part of the stage lies behind, 0 to 1."""
    num_together: int | None = None
    """Samples of the whole iteration, of which these are the part of one process; None: these."""
    scratch: Float[Tensor, "sample head"] | None = None
    """Logits of the teacher that learns beside the student, in this epoch; classes are the student's outputs."""


def restricted(batch: Batch, columns: Int64[Tensor, " known"], num_outputs: int) -> tuple[Tensor, Batch]:
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
    teachings = [_restricted_teaching(teaching, place, where) for teaching in batch.teachings]
    images, labels = batch.images[rows], place[batch.labels[rows]]
    return rows, replace(batch, images=images, labels=labels, other=other, teachings=teachings)


def _restricted_teaching(teaching: Teaching, place: Tensor, where: Tensor) -> Teaching:
    rows, columns = where[teaching.rows], place[teaching.columns]
    is_row, is_column = rows >= 0, columns >= 0
    return Teaching(
        rows[is_row],
        teaching.logits[is_row][:, is_column],
        columns[is_column],
        teaching.share[is_row],
        tuple(maps[is_row] for maps in teaching.maps),
        None if teaching.hint is None else teaching.hint[is_row],
    )


def mark(
    plan: StagePlan, logits: Float[Tensor, "sample head"], batch: Batch, answers: Answers | None = None
) -> Float[Tensor, " sample"]:
    """Each sample's weighted sum of task loss and distillation loss, nats.

    Args:
        plan: with the weights.
        logits: of the student or of an earlier reference.
        batch: numbered as these logits are.
        answers: all that the student gives; None for an earlier reference, which has no features to be compared.
    """
    task = _task(plan, logits, batch)
    if batch.scratch is not None:
        return _collaborative(plan, logits, batch, answers, task)
    if not batch.teachings:
        return task
    return combine(task, _distil(plan, logits, batch, answers), plan.task_weight, plan.distill_weight)


def _collaborative(
    plan: StagePlan,
    logits: Float[Tensor, "sample head"],
    batch: Batch,
    answers: Answers | None,
    task: Float[Tensor, " sample"],
) -> Float[Tensor, " sample"]:
    """CTKD: the task loss, the kd loss against what the scratch teacher said then, and the expert's attention maps."""
    assert batch.scratch is not None, "only stages with a trajectory come here"
    told = kd_loss(logits, batch.scratch, plan.temperature)
    losses = combine(task, told, plan.task_weight, plan.distill_weight)
    if not batch.teachings:
        return losses
    return losses + plan.attention_weight * _distil(plan, logits, batch, answers)


def _task(plan: StagePlan, logits: Float[Tensor, "sample head"], batch: Batch) -> Float[Tensor, " sample"]:
    """Each sample's loss against its label; of a mixed view against both labels, by their shares."""
    own = task_loss(logits, batch.labels, plan.label_smoothing)
    if batch.other is None:
        return own
    labels, share = batch.other
    return share * own + (1 - share) * task_loss(logits, labels, plan.label_smoothing)


def _distil(
    plan: StagePlan, logits: Float[Tensor, "sample head"], batch: Batch, answers: Answers | None
) -> Float[Tensor, " sample"]:
    """Each sample's loss against its teachers, weighed as the panel's rule says."""
    losses = precise(logits).new_zeros(len(logits))
    for teaching, share in zip(batch.teachings, _shares(plan, logits, batch), strict=True):
        if len(teaching.rows):
            own = _against(plan, logits[teaching.rows], batch, teaching, answers)
            losses = losses + torch.zeros_like(losses).index_put((teaching.rows,), (share * own).to(losses.dtype))
    return losses


def _shares(plan: StagePlan, logits: Float[Tensor, "sample head"], batch: Batch) -> list[Float[Tensor, " row"]]:
    """The weight of each teacher for each sample that it teaches; a sample's weights add up to 1."""
    if plan.panel == "aver" or len(batch.teachings) == 1:
        return [teaching.share for teaching in batch.teachings]
    # Teachers of all classes, as params.yaml was checked for: all teach all samples of the batch.
    columns = batch.teachings[0].columns
    labels = torch.searchsorted(columns, batch.labels)
    stacked = torch.stack([teaching.logits for teaching in batch.teachings])
    return list(panel_weights(plan.panel, logits[:, columns].detach(), stacked, labels, plan.temperature))


def _against(
    plan: StagePlan,
    logits: Float[Tensor, "row head"],
    batch: Batch,
    teaching: Teaching,
    answers: Answers | None,
) -> Float[Tensor, " row"]:
    """Each sample's loss against one teacher."""
    algorithm, temperature = plan.algorithm, plan.temperature
    if algorithm.kind in FEATURE_WEIGHTS:
        return precise(logits).new_zeros(len(logits)) if answers is None else _against_features(answers, teaching)
    own, told = logits[:, teaching.columns], teaching.logits
    if isinstance(algorithm, DkdAlgorithm):
        labels = torch.searchsorted(teaching.columns, batch.labels[teaching.rows])
        losses = dkd_loss(own, told, labels, temperature, algorithm.alpha, algorithm.beta)
        return losses * min(1.0, batch.progress / algorithm.warmup if algorithm.warmup else 1.0)
    if isinstance(algorithm, DistAlgorithm):
        return dist_loss(own, told, temperature, algorithm.beta, algorithm.gamma)
    if isinstance(algorithm, KdAlgorithm) and algorithm.standardise:
        return kd_loss(standardise(own), standardise(told), temperature)
    return slice_kd_loss(logits, told, teaching.columns, temperature, plan.normalisation)


def _against_features(answers: Answers, teaching: Teaching) -> Float[Tensor, " row"]:
    """Each sample's loss against what one teacher sees: its hint if it has one, else all attention maps."""
    if teaching.hint is not None and answers.hint is not None:
        return hint_loss(answers.hint[teaching.rows], teaching.hint)
    pairs = zip(answers.maps, teaching.maps, strict=False)  # a lower level has fewer feature stages than its teacher
    return torch.stack([attention_loss(own[teaching.rows], told) for own, told in pairs]).sum(dim=0)
