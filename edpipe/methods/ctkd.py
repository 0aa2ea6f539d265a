"""CTKD (arXiv 1907.09643): one stage; a teacher that learns beside the student, and an expert's attention maps.

The scratch teacher gets no gradient from the student, so that what it said is recorded once and replayed.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from edpipe.errors import ParamsError
from edpipe.methods.at import At
from edpipe.params.partition import ALL_CLASSES, Name
from edpipe.params.plans.loss import StageLoss, Stored, TeacherLoss, Weight
from edpipe.params.plans.method import ONLY_STAGE, DistillMethod, MethodSetting
from edpipe.params.plans.plan import StagePlan, TeacherUse, TrajectoryUse, all_subsets, plain_kd
from edpipe.params.plans.scratch import check_scratch

if TYPE_CHECKING:
    import torch

    import edpipe.losses.stage_terms


class CtkdLoss(StageLoss):
    """Labels, the recorded teacher, and the maps of the expert if they have any weight."""

    kind: Literal["ctkd"]
    attention_weight: Weight = Field(description="Of the attention maps of teachers.")

    def losses(self, batch: "edpipe.losses.stage_terms.StageOutputs") -> "torch.Tensor":
        """Task loss, kd loss against what the scratch teacher said then, and the expert's attention maps."""
        from edpipe.losses.kd import combine, kd_loss
        from edpipe.models.students.outputs import StudentOutputs

        plan, outputs, scratch = batch.plan, batch.outputs, batch.batch.scratch
        assert isinstance(outputs, StudentOutputs), "the student is trained as it is"
        assert scratch is not None, "the stage has a trajectory"
        task, against = batch.label_loss(outputs.logits), kd_loss(outputs.logits, scratch, plan.temperature)
        losses = combine(task, against, plan.task_weight, plan.distill_weight)
        if not batch.batch.targets:
            return losses
        return losses + self.attention_weight * batch.teachers_loss(outputs.logits, outputs)

    def text(self, plan: StagePlan) -> str:
        """The terms and their weights."""
        teacher = plan.trajectory.teacher if plan.trajectory else "?"
        terms = f"{plan.task_weight:g} task + {plan.distill_weight:g} kd of {teacher} at temperature "
        maps = f" + {self.attention_weight:g} at" if self.attention_weight else ""
        return f"{terms}{plan.temperature:g}{maps}"


class Ctkd(DistillMethod):
    """CTKD (arXiv 1907.09643): one stage; a teacher that learns beside the student, and an expert's attention maps."""

    summary: ClassVar[str] = (
        "CTKD: a teacher that learnt beside the student, replayed, and the attention maps of an expert."
    )

    name: Literal["ctkd"]
    scratch: Name = Field(
        description="One of teachers, of source train and all classes: it learns on what the student sees, and what it "
        "says on its way is recorded, once for each seed."
    )
    expert: Name | None = Field(
        None, description="One of teachers, of all classes, whose attention maps are stored; absent only without them."
    )
    task_weight: Weight = Field(1.0, description="Weight of the task loss.")
    distill_weight: Weight = Field(
        1.0, description="Weight of the kd loss against the scratch teacher; assumed, the paper's value is not known."
    )
    attention_weight: Weight = Field(
        1000.0, description="Weight of the expert's attention maps, that of the attention-transfer code; 0: no expert."
    )

    @model_validator(mode="after")
    def _has_its_expert(self) -> "Ctkd":
        if self.expert is None and self.attention_weight > 0:
            raise ValueError(
                f"attention_weight {self.attention_weight:g} needs an expert; name one of teachers, or set it to 0"
            )
        return self

    def _has_expert(self) -> bool:
        return self.expert is not None and self.attention_weight > 0

    def _loss(self) -> TeacherLoss:
        return At(kind="at") if self._has_expert() else plain_kd()

    def teacher_losses(self) -> tuple[TeacherLoss, ...]:
        """The expert's, or kd."""
        return (self._loss(),)

    def needs(self) -> dict[Stored, str]:
        """Nothing that `check` does not ask for itself."""
        return {}

    def named_teachers(self) -> list[tuple[str, str]]:
        """The scratch teacher, and the expert."""
        return [("scratch", self.scratch), *([("expert", self.expert)] if self.expert is not None else [])]

    def stages(self, setting: MethodSetting) -> tuple[StagePlan, ...]:
        """One stage."""
        experts = (TeacherUse(teacher=str(self.expert), subset=ALL_CLASSES),) if self._has_expert() else ()
        return (
            all_subsets(
                ONLY_STAGE,
                setting.budgets[ONLY_STAGE],
                teachers=experts,
                algorithm=self._loss(),
                trajectory=TrajectoryUse(teacher=self.scratch),
                temperature=self.temperature,
                task_weight=self.task_weight,
                distill_weight=self.distill_weight,
                own_loss=CtkdLoss(kind="ctkd", attention_weight=self.attention_weight if self._has_expert() else 0.0),
            ),
        )

    def check(self, setting: MethodSetting) -> None:
        """That teacher and student can see the same samples in the same batches for as long.

        Raises:
            ParamsError: they cannot.
        """
        params, path, name = setting.params, setting.path, self.scratch
        experiment = params.experiments[setting.experiment]
        where = path.removesuffix(".method")
        _, fitting = check_scratch(params, f"{path}.scratch", name)
        epochs = experiment.stages[ONLY_STAGE].epochs
        if epochs != fitting.epochs:
            given = f"{epochs:g} epochs" if epochs else f"{experiment.stages[ONLY_STAGE].images} images"
            raise ParamsError(
                f"{where}.stages.{ONLY_STAGE}: {given}, but the scratch teacher '{name}' learns beside the student for "
                f"{fitting.epochs:g} epochs; give epochs: {fitting.epochs:g}, or change teachers.{name}.fitting.epochs"
            )
        sizes = [params.recipes[recipe].batch_size for recipe in (experiment.recipe, fitting.recipe)]
        if sizes[0] != sizes[1]:
            raise ParamsError(
                f"{where}.recipe: '{experiment.recipe}' has batch_size {sizes[0]}, but the scratch teacher '{name}' "
                f"learns by '{fitting.recipe}' with {sizes[1]}, and both see the same batches; use the same batch_size "
                "in both"
            )
        if self.attention_weight > 0 and not params.soft_labels[experiment.dataset].storage.attention:
            raise ParamsError(
                f"{path}: ctkd learns from attention maps, which soft_labels.{experiment.dataset}.storage does not "
                "keep; set storage.attention: true there, or attention_weight: 0"
            )
