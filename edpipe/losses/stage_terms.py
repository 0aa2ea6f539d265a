"""The terms of a stage's loss: against labels and teachers, of the student's outputs and of kept references'.

What a loss in `edpipe.methods` or in a plugin is given: `TeacherPair` for a loss against one teacher, `StageOutputs`
for the loss of a whole stage.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from edpipe.errors import TrainingError
from edpipe.losses.kd import combine, precise, task_loss
from edpipe.losses.teacher_weights import teacher_weights
from edpipe.models.students.outputs import StudentOutputs
from edpipe.params.plans.plan import StagePlan


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
    """Which part lies behind, 0 to 1: of the stage, or of all stages, see `TeacherLoss.progress_of`."""
    num_together: int | None = None
    """Samples of the whole iteration, of which these are the part of one process; None: these."""
    scratch: Float[Tensor, "sample head"] | None = None
    """Logits of the teacher that learns beside the student, in this epoch; classes are the student's outputs."""
    own_share: float = 1.0
    """Of the student's own logits, 0 to 1; the rest is the reference's of the stage before, see `fade`."""


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


@dataclass(frozen=True)
class TeacherPair:
    """What student and one teacher say of the samples that the teacher teaches."""

    all_student: Float[Tensor, "row head"]
    """The student's logits of all classes that it knows."""
    target: TeacherTargets
    batch: StageBatch
    """The whole batch; `target.rows` are the rows here."""
    outputs: StudentOutputs | None
    """All that the student gives for the whole batch; None for an earlier reference, which has no features."""
    temperature: float
    normalisation: Literal["slice", "full"]

    @classmethod
    def of(
        cls,
        student: Float[Tensor, "row class"],
        teacher: Float[Tensor, "row class"],
        labels: Int64[Tensor, " row"],
        temperature: float = 1.0,
    ) -> "TeacherPair":
        """A student and a teacher of the same classes and samples, for tests of a loss."""
        rows = torch.arange(len(labels), device=student.device)
        columns = torch.arange(student.shape[1], device=student.device)
        target = TeacherTargets(rows, teacher, columns, torch.ones_like(student[:, 0]))
        batch = StageBatch(student.new_zeros(len(labels), 1, 1, 1), labels, None, [target])
        return cls(student, target, batch, None, temperature, "slice")

    @property
    def student(self) -> Float[Tensor, "row class"]:
        """The student's logits of the teacher's classes."""
        return self.all_student[:, self.target.columns]

    @property
    def teacher(self) -> Float[Tensor, "row class"]:
        """The teacher's logits; no gradient."""
        return self.target.logits

    @property
    def labels(self) -> Int64[Tensor, " row"]:
        """The true classes, as columns of `student` and `teacher`."""
        return torch.searchsorted(self.target.columns, self.batch.labels[self.target.rows])

    @property
    def progress(self) -> float:
        """Which part lies behind, 0 to 1: of the stage, or of all stages, see `TeacherLoss.progress_of`."""
        return self.batch.progress


@dataclass(frozen=True)
class StageOutputs:
    """What the loss of a whole stage is computed from."""

    plan: StagePlan
    outputs: object
    """What the trained network gives: `StudentOutputs`, or what the method's own network gives."""
    batch: StageBatch

    def label_loss(self, logits: Float[Tensor, "sample head"]) -> Float[Tensor, " sample"]:
        """Each sample's cross-entropy, nats; of a mixed view against both labels, by their shares."""
        return label_loss(self.plan, logits, self.batch)

    def teachers_loss(
        self, logits: Float[Tensor, "sample head"], outputs: StudentOutputs | None
    ) -> Float[Tensor, " sample"]:
        """Each sample's loss against its teachers by the plan's algorithm, without a weight."""
        return teachers_loss(self.plan, logits, self.batch, outputs)


def batch_loss(
    plan: StagePlan, logits: Float[Tensor, "sample head"], batch: StageBatch, outputs: StudentOutputs | None = None
) -> Float[Tensor, " sample"]:
    """Each sample's weighted sum of task loss and distillation loss, nats.

    Args:
        plan: with the weights.
        logits: of the student or of an earlier reference.
        batch: numbered as these logits are.
        outputs: all that the student gives; None for an earlier reference, which has no features to be compared.
    """
    task = label_loss(plan, logits, batch)
    if not batch.targets:
        return task
    return combine(task, teachers_loss(plan, logits, batch, outputs), plan.task_weight, plan.distill_weight)


def label_loss(plan: StagePlan, logits: Float[Tensor, "sample head"], batch: StageBatch) -> Float[Tensor, " sample"]:
    """Each sample's loss against its label; of a mixed view against both labels, by their shares."""
    own = task_loss(logits, batch.labels, plan.label_smoothing)
    if batch.other is None:
        return own
    labels, share = batch.other
    return share * own + (1 - share) * task_loss(logits, labels, plan.label_smoothing)


def teachers_loss(
    plan: StagePlan, logits: Float[Tensor, "sample head"], batch: StageBatch, outputs: StudentOutputs | None
) -> Float[Tensor, " sample"]:
    """Each sample's loss against its teachers, weighed as the plan's rule says."""
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
    """Each sample's loss against one teacher; features cannot be asked of an earlier reference."""
    if plan.algorithm.stored and outputs is None:
        return precise(logits).new_zeros(len(logits))
    pair = TeacherPair(logits, target, batch, outputs, plan.temperature, plan.normalisation)
    losses = plan.algorithm.losses(pair)
    if losses.shape != logits.shape[:1]:  # a mean would be taken for the loss of each sample
        raise TrainingError(
            f"loss '{plan.algorithm.kind}': gave shape {tuple(losses.shape)}, it must give one number for each of "
            f"{len(logits)} samples; do not average over them"
        )
    return losses
