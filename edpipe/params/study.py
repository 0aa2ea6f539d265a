"""Knobs of `studies:`: experiments that are compared with each other."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edpipe.errors import nearest
from edpipe.params.base import Knobs
from edpipe.params.partition import Name


class PlannedTest(Knobs):
    """One question of a study, fixed before its results are known."""

    experiment: Name = Field(description="One of the study's experiments.")
    minus: Name = Field(description="Another of them: the difference is tested seed by seed.")


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

    beside: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        (), description="Those of the experiments that may have had another budget, as a baseline of equal time may."
    )
    recipes: Literal["same", "own"] = Field(
        "same", description="own: each experiment has been tuned for itself, and may have a recipe of its own."
    )
    tests: Annotated[tuple[PlannedTest, ...], Field(strict=False)] = Field(
        (),
        description="Differences that the study is made to test, fixed beforehand: paired t-tests, their p adjusted "
        "for as many tests (Holm).",
    )

    @model_validator(mode="after")
    def _base_is_there(self) -> "StudyKnobs":
        if len(set(self.experiments)) != len(self.experiments):
            raise ValueError(f"experiments must differ, got {list(self.experiments)}")
        if self.base not in self.experiments:
            raise ValueError(f"base '{self.base}' is not among experiments {list(self.experiments)}")
        named = {"beside": self.beside} | {f"tests.{k}": (t.experiment, t.minus) for k, t in enumerate(self.tests)}
        for where, names in named.items():
            for name in names:
                if name not in self.experiments:
                    raise ValueError(f"{where}: '{name}' is not among experiments{nearest(name, self.experiments)}")
            if len(set(names)) != len(names):
                raise ValueError(f"{where}: names must differ, got {list(names)}")
        self._check_tests()
        if self.base in self.beside:
            raise ValueError(f"beside: '{self.base}' is the base, whose budget is that of all; remove it")
        return self

    def _check_tests(self) -> None:
        pairs = [{test.experiment, test.minus} for test in self.tests]
        for k, pair in enumerate(pairs):
            if pair in pairs[:k]:
                raise ValueError(
                    f"tests.{k}: {sorted(pair)} are tested by tests.{pairs.index(pair)} already; remove it"
                )


@dataclass(frozen=True)
class StudyJobKnobs:
    """Knobs of one study's table."""

    study: StudyKnobs
