"""What a job is: one act of the pipeline, as values."""

from dataclasses import dataclass
from pathlib import Path

from edpipe.params.base import canonical_json
from edpipe.storage.records import record_path


@dataclass(frozen=True)
class Job:
    """One act of the pipeline."""

    step: str
    """Rule, module and subcommand."""
    arguments: dict[str, str | int]
    """Options of the subcommand; they name the job."""
    knobs: dict[str, object]
    """All values that the step is given, defaults filled in; a change of any re-runs the job."""
    inputs: dict[str, tuple[Path, ...]]
    """Artifacts that are read, by role."""
    outputs: tuple[Path, ...]
    """Files that are made; the artifact first, its record next."""
    keys: tuple[str, ...] = ()
    """Where in params.yaml the knobs stand, as DVC names them."""

    @property
    def command(self) -> str:
        """What Snakemake and DVC run; nothing in it depends on the machine."""
        return " ".join(["edpipe", self.step, *(f"--{name} {value}" for name, value in self.arguments.items())])

    @property
    def knobs_text(self) -> str:
        """The knobs as canonical JSON."""
        return canonical_json(self.knobs)

    @property
    def all_inputs(self) -> tuple[Path, ...]:
        """Inputs of every role."""
        return tuple(path for paths in self.inputs.values() for path in paths)


def with_record(path: Path) -> tuple[Path, ...]:
    """An artifact and the record beside it."""
    return path, record_path(path)
