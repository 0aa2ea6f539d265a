"""Knobs of `experiments:`: a student, a method, a budget, seeds."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from edpipe.params.base import Knobs
from edpipe.params.partition import Name
from edpipe.params.plans.method import Method
from edpipe.params.plans.registered import Registered
from edpipe.params.stage import StageKnobs


class ExperimentKnobs(Knobs):
    """One named line of the study: results/<experiment>.json."""

    dataset: Name = Field(description="One of datasets.")
    partition: Name = Field(description="One of partitions; accuracy is reported per subset, whatever the method.")
    student: Name = Field(description="One of students.")
    method: Annotated[Method, Registered("methods", "name")] = Field(description="How the student learns.")
    recipe: Name = Field(description="One of recipes.")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1, strict=False)] = Field(
        description="One student is trained for each."
    )
    stages: dict[Name, StageKnobs] = Field(
        description="ed: one entry for each subset of the partition; other methods: one entry, named 'only'."
    )
    beside: Annotated[tuple[Name, ...], Field(max_length=4, strict=False)] = Field(
        (),
        description="Other experiments of the same dataset, such as its baselines: the page of this one shows their "
        "top1 beside its own, and waits for their results.",
    )

    @model_validator(mode="after")
    def _seeds_differ(self) -> "ExperimentKnobs":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ, got {list(self.seeds)}")
        return self


@dataclass(frozen=True)
class ResultKnobs:
    """Knobs of one result."""

    seeds: tuple[int, ...]
    method: str
    """Its name."""
