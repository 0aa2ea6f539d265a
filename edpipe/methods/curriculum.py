"""What a curriculum is: an ordered list of stages, each saying what is taught, by whom, and with which loss."""

from typing import Annotated, Literal

from pydantic import Field

from edpipe.params.base import Knobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.stage import StageKnobs


class TeacherUse(Knobs):
    """One file of soft labels: a teacher, and the subset it teaches ("all" = every class)."""

    teacher: str
    subset: str


class StagePlan(Knobs):
    """One stage: which form of the student, which subsets, which soft labels, which loss, for how long."""

    name: str = Field(description="Of the stage; in ed also of the subset that it introduces.")
    number: int = Field(description="From 1: the student has its first `number` body blocks.")
    num_stages: int = Field(description="Into so many body blocks the student is split.")
    taught: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="Subsets whose samples are seen.")
    known: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="Subsets whose classes have an output.")
    teachers: Annotated[tuple[TeacherUse, ...], Field(strict=False)] = Field((), description="Empty: labels alone.")
    temperature: float = 1.0
    task_weight: float = 1.0
    label_smoothing: float = 0.0
    normalisation: Literal["slice", "full"] = "slice"
    mixing: Literal["mixed", "sequential"] = "mixed"
    budget: StageKnobs
    window: Annotated[tuple[float, float], Field(strict=False)] = Field(
        (0.0, 1.0), description="Which part of the learning-rate schedule the stage runs through."
    )


def whole_school(name: str, budget: StageKnobs, **loss: object) -> StagePlan:
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
