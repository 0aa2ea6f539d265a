"""What a job is: one act of the pipeline, as values."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from edpipe.params.base import canonical_json
from edpipe.storage.code.units import step_unit

JobKnobs_co = TypeVar("JobKnobs_co", covariant=True)
"""A frozen dataclass: all that params.yaml decides of a job."""


@dataclass(frozen=True)
class NoKnobs:
    """Of a job that its inputs decide alone."""


@dataclass(frozen=True)
class Job(Generic[JobKnobs_co]):
    """One act of the pipeline."""

    step: str
    """Rule, module and subcommand."""
    arguments: dict[str, str | int]
    """Options of the subcommand; they name the job."""
    knobs: JobKnobs_co
    """All values that the step is given, defaults filled in; a change of any re-runs the job."""
    inputs: dict[str, tuple[Path, ...]]
    """Artifacts that are read, by role."""
    outputs: tuple[Path, ...]
    """Files that are made; the artifact first, its record next."""
    keys: tuple[str, ...] = ()
    """Where in params.yaml the knobs stand, as DVC names them."""
    choices: dict[str, str] = field(default_factory=dict)
    """The units of code that the knobs choose, by what is chosen; see `storage.code.units`."""

    @property
    def command(self) -> str:
        """What Snakemake and DVC run; nothing in it depends on the machine."""
        return " ".join(["edpipe", self.step, *(f"--{name} {value}" for name, value in self.arguments.items())])

    @property
    def knobs_text(self) -> str:
        """The knobs as canonical JSON."""
        return canonical_json(self.knobs)

    @property
    def units(self) -> tuple[str, ...]:
        """The units of code that the job hangs on: its step's first."""
        return tuple(dict.fromkeys([step_unit(self.step), *self.choices.values()]))

    @property
    def all_inputs(self) -> tuple[Path, ...]:
        """Inputs of every role."""
        return tuple(path for paths in self.inputs.values() for path in paths)

    def input(self, role: str) -> Path:
        """The first input of a role that every job of this step has."""
        return self.inputs[role][0]

    def input_or_none(self, role: str) -> Path | None:
        """The first input of a role that some jobs of this step have."""
        return next(iter(self.inputs.get(role, ())), None)
