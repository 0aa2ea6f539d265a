"""What every method is: knobs of `experiments.<name>.method`, and the stages that follow from them.

Methods are defined in `edpipe.methods` and in plugins, one file each. Start with `SingleTeacherMethod`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model, model_validator

from edpipe.params.base import Knobs
from edpipe.params.partition import ALL_CLASSES, Name
from edpipe.params.plans.loss import Stored, TeacherLoss, Weight
from edpipe.params.plans.parts import WHOLE, follows_training, parts_of
from edpipe.params.plans.plan import StagePlan, TeacherUse, all_subsets
from edpipe.params.stage import StageKnobs

if TYPE_CHECKING:
    import edpipe.params.schema

MOST_STAGES = 200
"""The number of a stage is a byte of the seed of its order and views."""
ONLY_STAGE = "only"
"""Name of the single stage of a method that has no school levels."""


@dataclass(frozen=True)
class MethodSetting:
    """The experiment that a method is part of, and all of params.yaml."""

    params: "edpipe.params.schema.Params"
    experiment: str

    @property
    def path(self) -> str:
        """Where the method stands, as errors name it."""
        return f"experiments.{self.experiment}.method"

    @property
    def levels(self) -> tuple[str, ...]:
        """Subsets of the experiment's partition, in the order in which a school introduces them."""
        return self.params.partitions[self.params.experiments[self.experiment].partition].subsets

    @property
    def budgets(self) -> Mapping[str, StageKnobs]:
        """Of each stage; which recipe it names is no part of it."""
        stages = self.params.experiments[self.experiment].stages
        return {name: stage.model_copy(update={"recipe": None}) for name, stage in stages.items()}

    @property
    def specialists(self) -> frozenset[str]:
        """Teachers that know one subset each."""
        return frozenset(name for name, teacher in self.params.teachers.items() if teacher.partition is not None)


class Method(Knobs):
    """How a student learns; subclasses add their knobs and give the stages."""

    name: str
    summary: ClassVar[str] = ""
    """A sentence about the method for the report page."""
    handles_mixing: ClassVar[bool] = True
    """Whether it has a loss for mixed images, which are of two classes."""
    takes_specialists: ClassVar[bool] = False
    """Whether a teacher may know some classes only."""

    def stages(self, setting: MethodSetting) -> tuple[StagePlan, ...]:
        """The stages of the student, in order.

        Raises:
            ParamsError: budgets that do not fit the method.
        """
        raise NotImplementedError

    def stage_names(self, setting: MethodSetting) -> tuple[tuple[str, ...], str]:
        """Names of the stages, and why these, for an error."""
        return (ONLY_STAGE,), f"method '{self.name}' has one stage"

    def named_teachers(self) -> list[tuple[str, str]]:
        """Where in the method each teacher is named, and its name; empty: the labels are the only target."""
        return []

    def teacher_losses(self) -> tuple[TeacherLoss, ...]:
        """The losses by which its stages compare outputs with teachers."""
        return ()

    def needs(self) -> dict[Stored, str]:
        """What soft labels must hold besides logits, and whose need that is, for an error."""
        return {stored: loss.kind for loss in self.teacher_losses() for stored in sorted(loss.stored)}

    def check(self, setting: MethodSetting) -> None:
        """What the method alone knows to be wrong with its experiment.

        Raises:
            ParamsError: with the place in params.yaml.
        """

    def has_shared_schedule(self) -> bool:
        """Whether a stage depends on the budgets of all others."""
        return False

    @classmethod
    def page_text(cls, name: str, plans: tuple[StagePlan, ...]) -> str:
        """One sentence about the method of this name for the report page."""
        return cls.summary


