"""Knobs of `searches:`: an experiment whose knobs are tried in variations, judged on the validation split."""

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, JsonValue, model_validator

from edpipe.params.base import Knobs, canonical_json
from edpipe.params.partition import Name

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Values = Annotated[tuple[JsonValue, ...], Field(min_length=1, strict=False)]


class SearchKnobs(Knobs):
    """Trials of one experiment with other values of some knobs: results/search_<search>.json."""

    experiment: Name = Field(description="The one of experiments whose knobs are varied; it need not have been run.")
    over: Annotated[dict[str, Values], Field(min_length=1)] = Field(
        description="For each knob its values. A knob is named by its path inside the experiment, such as "
        "stages.only.learning_rate; recipe.batch_size and stages.<stage>.recipe.batch_size are knobs of the recipes "
        "that it names.",
    )
    trials: Annotated[int, Field(ge=1)] | None = Field(
        None, description="So many points of the grid, drawn by `seed`; absent: the whole grid."
    )
    seed: Seed = Field(0, description="Of the drawing. With more trials, those of before are among them.")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] = Field(
        description="One student is trained for each in every trial; none of the experiment's own."
    )

    @model_validator(mode="after")
    def _all_differ(self) -> "SearchKnobs":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ, got {list(self.seeds)}")
        for path, values in self.over.items():
            for number, value in enumerate(values):
                if value in values[:number]:
                    raise ValueError(f"over.{path}: {value!r} stands there twice; write each value once")
        return self

    @property
    def num_points(self) -> int:
        """Of the grid."""
        return math.prod(map(len, self.over.values()))

    def points(self) -> list[dict[str, Any]]:
        """The chosen points of the grid: a value for each path, in the grid's order; the last path changes fastest."""
        grid = [dict(zip(self.over, values, strict=True)) for values in itertools.product(*self.over.values())]
        if self.trials is None:
            return grid
        chosen = sorted(range(len(grid)), key=lambda number: _rank(self.seed, grid[number]))[: self.trials]
        return [grid[number] for number in sorted(chosen)]


def _rank(seed: int, point: Mapping[str, Any]) -> bytes:
    """A place in a shuffled order; sha256 and not a random generator, whose stream may change with the library."""
    return hashlib.sha256(f"{seed} {canonical_json(point)}".encode()).digest()


@dataclass(frozen=True)
class TrialKnobs:
    """One trial, as a search's result names it."""

    name: str
    values: Mapping[str, Any]
    """By path: what is not as in the experiment."""
    num_stages: int
    """Of each student."""
    partition: int
    """Which of the search's partitions, from 0, its students know."""


@dataclass(frozen=True)
class SearchJobKnobs:
    """Knobs of one search's result."""

    search: SearchKnobs
    trials: tuple[TrialKnobs, ...]
