"""The jobs of a project on a cluster, and how each try of them ended."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from edpipe.pipeline.cluster.fates import SchedulerState
from edpipe.pipeline.cluster.schedulers import scheduler_of
from edpipe.pipeline.cluster.settings import ClusterSettings
from edpipe.pipeline.cluster.submitted_job import SubmittedJob, Try, all_jobs

NOT_ASKED = "not answered"


@dataclass(frozen=True)
class TryRow:
    """One try of one job."""

    job: str
    number: int
    """From 1."""
    id: str
    state: str
    """How it ended, or the scheduler's word on it."""
    node: str
    waited_s: float | None
    """From its submission to its begin; None: not known."""
    ran_s: float | None


def rows() -> Iterator[TryRow]:
    """All tries of all jobs of this folder; of those that are not over, what the scheduler says now."""
    jobs = list(all_jobs())
    states = _present_states([job for job in jobs if not job.tries[-1].fate and job.end() is None])
    for job in jobs:
        for number, one in enumerate(job.tries, 1):
            yield _ended(job, number, one) if one.fate else _open(job, number, one, states.get(one.id))


def _present_states(jobs: Sequence[SubmittedJob]) -> dict[str, SchedulerState]:
    """By id; each scheduler is asked once for all of its jobs."""
    found: dict[str, SchedulerState] = {}
    for _, some in groupby(sorted(jobs, key=lambda job: repr(job.settings)), key=lambda job: repr(job.settings)):
        same = list(some)
        ids = [job.tries[-1].id for job in same]
        told = scheduler_of(ClusterSettings.model_validate(same[0].settings)).states(ids)
        found |= dict.fromkeys(ids, SchedulerState(False, word=NOT_ASKED)) if told is None else told
    return found


def _ended(job: SubmittedJob, number: int, one: Try) -> TryRow:
    state = f"{one.fate} ({one.word})" if one.word else one.fate
    waited_s = one.ended_s - one.run_s - one.submitted_s if one.run_s else None
    return TryRow(job.request.name, number, one.id, state, one.node, waited_s, one.run_s or None)


def _open(job: SubmittedJob, number: int, one: Try, state: SchedulerState | None) -> TryRow:
    end = job.end()
    if end is not None:
        return TryRow(
            job.request.name,
            number,
            one.id,
            f"ended with exit code {end.code}",
            end.node,
            end.begun_s - one.submitted_s,
            end.ended_s - end.begun_s,
        )
    state = state or SchedulerState(False)
    word = state.word or ("waits or runs" if state.is_alive else "not known to the scheduler")
    return TryRow(job.request.name, number, one.id, word, state.node, None, time.time() - one.submitted_s)
