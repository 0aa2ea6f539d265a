"""Knobs of `experiments:`: a student, a method, a budget, seeds."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edpipe.params.base import Knobs
from edpipe.params.partition import Name
from edpipe.params.stage import StageKnobs


class CeKnobs(Knobs):
    """Cross-entropy with the labels alone."""

    name: Literal["ce"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the label given to all classes."
    )


class DistillKnobs(Knobs):
    """How a student weighs labels against its teachers."""

    teacher: Name = Field(description="One of teachers.")
    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="Divides the logits before softmax.")
    task_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        0.3, description="Share of the task loss; the rest is kd loss. 0.3 is the ED code's value."
    )


class KdKnobs(DistillKnobs):
    """One stage, all classes, one teacher of all classes."""

    name: Literal["kd"]


class EdKnobs(DistillKnobs):
    """One stage per school level; the student grows by one block a level."""

    name: Literal["ed"]
    replay: bool = Field(True, description="true: level k teaches subsets 1..k; false: subset k alone.")
    mixing: Literal["mixed", "sequential"] = Field(
        "mixed", description="Order within an epoch: all subsets shuffled together, or one after the other."
    )
    normalisation: Literal["slice", "full"] = Field(
        "slice", description="Student's softmax in the kd loss: over the teacher's classes, or over all taught classes."
    )
    learning_rate: Literal["restarted", "carried"] = Field(
        "restarted", description="restarted: each stage runs the whole schedule; carried: one schedule over all stages."
    )


Method = Annotated[CeKnobs | KdKnobs | EdKnobs, Field(discriminator="name")]


class ExperimentKnobs(Knobs):
    """One named line of the study: results/<experiment>.json."""

    dataset: Name = Field(description="One of datasets.")
    partition: Name = Field(description="One of partitions; accuracy is reported per subset, whatever the method.")
    student: Name = Field(description="One of students.")
    method: Method = Field(description="How the student learns.")
    recipe: Name = Field(description="One of recipes.")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1, strict=False)] = Field(
        description="One student is trained for each."
    )
    stages: dict[Name, StageKnobs] = Field(
        description="ed: one entry for each subset of the partition; other methods: one entry, named 'only'."
    )

    @model_validator(mode="after")
    def _seeds_differ(self) -> "ExperimentKnobs":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ, got {list(self.seeds)}")
        return self
