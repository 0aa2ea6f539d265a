"""The ledger: what the making of each artifact took, in benchmarks/<step>/<name>.json, whoever called the step.

Times and hosts are here and in no artifact. A process that is killed by SIGKILL, or with its machine, leaves no figures
of that attempt; one that ends by an error or an interruption does, and the next attempt at the same job adds to them.
"""

import os
import re
import resource
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edpipe import __version__
from edpipe.errors import EdpipeError
from edpipe.params.base import Knobs
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.step_table import STEP
from edpipe.results.measures.cost import CostPart, Figures, together
from edpipe.runtime.progress import announce
from edpipe.runtime.threads import is_main_process, num_started, num_threads
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.digests import digest_file, digest_json
from edpipe.storage.job import Job
from edpipe.storage.records import read_record, record_path, to_json

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
KIB = 1024
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else KIB
"""Of getrusage's ru_maxrss: macOS counts bytes, Linux and the BSDs KiB."""


class CostEntry(Knobs):
    """What is in one file of the ledger."""

    format: Literal["edpipe-ledger"] = "edpipe-ledger"
    format_version: Literal[1] = 1
    job: str
    """Digest of the command and the knobs: attempts at another artifact of the same name do not count."""
    record: str | None
    """Digest of the record that was written; None where the last attempt wrote none."""
    finished: bool
    attempts: Annotated[int, Field(ge=1)]
    seconds: Seconds
    cpu_seconds: Seconds
    images: Count
    teacher_forwards: Count
    peak_memory_bytes: Count
    peak_gpu_memory_bytes: Count | None
    device: str
    processes: Annotated[int, Field(ge=1)]
    """That trained together; CPU time and memory are those of the first."""
    threads: int
    host: str
    ended: str
    """Of the last attempt, in UTC."""
    version: str
    """Of edpipe."""

    @property
    def figures(self) -> Figures:
        """What is summed."""
        return Figures(**{field.name: getattr(self, field.name) for field in fields(Figures)})


def read_entry(job: Job) -> CostEntry | None:
    """What the ledger says of a job; None where it says nothing that can be read."""
    try:
        return CostEntry.model_validate_json(paths.benchmark_path(job.step, job.outputs[0]).read_bytes())
    except (OSError, ValueError):
        return None


def parts_of(jobs: Sequence[Job], experiment: str | None = None) -> list[CostPart]:
    """What the artifacts of these jobs took, as far as the ledger tells of the very artifacts that lie here.

    If they are all that one experiment needs, stages of another made a student that teaches it: they count as fetching
    the teacher.
    """
    steps = [_counted_as(job, experiment) for job in jobs]
    return [
        CostPart(step, _figures_of_present(job), STEP[step].is_shared) for step, job in zip(steps, jobs, strict=True)
    ]


def _counted_as(job: Job, experiment: str | None) -> str:
    of_another = experiment is not None and job.arguments.get("experiment", experiment) != experiment
    return "fetch_teacher" if of_another else job.step


def entry_of_present(job: Job) -> CostEntry | None:
    """What the ledger says of the very artifact that lies here; None where it tells of another, or of none."""
    entry = read_entry(job)
    is_of_it = entry is not None and entry.record is not None and entry.record == _record_digest(job)
    return entry if is_of_it else None


def _figures_of_present(job: Job) -> Figures | None:
    entry = entry_of_present(job)
    return entry.figures if entry else None


def _record_digest(job: Job) -> str | None:
    try:
        return digest_file(record_path(job.outputs[0]))
    except EdpipeError:
        return None


@contextmanager
def costs_recorded(job: Job) -> Iterator[None]:
    """Adds what the block takes to the ledger of the job, however it ends; the artifact comes first."""
    if not is_main_process():  # of several that train together, the first writes
        yield
        return
    earlier, meter = _unfinished(job), _Meter()
    try:
        yield
    except BaseException:
        _write_entry(job, earlier, meter, is_finished=False)
        raise
    _write_entry(job, earlier, meter, is_finished=True)


