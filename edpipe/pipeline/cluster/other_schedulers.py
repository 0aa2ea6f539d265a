"""A scheduler that edpipe does not know by name: it is called as the settings say."""

import re
import shlex
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from edpipe.errors import EdpipeError
from edpipe.pipeline.cluster.calls import call, call_patiently
from edpipe.pipeline.cluster.fates import GONE, SchedulerState
from edpipe.pipeline.cluster.request import Request
from edpipe.pipeline.cluster.settings import ClusterSettings, Commands

ALIVE = SchedulerState(is_alive=True)


class OtherScheduler:
    """Calls the commands of `ClusterSettings.commands`."""

    def __init__(self, settings: ClusterSettings) -> None:
        if settings.commands is None:
            raise ValueError("settings without commands")
        self._commands = settings.commands

    def submit(self, request: Request, script: Path, output: Path) -> str:
        """Submits a script; gives the job's id.

        Raises:
            EdpipeError: the command refuses it, or prints no id.
        """
        command = self._filled(request, script, output)
        try:
            printed = call_patiently(command)
        except subprocess.CalledProcessError as error:
            raise EdpipeError(
                f"{command}: fails with exit code {error.returncode}: {' '.join(error.stderr.split())}; mend "
                "commands.submit in the settings of the cluster"
            ) from error
        found = re.search(self._commands.id, printed)
        if found is None:
            raise EdpipeError(
                f"{command}: printed {printed.strip()!r}, in which {self._commands.id!r} finds no id; mend commands.id "
                "in the settings of the cluster"
            )
        return found[1] if found.groups() else found[0]

    def _filled(self, request: Request, script: Path, output: Path) -> str:
        return self._commands.submit.format(
            script=shlex.quote(str(script)),
            name=shlex.quote(request.name),
            output=shlex.quote(str(output)),
            folder=shlex.quote(str(Path.cwd())),
            cpus=request.cpus,
            gpus=request.gpus,
            mem_mb=request.mem_mb,
            minutes=request.minutes,
            seconds=60 * request.minutes,
            nodes=request.nodes,
        )

    def states(self, ids: Collection[str]) -> dict[str, SchedulerState] | None:
        """What the scheduler says of these jobs, a call each; None: it does not answer."""
        try:
            return {number: _state(self._commands, number) for number in ids}
        except (subprocess.TimeoutExpired, OSError):
            return None

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancels jobs, a call each."""
        for number in ids:
            try:
                call_patiently(self._commands.cancel.format(id=shlex.quote(number)))
            except subprocess.CalledProcessError:
                continue  # it has ended


def _state(commands: Commands, number: str) -> SchedulerState:
    try:
        printed = call(commands.ask.format(id=shlex.quote(number)))
    except subprocess.CalledProcessError:
        return GONE
    return ALIVE if re.search(commands.alive, printed) else GONE
