"""Snakemake processes that are making artifacts in this folder, each in a file that it removes when it ends.

Other processes read them: a second Snakemake leaves alone what the first is making, and DVC's steps do not start.
"""

import atexit
import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from edpipe.errors import BusyError, MismatchError
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.state.staleness import knob_changes
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.digests import digest_bytes, digest_json
from edpipe.storage.job import Job

KNOBS = "EDPIPE_KNOBS"
"""Environment variable in which a rule tells its step the digest of the knobs; DVC's commands have none."""
SAME_TIME_S = 1.0
"""Two readings of when a process began differ by less."""


@dataclass(frozen=True)
class Run:
    """One Snakemake process at work here."""

    path: Path
    """Of the file that names it."""
    host: str
    pid: int
    began_s: float
    outputs: frozenset[str]
    """What it makes."""
    knobs: Mapping[str, Any]
    """Of its jobs, by their first output."""

    @property
    def is_alive(self) -> bool:
        """Of another host nobody here can know, and it counts as alive."""
        if self.host != socket.gethostname():
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.began_s) < SAME_TIME_S
        except psutil.Error:
            return False


def announce_run(jobs: Iterable[Job]) -> None:
    """Writes the file of this process, which makes the outputs of these jobs; it is removed when the process ends."""
    host, pid = socket.gethostname(), os.getpid()
    path = paths.RUNS / f"{host}-{pid}.json"
    jobs = list(jobs)
    contents = {
        "host": host,
        "pid": pid,
        "began_s": psutil.Process().create_time(),
        "outputs": [str(path) for job in jobs for path in job.outputs],
        "knobs": {str(job.outputs[0]): json.loads(job.knobs_text) for job in jobs},
    }
    write_text_atomically(path, json.dumps(contents) + "\n")
    atexit.register(_remove_own, path.absolute(), pid)


def _remove_own(path: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a fork
        path.unlink(missing_ok=True)


def all_runs() -> list[Run]:
    """Every process that is at work here, this one too; files of processes that are gone are removed."""
    found: list[Run] = []
    for path in sorted(paths.RUNS.glob("*.json")):
        run = _read(path)
        if run is None or not run.is_alive:
            path.unlink(missing_ok=True)
        else:
            found.append(run)
    return found


def _read(path: Path) -> Run | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Run(
            path, told["host"], int(told["pid"]), float(told["began_s"]), frozenset(told["outputs"]), told["knobs"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def other_runs() -> list[Run]:
    """Every other process that is at work here."""
    own = (socket.gethostname(), os.getpid())
    return [run for run in all_runs() if (run.host, run.pid) != own]


def refuse_beside_snakemake() -> None:
    """That no Snakemake is at work here.

    Raises:
        BusyError: one is.
    """
    for run in other_runs():
        raise BusyError(
            f"snakemake is at work in this folder (process {run.pid} on {run.host}); wait for its end, then call dvc "
            f"again; if there is no such process, delete {run.path}"
        )


def knobs_digest(job: Job) -> str:
    """Digest of a job's knobs, as its rule tells it to the step."""
    return digest_bytes(job.knobs_text.encode())


def knobs_digest_at_start(job: Job) -> str:
    """The same for the knobs that the job had when the run began that now makes it; of today's, if no run does."""
    for run in all_runs():
        if str(job.outputs[0]) in run.knobs:
            return digest_json(run.knobs[str(job.outputs[0])])
    return knobs_digest(job)


def refuse_other_knobs(job: Job) -> None:
    """That the knobs of a job are those which its rule had when Snakemake began, if Snakemake runs it.

    Raises:
        MismatchError: params.yaml was edited since.
    """
    told = os.environ.get(KNOBS, "")
    if told and told != knobs_digest(job):
        known = [run.knobs[str(job.outputs[0])] for run in all_runs() if str(job.outputs[0]) in run.knobs]
        changes = [change for knobs in known for change in knob_changes(knobs, json.loads(job.knobs_text))]
        which = f" ({changes[0]})" if changes else ""
        raise MismatchError(f"params.yaml was edited since this run began{which}; call `snakemake` again")


def refuse_edited_knobs(before: Job, now: Job) -> None:
    """That a job's knobs at the end of its step are those that it was made with; DVC would store the later ones.

    Raises:
        MismatchError: params.yaml was edited meanwhile.
    """
    changes = knob_changes(json.loads(before.knobs_text), json.loads(now.knobs_text))
    if changes:
        raise MismatchError(
            f"params.yaml was edited while this step ran ({changes[0]}); DVC does not keep what it made; call dvc again"
        )
