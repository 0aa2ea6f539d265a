"""All classes, several teachers of all classes: aver, ebkd, aekd and ca_mkd.

The teachers are combined when the student trains, so all rules share the same stored logits. A rule weighs teachers by
what their logits say, whatever the loss of each teacher is.
"""

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from edpipe.methods.ed import LevelLoss
from edpipe.params.partition import ALL_CLASSES, Name
from edpipe.params.plans.loss import TeacherLoss, Weight
from edpipe.params.plans.method import DistillMethod, MethodSetting, Phased
from edpipe.params.plans.plan import StagePlan, TeacherUse, WeightingRule, plain_kd

_SEVERAL = "Knowledge distillation: all classes at once, several teachers that know all of them,"
_RULES = {
    "aver": "all of one weight.",
    "ebkd": "weighed for each image by how certain they are.",
    "aekd": "weighed so that their gradients agree.",
    "ca_mkd": "weighed for each image by how right they are.",
}


class MultiTeacher(DistillMethod, Phased):
    """Several teachers of all classes; the weights of each sample's teachers add up to 1."""

    summary: ClassVar[str] = _SEVERAL

    name: WeightingRule = Field(description="How the teachers of one sample are weighed against each other.")
    teachers: Annotated[tuple[Name, ...], Field(min_length=1, strict=False)] = Field(
        description="Some of teachers, each of all classes."
    )
    distill: LevelLoss = Field(
        default_factory=plain_kd,
        description="How outputs are compared with a teacher's: kd, dkd, dist, at, or a plugin's loss; absent: kd.",
    )
    task_weight: Weight = Field(1.0, description="Weight of the task loss. 1 is the CA-MKD code's value.")
    distill_weight: Weight | None = Field(
        None, description="Weight of the distillation loss; absent: 1, the CA-MKD code's value, and of at 1000."
    )

    @model_validator(mode="after")
    def _teachers_differ(self) -> "MultiTeacher":
        if len(set(self.teachers)) != len(self.teachers):
            raise ValueError(f"teachers: teachers must differ, got {list(self.teachers)}")
        return self

    def teacher_losses(self) -> tuple[TeacherLoss, ...]:
        """One for all teachers."""
        return (self.distill,)

    def loss_weights(self, loss: TeacherLoss) -> dict[str, Any]:
        """Temperature and both weights; the distillation loss has 1 where neither knob nor loss gives one."""
        given = self.distill_weight
        if given is None:
            given = 1.0 if loss.default_weight is None else loss.default_weight
        return {"temperature": self.temperature, "task_weight": self.task_weight, "distill_weight": given}

    def _has_default_weight(self) -> bool:
        return True

    def named_teachers(self) -> list[tuple[str, str]]:
        """All of them."""
        return [(f"teachers.{i}", teacher) for i, teacher in enumerate(self.teachers)]

    def stages(self, setting: MethodSetting) -> tuple[StagePlan, ...]:
        """Labels and the teachers."""
        teachers = tuple(TeacherUse(teacher=teacher, subset=ALL_CLASSES) for teacher in self.teachers)
        weights = {"teacher_weighting": self.name, **self.loss_weights(self.distill)}
        return self.in_phases(setting, teachers=teachers, algorithm=self.distill, **weights)

    @classmethod
    def page_text(cls, name: str, plans: tuple[StagePlan, ...]) -> str:
        """How the teachers are weighed."""
        return f"{_SEVERAL} {_RULES[name]}"
