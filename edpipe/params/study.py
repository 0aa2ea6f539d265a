"""Knobs of `studies:`: experiments that are compared with each other."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edpipe.params.base import Knobs
from edpipe.params.partition import Name


class StudyKnobs(Knobs):
    """Experiments of one dataset in one table: results/study_<study>.json."""

    experiments: Annotated[tuple[Name, ...], Field(min_length=2, strict=False)] = Field(
        description="Some of experiments, all of one dataset."
    )
    base: Name = Field(description="The one of them that the others are compared with, seed by seed.")
    equal: Literal["images", "compute"] = Field(
        "images",
        description="What all must have had as much of. images: training images; compute: multiply-accumulates of the "
        "student's training, where 2 % less to 0.1 % more than the base is allowed.",
    )

    @model_validator(mode="after")
    def _base_is_there(self) -> "StudyKnobs":
        if len(set(self.experiments)) != len(self.experiments):
            raise ValueError(f"experiments must differ, got {list(self.experiments)}")
        if self.base not in self.experiments:
            raise ValueError(f"base '{self.base}' is not among experiments {list(self.experiments)}")
        return self


@dataclass(frozen=True)
class StudyJobKnobs:
    """Knobs of one study's table."""

    study: StudyKnobs
