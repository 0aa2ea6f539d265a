"""The whole of params.yaml as one typed model, its JSON schema, and look-ups of its entries."""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from edpipe.errors import ParamsError, nearest
from edpipe.params.base import Knobs
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.experiment import (
    ExperimentKnobs,
)
from edpipe.params.partition import Name, PartitionKnobs
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.searches.knobs import SearchKnobs
from edpipe.params.searches.trials import Trial, trials_of, united
from edpipe.params.soft_labels import SoftLabelKnobs
from edpipe.params.student import StudentKnobs
from edpipe.params.study import StudyKnobs
from edpipe.params.teacher import TeacherKnobs

MOST_SHOWN = 12
"""Longer lists are abbreviated in error lines."""


class CurveKnobs(Knobs):
    """What a training shows of itself on its way. These are no job's knobs, so that looking re-runs nothing."""

    points: Annotated[int, Field(ge=0, le=10_000)] = Field(
        20, description="Rows of each curve: mean loss since the row before, learning rate, accuracy. 0: no curves."
    )
    validation_images: Annotated[int, Field(ge=0)] = Field(
        0,
        description="At each point so many images of the validation split, evenly spread, are shown to the network. "
        "0: none.",
    )


class Params(Knobs):
    """params.yaml, all of it."""

    datasets: dict[Name, DatasetKnobs] = Field(description="Images, packed once.")
    partitions: dict[Name, PartitionKnobs] = Field(description="Which classes each school level introduces.")
    recipes: dict[Name, RecipeKnobs] = Field(description="How weights are fitted.")
    teachers: dict[Name, TeacherKnobs] = Field(description="Networks to learn from.")
    students: dict[Name, StudentKnobs] = Field(description="Networks to keep.")
    soft_labels: dict[Name, SoftLabelKnobs] = Field(
        description="For each dataset: its views, and how logits are stored."
    )
    experiments: dict[Name, ExperimentKnobs] = Field(description="Each gives results/<experiment>.json.")
    studies: dict[Name, StudyKnobs] = Field({}, description="Experiments in one table: results/study_<study>.json.")
    searches: dict[Name, SearchKnobs] = Field(
        {}, description="Knobs tried on the validation split: results/search_<search>.json."
    )
    curves: CurveKnobs = Field(
        CurveKnobs(points=20, validation_images=0),
        description="Learning curves: logs/curves/**/<artifact>.json. No job hangs on them, and none runs again.",
    )
    logger: Literal["tensorboard", "mlflow", "wandb"] | None = Field(
        None,
        description="Is told the curves as well, if it is installed; EDPIPE_LOGGER counts more, and may be none.",
    )
    plugins: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Python files, relative to params.yaml, that define methods, losses, networks or readers.",
    )
    tracked: tuple[Name, ...] = Field(strict=False, description="Experiments that dvc.yaml follows.")

    @cached_property
    def trials(self) -> Mapping[str, tuple[Trial, ...]]:
        """Of each search, once `check_searches` found it sound."""
        return {name: trials_of(one, self.experiments, self.recipes) for name, one in self.searches.items()}

    @cached_property
    def with_trials(self) -> "Params":
        """The same with every trial as an experiment, and the recipes of trials, which stand nowhere in the file."""
        trials = united(trial for of_one in self.trials.values() for trial in of_one)
        recipes = {name: recipe for trial in trials.values() for name, recipe in trial.recipes.items()}
        return self.model_copy(
            update={
                "experiments": {**self.experiments, **{name: trial.experiment for name, trial in trials.items()}},
                "recipes": {**self.recipes, **recipes},
            }
        )


def entry(params: Params, section: str, name: str):  # noqa: ANN201  (one of the knob models, by section)
    """The entry `name` of a section of params.yaml.

    Raises:
        ParamsError: there is none.
    """
    entries = getattr(params, section)
    if name not in entries:
        raise ParamsError(f"{section}: no entry named '{name}'{nearest(name, entries)}")
    return entries[name]


def one_of(what: str, value: object, allowed: Iterable[object]) -> None:
    """That a value is one of those allowed.

    Raises:
        ParamsError: it is not.
    """
    if value not in allowed:
        texts = [str(one) for one in allowed]
        shown = texts if len(texts) <= MOST_SHOWN else [*texts[:3], "…", texts[-1]]
        raise ParamsError(f"{what}: {value!r} is not one of them; allowed: {', '.join(shown)}")


def json_schema() -> str:
    """The JSON schema of params.yaml, for editors; workflow/params.schema.json holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
