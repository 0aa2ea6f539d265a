"""Slurm, with or without a database of accounts: sbatch, squeue, scancel."""

import getpass
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from edpipe.errors import EdpipeError
from edpipe.pipeline.cluster.calls import call, call_patiently
from edpipe.pipeline.cluster.fates import Fate, SchedulerState
from edpipe.pipeline.cluster.request import Request
from edpipe.pipeline.cluster.settings import ClusterSettings

ENDED = {
    "COMPLETED": None,
    "FAILED": Fate.FAILED,
    "CANCELLED": Fate.CANCELLED,
    "REVOKED": Fate.CANCELLED,
    "TIMEOUT": Fate.TIMED_OUT,
    "DEADLINE": Fate.FAILED,
    "PREEMPTED": Fate.PREEMPTED,
    "NODE_FAIL": Fate.NODE_LOST,
    "BOOT_FAIL": Fate.NODE_LOST,
    "LAUNCH_FAILED": Fate.NODE_LOST,
    "OUT_OF_MEMORY": Fate.OUT_OF_MEMORY,
}
"""Slurm's states of jobs that are over; of all others a job waits or runs."""
HELD = "launch failed requeued held"
"""Slurm's reason for a job that it will never start again by itself."""


class Slurm:
    """Calls Slurm's own commands."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings

    def submit(self, request: Request, script: Path, output: Path) -> str:
        """Submits a script; gives the job's id.

        Raises:
            EdpipeError: sbatch refuses it, in one line with what it says, or is not there.
            TimeoutError: Slurm does not answer.
        """
        try:
            printed = call_patiently(["sbatch", *self._options(request, output), str(script)])
        except FileNotFoundError as error:
            raise EdpipeError("sbatch: not found; call snakemake on a host from which jobs can be submitted") from error
        except subprocess.CalledProcessError as error:
            raise EdpipeError(
                f"sbatch: refuses {request.name}: {' '.join(error.stderr.split())}; mend the settings of the cluster"
            ) from error
        return printed.strip().split(";")[0]

    def _options(self, request: Request, output: Path) -> list[str]:
        settings = self._settings
        partition = (settings.gpu_partition if request.gpus else None) or settings.partition
        kind = f"gpu:{settings.gpu_type}" if settings.gpu_type else "gpu"
        return [
            "--parsable",
            "--requeue",
            f"--job-name={request.name}",
            f"--output={output}",
            f"--chdir={Path.cwd()}",
            f"--nodes={request.nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={request.cpus}",
            f"--mem={request.mem_mb}M",
            f"--time={request.minutes}",
            *([f"--gres={kind}:{request.gpus}"] if request.gpus else []),
            *([f"--account={settings.account}"] if settings.account else []),
            *([f"--partition={partition}"] if partition else []),
            *settings.options,
        ]

    def states(self, ids: Collection[str]) -> dict[str, SchedulerState] | None:
        """What Slurm says of all jobs of this user, by one call; None: it does not answer.

        Jobs that have ended are named for a while (MinJobAge, 5 minutes by default), also without accounting.
        """
        words = ["squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", "--format=%A|%T|%N|%r"]
        try:
            lines = call(words).splitlines()
        except (subprocess.SubprocessError, OSError):
            return None
        return dict(_state(line) for line in lines if line.count("|") == 3)

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancels jobs; of those that have ended nothing is said."""
        call_patiently(["scancel", *ids])


def _state(line: str) -> tuple[str, SchedulerState]:
    """
    >>> _state("17|CANCELLED|node1|None")[1].fate, _state("18|PENDING||Resources")[1].is_alive
    (<Fate.CANCELLED: 'cancelled'>, True)
    """
    number, word, node, reason = line.strip().split("|")
    is_over, is_held = word in ENDED, word == "PENDING" and reason.replace("_", " ").lower() == HELD
    fate = Fate.NODE_LOST if is_held else ENDED.get(word)
    shown = f"{word} ({reason})" if word == "PENDING" and reason not in ("", "None") else word
    return number, SchedulerState(not is_over and not is_held, fate, shown, node)
