"""What a curriculum is: an ordered list of stages, each saying what is taught, by whom, and with which loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from edpipe.params.base import Knobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.plans.loss import StageLoss, TeacherLoss, UnknownLoss, UnknownStageLoss
from edpipe.params.plans.registered import Registered
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StudentViews
from edpipe.params.stage import StageKnobs
from edpipe.params.student import StudentKnobs

WeightingRule = Literal["aver", "ebkd", "aekd", "ca_mkd"]
WHOLE_BATCH_RULES = ("aekd",)
"""Rules that compare the samples of a batch with each other."""


def plain_kd() -> TeacherLoss:
    """The loss of Hinton et al. (2015), with its defaults."""
    from edpipe.params.plans.plugins import loss_class

    return loss_class("kd").model_validate({"kind": "kd"})


class TeacherUse(Knobs):
    """One file of soft labels: a teacher, and the subset it teaches ("all" = every class)."""

    teacher: str
    subset: str


class TrajectoryUse(Knobs):
    """What a teacher of all classes said while it learnt beside a student of the same seed."""

    teacher: str


class StagePlan(Knobs):
    """One stage: which form of the student, which subsets, which soft labels, which loss, for how long."""

    name: str = Field(description="Of the stage; in ed also of the subset that it introduces.")
    number: int = Field(description="From 1: the student has its first `number` body blocks.")
    num_stages: int = Field(description="Into so many body blocks the student is split.")
    taught: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="Subsets whose samples are seen.")
    known: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="Subsets whose classes have an output.")
    teachers: Annotated[tuple[TeacherUse, ...], Field(strict=False)] = Field((), description="Empty: labels alone.")
    teacher_weighting: WeightingRule = Field("aver", description="How several teachers of one sample are weighed.")
    algorithm: Annotated[TeacherLoss, Registered("losses", "kind", unknown=UnknownLoss)] = Field(
        default_factory=plain_kd, description="How outputs are compared with a teacher's."
    )
    temperature: float = 1.0
    task_weight: float = 1.0
    distill_weight: float = Field(0.0, description="Of each sample's distillation loss.")
    label_smoothing: float = 0.0
    normalisation: Literal["slice", "full"] = "slice"
    kept: Annotated[tuple[tuple[str, ...], ...], Field(strict=False)] = Field(
        (), description="Of each earlier reference that is taught on: the subsets whose classes it has an output for."
    )
    reference_weight: float = Field(0.0, description="Of each kept reference's loss.")
    anchor_weight: float = Field(0.0, description="Of the kd loss against the student of the stage before.")
    anchored: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Subsets whose classes that student knew."
    )
    subset_order: Literal["mixed", "sequential"] = "mixed"
    easiest: float = Field(1.0, description="Share of each taught class's samples that is seen, the easiest ones.")
    trajectory: TrajectoryUse | None = Field(None, description="A teacher that learns beside the student, replayed.")
    own_loss: Annotated[StageLoss, Registered("stage_losses", "kind", unknown=UnknownStageLoss)] | None = Field(
        None, description="The loss of a method that is no sum of label loss and teachers' losses."
    )
    budget: StageKnobs
    window: Annotated[tuple[float, float], Field(strict=False)] = Field(
        (0.0, 1.0), description="Which part of the learning-rate schedule the stage runs through."
    )


def all_subsets(name: str, budget: StageKnobs, **loss: object) -> StagePlan:
    """The one stage of a method without school levels: the whole student, all classes."""
    everything = (ALL_CLASSES,)
    return StagePlan.model_validate(
        {
            "name": name,
            "number": 1,
            "num_stages": 1,
            "taught": everything,
            "known": everything,
            "budget": budget,
            **loss,
        }
    )


@dataclass(frozen=True)
class StageJobKnobs:
    """Knobs of one stage of one student."""

    plan: StagePlan
    student: StudentKnobs
    recipe: RecipeKnobs
    views: StudentViews


def knobs_as_now(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs in a record, in today's words; only those of stages have changed."""
    return {**knobs, "plan": plan_as_now(knobs["plan"])} if "plan" in knobs else dict(knobs)


def plan_as_now(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan in a record, in today's words: edpipe before plugins had fields for two methods of its own.

    >>> plan_as_now({"teskd": None, "attention_weight": 0.0, "trajectory": None})
    {'trajectory': None, 'own_loss': None}
    """
    if "teskd" not in plan:
        return dict(plan)
    kept = {name: value for name, value in plan.items() if name not in ("teskd", "attention_weight")}
    own_loss = None
    if plan["teskd"] is not None:
        own_loss = {"kind": "teskd", **plan["teskd"]}
    elif plan["trajectory"] is not None:
        own_loss = {"kind": "ctkd", "attention_weight": plan["attention_weight"]}
    return {**kept, "own_loss": own_loss}
