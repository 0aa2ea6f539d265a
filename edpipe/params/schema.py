"""The whole of params.yaml as one typed model, its JSON schema, and look-ups of its entries."""

import json
from collections.abc import Iterable

from pydantic import Field

from edpipe.errors import ParamsError, nearest
from edpipe.params.base import Knobs
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.experiment import (
    ExperimentKnobs,
)
from edpipe.params.partition import Name, PartitionKnobs
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import SoftLabelKnobs
from edpipe.params.student import StudentKnobs
from edpipe.params.study import StudyKnobs
from edpipe.params.teacher import TeacherKnobs

MOST_SHOWN = 12
"""Longer lists are abbreviated in error lines."""


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
    plugins: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Python files, relative to params.yaml, that define methods, losses, networks or readers.",
    )
    tracked: tuple[Name, ...] = Field(strict=False, description="Experiments that dvc.yaml follows.")


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
