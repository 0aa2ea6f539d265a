"""The folder of one job on a cluster: what was submitted, when and as which job, and how it ended."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edpipe.pipeline.cluster.fates import Fate
from edpipe.pipeline.cluster.request import Request
from edpipe.storage.atomic import write_text_atomically

FOLDER = Path(".snakemake/edpipe_cluster")
"""In the project; a folder for each job."""


@dataclass(frozen=True)
class Try:
    """One submission of a job."""

    id: str
    """The scheduler's."""
    submitted_s: float
    """Seconds since 1970."""
    fate: str = ""
    """A value of `Fate`; empty: not over yet, or not asked since."""
    word: str = ""
    """The scheduler's own word at the end."""
    node: str = ""
    ended_s: float = 0.0
    run_s: float = 0.0
    """Seconds that it ran; 0: not known."""


@dataclass(frozen=True)
class End:
    """What the job itself left when it ended."""

    code: int
    step_codes: tuple[int, ...]
    node: str
    begun_s: float
    ended_s: float


@dataclass(frozen=True)
class SubmittedJob:
    """One job of Snakemake, as it was submitted."""

    request: Request
    settings: dict[str, Any]
    """Of the cluster, as JSON."""
    environment: dict[str, str]
    """Variables of edpipe where the job was submitted."""
    tries: tuple[Try, ...] = ()
    is_cancelled: bool = False
    """Whether Snakemake wanted its end."""

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return FOLDER / self.request.name

    @property
    def jobscript(self) -> Path:
        """Snakemake's own script."""
        return self.folder / "jobscript.sh"

    @property
    def script(self) -> Path:
        """What the scheduler runs."""
        return self.folder / "submitted.sh"

    def output(self, number: int) -> Path:
        """What the scheduler writes of a try, counted from 1."""
        return (self.folder / f"output_{number}.log").absolute()

    def write(self) -> None:
        """Keeps it in its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.folder / "job.json", json.dumps(asdict(self), indent=1))

    def end(self) -> End | None:
        """What the last try left; None: nothing yet."""
        with suppress(OSError, ValueError, TypeError):  # a file system of a network may show half of it at first
            found = json.loads((self.folder / "end.json").read_text(encoding="utf-8"))
            return End(**found | {"step_codes": tuple(found["step_codes"])})
        return None

    def forget_end(self) -> None:
        """Before the next try."""
        (self.folder / "end.json").unlink(missing_ok=True)


def read_job(name: str) -> SubmittedJob | None:
    """The job of a folder; None: there is none, or it cannot be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads((FOLDER / name / "job.json").read_text(encoding="utf-8"))
        request = found["request"]
        return SubmittedJob(
            Request(**request | {"logs": tuple(request["logs"])}),
            found["settings"],
            found["environment"],
            tuple(Try(**one) for one in found["tries"]),
            found["is_cancelled"],
        )
    return None


def all_jobs() -> Iterator[SubmittedJob]:
    """Those of this project, in the order of their last submission."""
    found = [job for path in FOLDER.glob("*/job.json") if (job := read_job(path.parent.name)) and job.tries]
    yield from sorted(found, key=lambda job: job.tries[-1].submitted_s)


def note_fate(one: Try, fate: Fate, word: str, end: End | None) -> Try:
    """A try that is over."""
    if end is None:
        return Try(one.id, one.submitted_s, fate.value, word, one.node, time.time())
    return Try(one.id, one.submitted_s, fate.value, word, end.node, end.ended_s, end.ended_s - end.begun_s)
