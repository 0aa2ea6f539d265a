"""How a job on a cluster ended, from its exit codes and the scheduler's word, and whether another try helps."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edpipe.errors import EXIT_LATER, EXIT_MENDABLE


class Fate(StrEnum):
    """How one try of a job ended."""

    DONE = "done"
    REFUSED = "cannot succeed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out of memory"
    TIMED_OUT = "out of time"
    PREEMPTED = "preempted"
    NODE_LOST = "node lost"
    LATER = "asked to be tried again"
    INTERRUPTED = "interrupted"
    VANISHED = "gone without a word"


HELPED_BY_RETRY = {Fate.TIMED_OUT, Fate.PREEMPTED, Fate.NODE_LOST, Fate.LATER, Fate.INTERRUPTED, Fate.VANISHED}
"""The next try goes on from the last checkpoint."""
REMEDIES = {
    Fate.REFUSED: "its log says what to mend; then call snakemake again",
    Fate.FAILED: "its log says more",
    Fate.CANCELLED: "call snakemake again to go on from its last checkpoint",
    Fate.OUT_OF_MEMORY: "set a larger steps.{step}.mem_mb in the settings of the cluster",
    Fate.TIMED_OUT: "set a larger steps.{step}.minutes in the settings of the cluster",
}
"""What to do, beside trying again."""
SIGNALS = range(129, 160)
"""A shell's exit code of a process that a signal ended."""
KILLED = 137


@dataclass(frozen=True)
class SchedulerState:
    """What a scheduler says of a job."""

    is_alive: bool
    """Whether it waits or runs."""
    fate: Fate | None = None
    """Of a job that has ended, if the scheduler knows."""
    word: str = ""
    """The scheduler's own word."""
    node: str = ""


GONE = SchedulerState(is_alive=False)
"""Of a job that the scheduler does not know, or no more."""


def fate_of(code: int | None, step_codes: Sequence[int], state: SchedulerState) -> Fate:
    """How a try ended.

    Args:
        code: exit code of the job's script; None: it left none.
        step_codes: those of the steps in it that were told.
        state: the scheduler's word on a job that is no longer alive.

    >>> fate_of(1, [2], GONE), fate_of(1, [143], SchedulerState(False, Fate.TIMED_OUT)), fate_of(None, [], GONE)
    (<Fate.REFUSED: 'cannot succeed'>, <Fate.TIMED_OUT: 'out of time'>, <Fate.VANISHED: 'gone without a word'>)
    """
    if code == 0:
        return Fate.DONE
    if state.fate is not None and state.fate is not Fate.FAILED:
        return state.fate
    failed = [one for one in step_codes if one]
    if EXIT_MENDABLE in failed:
        return Fate.REFUSED
    if failed and all(one == EXIT_LATER for one in failed):
        return Fate.LATER
    if any(one in SIGNALS and one != KILLED for one in (failed or [code or 0])):
        return Fate.INTERRUPTED
    return Fate.VANISHED if code is None and state.fate is None else Fate.FAILED
