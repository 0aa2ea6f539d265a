"""One stage, all classes, several teachers of all classes: aver, ebkd, aekd and ca_mkd.

The teachers are combined when the student trains, so all rules share the same stored logits.
"""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

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
    """One stage, several teachers of all classes; the weights of each sample's teachers add up to 1."""

    summary: ClassVar[str] = _SEVERAL

    name: WeightingRule = Field(description="How the teachers of one sample are weighed against each other.")
    teachers: Annotated[tuple[Name, ...], Field(min_length=1, strict=False)] = Field(
        description="Some of teachers, each of all classes."
    )
    task_weight: Weight = Field(1.0, description="Weight of the task loss. 1 is the CA-MKD code's value.")
    distill_weight: Weight = Field(1.0, description="Weight of the distillation loss, likewise.")

    @model_validator(mode="after")
    def _teachers_differ(self) -> "MultiTeacher":
        if len(set(self.teachers)) != len(self.teachers):
            raise ValueError(f"teachers: teachers must differ, got {list(self.teachers)}")
        return self

    def teacher_losses(self) -> tuple[TeacherLoss, ...]:
        """kd for each teacher."""
        return (plain_kd(),)

    def named_teachers(self) -> list[tuple[str, str]]:
        """All of them."""
        return [(f"teachers.{i}", teacher) for i, teacher in enumerate(self.teachers)]

    def stages(self, setting: MethodSetting) -> tuple[StagePlan, ...]:
        """Labels and the teachers."""
        teachers = tuple(TeacherUse(teacher=teacher, subset=ALL_CLASSES) for teacher in self.teachers)
        return self.in_phases(setting, teachers=teachers, teacher_weighting=self.name, **self.loss_weights(plain_kd()))

    @classmethod
    def page_text(cls, name: str, plans: tuple[StagePlan, ...]) -> str:
        """How the teachers are weighed."""
        return f"{_SEVERAL} {_RULES[name]}"