class Phased(Method):
    """A method without school levels: one stage, or several that differ in the size of images or in the recipe."""

    phases: Annotated[tuple[Name, ...], Field(max_length=MOST_STAGES, strict=False)] = Field(
        (), description="Names of consecutive stages, each an entry of `stages`; absent: one stage, named 'only'."
    )
    rate_schedule: Literal["carried", "restarted"] = Field(
        "carried", description="phases only. carried: one schedule over all of them; restarted: each runs the whole."
    )

    @model_validator(mode="after")
    def _phases_differ(self) -> "Phased":
        if len(set(self.phases)) != len(self.phases):
            raise ValueError(f"phases must differ, got {list(self.phases)}")
        if not self.phases and "rate_schedule" in self.model_fields_set:
            raise ValueError("rate_schedule belongs to phases; remove it, or name phases")
        return self

    def stage_names(self, setting: MethodSetting) -> tuple[tuple[str, ...], str]:
        """The phases, or the only stage."""
        return (self.phases, "its phases") if self.phases else super().stage_names(setting)

    def has_shared_schedule(self) -> bool:
        """A carried learning rate makes every phase depend on the budgets of all."""
        return bool(self.phases) and (self.rate_schedule == "carried" or self._changes_on_the_way())

    def in_phases(self, setting: MethodSetting, **loss: Any) -> tuple[StagePlan, ...]:
        """One plan for each phase, all with this loss.

        Raises:
            ParamsError: budgets that cannot be added up, where that is needed.
        """
        names, _ = self.stage_names(setting)
        budgets = [setting.budgets[name] for name in names]
        windows = spans = [WHOLE] * len(names)
        if self.rate_schedule == "carried":
            windows = parts_of(budgets, f"{setting.path}.rate_schedule", "'carried'")
        if self._changes_on_the_way():
            spans = parts_of(budgets, setting.path, "a loss that changes on the way")
        return tuple(
            all_subsets(name, budgets[k], number=k + 1, num_stages=len(names), window=windows[k], span=spans[k], **loss)
            for k, name in enumerate(names)
        )

    def _changes_on_the_way(self) -> bool:
        return any(map(follows_training, self.teacher_losses()))


class DistillMethod(Method):
    """How a student weighs labels against its teachers."""

    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="Divides the logits before softmax.")
    task_weight: Weight = Field(0.3, description="Weight of the task loss. 0.3 is the ED code's value.")
    distill_weight: Weight | None = Field(
        None, description="Weight of the distillation loss; absent: 1 - task_weight, of at 1000, of fitnet 100."
    )

    @model_validator(mode="after")
    def _rest_is_positive(self) -> "DistillMethod":
        if self.distill_weight is None and self.task_weight >= 1 and not self._has_default_weight():
            raise ValueError(f"task_weight {self.task_weight:g} leaves nothing for the teacher; give distill_weight")
        return self

    def _has_default_weight(self) -> bool:
        """Whether an absent distill_weight is something else than the rest."""
        losses = self.teacher_losses()
        return bool(losses) and all(loss.default_weight is not None for loss in losses)

    def loss_weights(self, loss: TeacherLoss) -> dict[str, Any]:
        """Temperature and both weights, with the default of a weight that was left out filled in."""
        given = self.distill_weight
        if given is None:
            given = 1 - self.task_weight if loss.default_weight is None else loss.default_weight
        return {"temperature": self.temperature, "task_weight": self.task_weight, "distill_weight": given}


class SingleTeacherMethod(DistillMethod, Phased):
    """All classes, one teacher of all classes."""

    teacher: Name = Field(description="One of teachers.")

    def loss(self) -> TeacherLoss:
        """How outputs are compared with the teacher's."""
        raise NotImplementedError

    def teacher_losses(self) -> tuple[TeacherLoss, ...]:
        """The one loss."""
        return (self.loss(),)

    def named_teachers(self) -> list[tuple[str, str]]:
        """The one teacher."""
        return [("teacher", self.teacher)]

    def stages(self, setting: MethodSetting) -> tuple[StagePlan, ...]:
        """Labels and one teacher."""
        teachers, loss = (TeacherUse(teacher=self.teacher, subset=ALL_CLASSES),), self.loss()
        return self.in_phases(setting, teachers=teachers, algorithm=loss, **self.loss_weights(loss))


class LossMethod(SingleTeacherMethod):
    """The method of a loss against a teacher: its knobs, beside those of every single-teacher method."""

    loss_class: ClassVar[type[TeacherLoss]]

    def loss(self) -> TeacherLoss:
        """The loss with the method's knobs."""
        own = {name: getattr(self, name) for name in self.loss_class.model_fields if name != "kind"}
        return self.loss_class.model_validate({"kind": self.name, **own})


OF_EVERY_METHOD: dict[str, tuple[Any, str]] = {
    "temperature": (Annotated[float, Field(gt=0)], "Divides the logits before softmax."),
    "task_weight": (Weight, "Weight of the task loss."),
    "distill_weight": (Weight, "Weight of the distillation loss."),
}
"""Knobs for which a loss can give its method another default."""


def method_of(loss: type[TeacherLoss], name: str) -> type[LossMethod]:
    """The method of one teacher that learns by this loss, under the loss's name."""
    fields: dict[str, Any] = {"name": (Literal[name], ...)}
    for field, default in loss.method_defaults.items():
        annotation, description = OF_EVERY_METHOD[field]
        fields[field] = (annotation, Field(default, description=description))
    fields |= {field: (info.annotation, info) for field, info in loss.model_fields.items() if field != "kind"}
    made = create_model(f"{loss.__name__}Method", __base__=LossMethod, __doc__=loss.__doc__, **fields)
    made.loss_class, made.summary = loss, loss.summary
    return made
