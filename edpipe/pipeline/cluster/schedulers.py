"""The schedulers by name."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from edpipe.pipeline.cluster.fates import SchedulerState
from edpipe.pipeline.cluster.other_schedulers import OtherScheduler
from edpipe.pipeline.cluster.request import Request
from edpipe.pipeline.cluster.settings import ClusterSettings
from edpipe.pipeline.cluster.slurm import Slurm


@runtime_checkable
class Scheduler(Protocol):
    """What is asked of every scheduler."""

    def submit(self, request: Request, script: Path, output: Path) -> str:
        """Submits a script; gives the job's id."""
        ...

    def states(self, ids: Collection[str]) -> dict[str, SchedulerState] | None:
        """By id; without those it does not know; None: it does not answer."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancels jobs."""
        ...


def scheduler_of(settings: ClusterSettings) -> Scheduler:
    """The scheduler that the settings name."""
    return Slurm(settings) if settings.scheduler == "slurm" else OtherScheduler(settings)