def follow_record(job: Job, before: str) -> None:
    """Keeps what the ledger says of an artifact whose record was written anew, while the artifact stayed.

    Args:
        job: of the artifact.
        before: digest of the former record; an entry of another one is of another artifact, and stays.

    Raises:
        OverwriteError: the entry cannot be written.
    """
    entry = read_entry(job)
    if entry and entry.record == before:
        followed = entry.model_copy(update={"record": _record_digest(job)})
        write_text_atomically(paths.benchmark_path(job.step, job.outputs[0]), to_json(followed.model_dump()))


def _unfinished(job: Job) -> CostEntry | None:
    entry = read_entry(job)
    return entry if entry and not entry.finished and entry.job == _job_digest(job) else None


def _job_digest(job: Job) -> str:
    return digest_json([job.command, job.knobs])


class _Meter:
    """Time and memory of this process from now on."""

    def __init__(self) -> None:
        self._started_s, self._cpu_started_s = time.monotonic(), _cpu_seconds()

    def read(self, record: dict[str, Any]) -> Figures:
        """What was taken since; images and teacher forwards are those of the record that came of it."""
        return Figures(
            seconds=time.monotonic() - self._started_s,
            cpu_seconds=_cpu_seconds() - self._cpu_started_s,
            images=record.get("images_seen", 0),
            # A verification's record repeats the forwards of the files; what it asked itself are the verified rows.
            teacher_forwards=record.get("verified_rows", record.get("teacher_forwards", 0)),
            peak_memory_bytes=_peak_memory_bytes(),
            peak_gpu_memory_bytes=_peak_gpu_memory_bytes(),
        )


def _write_entry(job: Job, earlier: CostEntry | None, meter: _Meter, is_finished: bool) -> None:
    path = paths.benchmark_path(job.step, job.outputs[0])
    try:
        entry = _new_entry(job, earlier, meter, is_finished)
        write_text_atomically(path, to_json(entry.model_dump()))
    except Exception as error:  # whatever it is: the artifact is made, or another error is on its way
        announce(f"warning: {path}: what this step took could not be noted: {' '.join(str(error).split())}")


def _new_entry(job: Job, earlier: CostEntry | None, meter: _Meter, is_finished: bool) -> CostEntry:
    path = record_path(job.outputs[0])
    now = meter.read(read_record(path) if is_finished and path.is_file() else {})
    figures = together([earlier.figures, now] if earlier else [now])
    return CostEntry(
        job=_job_digest(job),
        record=_record_digest(job) if is_finished else None,
        finished=is_finished,
        attempts=earlier.attempts + 1 if earlier else 1,
        device=_device(),
        processes=num_started(),
        threads=num_threads(),
        host=socket.gethostname(),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        **{field.name: getattr(figures, field.name) for field in fields(Figures)},
    )


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_memory_bytes() -> int:
    """Of the largest process among this one and those that it started.

    Its own not by getrusage where there is another way: on Linux that begins with what the parent had when it started
    this process, and Snakemake is larger than a small step.
    """
    status = Path("/proc/self/status")
    text = status.read_text(encoding="ascii", errors="replace") if status.is_file() else ""
    measured = re.search(r"^VmHWM:\s*(\d+) kB$", text, re.MULTILINE)
    own = int(measured[1]) * KIB if measured else _max_rss_bytes(resource.RUSAGE_SELF)
    return max(own, _max_rss_bytes(resource.RUSAGE_CHILDREN))


def _max_rss_bytes(who: int) -> int:
    return resource.getrusage(who).ru_maxrss * MAXRSS_UNIT_BYTES


def _cuda() -> Any:
    """torch.cuda, if this process has computed there; torch is not loaded for this."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _peak_gpu_memory_bytes() -> int | None:
    cuda = _cuda()
    return max(map(cuda.max_memory_allocated, range(cuda.device_count()))) if cuda else None


def _device() -> str:
    """What the networks ran on; "cpu" also for steps without networks."""
    cuda = _cuda()
    if cuda:
        return f"cuda: {cuda.get_device_name()}"
    return "mps" if os.environ.get("EDPIPE_DEVICE") == "mps" and "torch" in sys.modules else "cpu"
