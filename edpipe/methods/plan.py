"""What a curriculum is: an ordered list of stages, each saying what is taught, by whom, and with which loss."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from edpipe.params.base import Knobs
from edpipe.params.distill import FEATURE_WEIGHTS, PLAIN_KD, Algorithm
from edpipe.params.experiment import DistillKnobs, TeskdWeightKnobs, WeightingRule
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StudentViews
from edpipe.params.stage import StageKnobs
from edpipe.params.student import StudentKnobs


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
    algorithm: Algorithm = Field(PLAIN_KD, description="How outputs are compared with a teacher's.")
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
    teskd: TeskdWeightKnobs | None = Field(None, description="Students on the network's own stages help it to learn.")
    trajectory: TrajectoryUse | None = Field(None, description="A teacher that learns beside the student, replayed.")
    attention_weight: float = Field(0.0, description="With a trajectory: of the attention maps of teachers.")
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


def loss_weights(method: DistillKnobs, algorithm: Algorithm) -> dict[str, Any]:
    """Temperature and both weights, with the default of a weight that was left out filled in."""
    given = method.distill_weight
    if given is None:
        given = FEATURE_WEIGHTS.get(algorithm.kind, 1 - method.task_weight)
    return {"temperature": method.temperature, "task_weight": method.task_weight, "distill_weight": given}


@dataclass(frozen=True)
class StageJobKnobs:
    """Knobs of one stage of one student."""

    plan: StagePlan
    student: StudentKnobs
    recipe: RecipeKnobs
    views: StudentViews
