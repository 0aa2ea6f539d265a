"""Time and bytes of jobs that would run: from the ledger where they ran before, else from a measurement here."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edpipe.params.schema import Params
from edpipe.pipeline.estimates.image_counts import ImageCounts, image_counts
from edpipe.pipeline.estimates.job_costs import JobCost, JobCosts
from edpipe.pipeline.estimates.makespan import makespan
from edpipe.pipeline.estimates.network_speed import NetworkSpeeds
from edpipe.pipeline.jobs.resources import threads_of
from edpipe.pipeline.state.cost_ledger import read_entry
from edpipe.results.measures.cost import duration
from edpipe.runtime import bfloat16
from edpipe.storage.job import Job


@dataclass(frozen=True)
class Estimate:
    """What is known of the jobs that would run."""

    ran: Mapping[Path, float]
    """Seconds of each that ran before, by its first output."""
    new: Mapping[Path, JobCost]
    """Of those that never ran, as far as it can be estimated."""
    unknown: tuple[Job, ...]
    """The others."""
    total_s: float
    """Of all that is known, one after the other."""
    parallel_s: float
    """The same on this machine's cores."""
    cores: int
    num_bytes: int
    """Of what never ran."""

    @property
    def seconds(self) -> float | None:
        """On all cores; None where something is not known."""
        return None if self.unknown else self.parallel_s


def estimated(
    params: Params,
    running: Sequence[Job],
    speeds: NetworkSpeeds,
    counts: Callable[[Params, str], ImageCounts | None] = image_counts,
) -> Estimate:
    """Estimates of these jobs, inputs before what reads them; measures networks that were not measured here before."""
    ran = {job.outputs[0]: seconds for job in running if (seconds := seconds_taken(job)) is not None}
    costs = JobCosts(params, speeds, counts)
    found = {job.outputs[0]: costs.of(job) for job in running if job.outputs[0] not in ran}
    new = {path: cost for path, cost in found.items() if cost is not None}
    seconds = {**ran, **{path: cost.seconds for path, cost in new.items()}}
    known = [job for job in running if job.outputs[0] in seconds]
    threads = {job.outputs[0]: threads_of(params, job) for job in known}
    cores = len(os.sched_getaffinity(0))
    return Estimate(
        ran=ran,
        new=new,
        unknown=tuple(job for job in running if job.outputs[0] not in seconds),
        total_s=sum(seconds.values()),
        parallel_s=makespan(known, seconds, threads, cores),
        cores=cores,
        num_bytes=sum(cost.num_bytes for cost in new.values()),
    )


def seconds_taken(job: Job) -> float | None:
    """How long the job took when it last ran to its end; None where the ledger does not say."""
    entry = read_entry(job)
    return entry.seconds if entry and entry.finished else None


def lines_of(found: Estimate, running: Sequence[Job], speeds: NetworkSpeeds) -> Iterator[str]:
    """What a person reads: a line for each step that never ran, the sum, and what was measured; ~ marks estimates."""
    yield from _step_lines(found, running)
    if found.unknown:
        steps = ", ".join(dict.fromkeys(job.step for job in found.unknown))
        yield f"no estimate for {len(found.unknown)} jobs ({steps}): the number of images is known once they are packed"
    if found.new:
        yield (
            f"all {len(found.ran) + len(found.new)} jobs: ~{duration(found.total_s)} one after the other, "
            f"{parallel(found)}; ~{size(found.num_bytes)} of new files"
        )
    for use, speed in speeds.used.items():
        yield (
            f"measured here: {use.model} at {use.channels}×{use.image_size}×{use.image_size}: "
            f"{speed.training:,.0f} images/s in training, {speed.forward:,.0f} forward ({speed.device}, "
            f"{use.threads} thread{'s' if use.threads > 1 else ''})"
        )
    if any(use.precision == "bfloat16" for use in speeds.used) and bfloat16.is_slow_here():
        yield f"bfloat16: {bfloat16.SLOW}; {bfloat16.REMEDY}"


def parallel(found: Estimate) -> str:
    """How long it takes on all cores of this machine."""
    return f"~{duration(found.parallel_s)} on {found.cores} core{'s' if found.cores > 1 else ''}"


def _step_lines(found: Estimate, running: Sequence[Job]) -> Iterator[str]:
    steps: dict[str, list[JobCost]] = {}
    for job in running:
        if job.outputs[0] in found.new:
            steps.setdefault(job.step, []).append(found.new[job.outputs[0]])
    for step, costs in steps.items():
        seconds, num_bytes = sum(cost.seconds for cost in costs), sum(cost.num_bytes for cost in costs)
        made = f", ~{size(num_bytes)}" if num_bytes else ""
        yield f"never ran  {len(costs)} × {step}: ~{duration(seconds)}{made}"


def size(num_bytes: int) -> str:
    """Bytes in the units of a person.

    >>> size(999), size(1_234_567)
    ('999 B', '1.23 MB')
    """
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
