"""What the scheduler says of the jobs, asked once for all of them and remembered for a few seconds."""

import json
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from edpipe.pipeline.cluster.fates import GONE, Fate, SchedulerState
from edpipe.pipeline.cluster.schedulers import Scheduler
from edpipe.storage.atomic import write_text_atomically

REMEMBERED_S = 5.0
"""Snakemake asks after each job by itself; a scheduler of many users must not be asked as often."""


def state_of(scheduler: Scheduler, number: str, memory: Path, is_by_job: bool) -> SchedulerState | None:
    """The state of a job; `GONE`: the scheduler does not know it; None: the scheduler does not answer.

    Args:
        scheduler: to be asked.
        number: the scheduler's id of the job.
        memory: file of what it said last.
        is_by_job: whether the scheduler is asked for each job by itself, so that an answer says nothing of others.
    """
    states, asked_s = _remembered(memory)
    is_fresh = 0 <= time.time() - asked_s < REMEMBERED_S
    if is_fresh and number in states:
        return states[number]
    found = scheduler.states([number])
    if found is None:
        return None
    kept = {**(states if is_fresh and is_by_job else {}), **found}
    told = {one: asdict(state) for one, state in kept.items()}
    write_text_atomically(
        memory, json.dumps({"asked_s": asked_s if is_fresh and is_by_job else time.time(), "states": told})
    )
    return found.get(number, GONE)


def _remembered(memory: Path) -> tuple[dict[str, SchedulerState], float]:
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(memory.read_text(encoding="utf-8"))
        return {number: _state(state) for number, state in found["states"].items()}, float(found["asked_s"])
    return {}, 0.0


def _state(told: dict[str, object]) -> SchedulerState:
    fate = told["fate"]
    return SchedulerState(bool(told["is_alive"]), Fate(fate) if fate else None, str(told["word"]), str(told["node"]))
