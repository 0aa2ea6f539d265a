"""The settings of a cluster: the file cluster.yaml beside a profile of Snakemake."""

import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from edpipe.errors import EdpipeError, nearest
from edpipe.params.base import Knobs
from edpipe.params.yaml_file import parse_text

PLACES = ("script", "name", "output", "folder", "cpus", "gpus", "mem_mb", "minutes", "seconds", "nodes")
"""What may stand in braces in `submit`."""
ONLY_SLURM = ("account", "partition", "gpu_partition", "gpu_type", "options")
Positive = Annotated[int, Field(ge=1)]


def _with_places(command: str, known: tuple[str, ...], needed: str) -> str:
    """The command, if it names only known places in braces, and the one without which it is of no use."""
    try:
        named = [place for _, place, _, _ in Formatter().parse(command) if place is not None]
    except ValueError as error:
        raise ValueError(f"{error}; write {{{{ for a brace") from error
    if unknown := [place for place in named if place not in known]:
        raise ValueError(f"{{{unknown[0]}}} is not known; known: {', '.join(known)}")
    if needed not in named:
        raise ValueError(f"must hold {{{needed}}}")
    return command


class StepLimits(Knobs):
    """What the jobs of one step ask for, instead of what its rule says."""

    minutes: Positive | None = None
    mem_mb: Positive | None = None
    cpus: Positive | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None


class Commands(Knobs):
    """How a scheduler is called that edpipe does not know by name."""

    submit: str
    """With places in braces; what it prints holds the job's id."""
    id: str = r"\d+"
    """A regular expression for the id in what `submit` prints."""
    ask: str
    """Says of the job `{id}` whether it waits or runs."""
    alive: str = ""
    """A regular expression for what `ask` prints of a job that waits or runs; empty: that `ask` succeeds says it."""
    cancel: str
    """Cancels the job `{id}`."""

    @field_validator("submit")
    @classmethod
    def _check_submit(cls, command: str) -> str:
        return _with_places(command, PLACES, "script")

    @field_validator("ask", "cancel")
    @classmethod
    def _check_about_job(cls, command: str) -> str:
        return _with_places(command, ("id",), "id")

    @field_validator("id", "alive")
    @classmethod
    def _check_pattern(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return pattern


class ClusterSettings(Knobs):
    """All of cluster.yaml."""

    scheduler: Literal["slurm", "commands"]
    account: str | None = None
    partition: str | None = None
    gpu_partition: str | None = None
    """Of jobs that ask for a GPU; None: `partition`."""
    gpu_type: str | None = None
    max_cpus: Positive | None = None
    """CPUs of the smallest node; jobs that could use more get these."""
    options: tuple[str, ...] = Field(default=(), strict=False)
    """More options of sbatch."""
    retries: Annotated[int, Field(ge=0)] = 5
    """How often a job is submitted again that was preempted, ran out of time or lost its node."""
    commands: Commands | None = None
    steps: dict[str, StepLimits] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_commands(self) -> "ClusterSettings":
        if (self.scheduler == "commands") != (self.commands is not None):
            raise ValueError("`commands` belongs to `scheduler: commands`, and to no other; give both or neither")
        if self.commands and (unused := [name for name in ONLY_SLURM if getattr(self, name)]):
            raise ValueError(f"`{unused[0]}` is for Slurm; write it into commands.submit")
        return self


def load_settings(path: Path) -> ClusterSettings:
    """The settings in a file.

    Raises:
        EdpipeError: it cannot be read, is no YAML, or has a wrong value; a line each.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EdpipeError(
            f"{path}: cannot be read: {error}; the submit command of a profile names the settings of its cluster"
        ) from error
    try:
        return ClusterSettings.model_validate(parse_text(text, path))
    except ValidationError as error:
        raise EdpipeError(*(f"{path}: {_line(dict(found))}" for found in error.errors())) from error


def _line(found: dict[str, Any]) -> str:
    """One wrong value: where, what, and what is allowed."""
    place, last = ".".join(map(str, found["loc"])), str(found["loc"][-1]) if found["loc"] else ""
    match found["type"]:
        case "extra_forbidden":
            known = {name for model in (ClusterSettings, Commands, StepLimits) for name in model.model_fields}
            return f"{place}: unknown key{nearest(last, known)}"
        case "missing":
            return f"{place}: missing; it must be given"
        case "value_error":
            return f"{place + ': ' if place else ''}{found['ctx']['error']}"
    return f"{place}: {found['input']!r}: {found['msg'][0].lower()}{found['msg'][1:]}"
