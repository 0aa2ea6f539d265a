"""Where the steps of one `dvc repro` find its fork server, as Snakemake's jobs find theirs.

DVC starts a process for each step and tells it nothing of the others. What they share is the DVC process above them:
its number names a folder in the project. The first step makes the folder; the second, since more may follow, starts a
server there, which watches the DVC process and ends with it. Linux alone can watch a process that is not one's child.

Imports little, since every step under DVC asks here first.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

FOLDER = Path(".edpipe/servers")
"""Below the project's folder, in which DVC runs its steps: a short path, as sockets want."""
STAGE = "DVC_STAGE"
"""Environment variable in which DVC names the stage that it runs."""
SWITCH = "EDPIPE_FORK_SERVER"
_PROCESSES = Path("/proc")


def socket_under_dvc(is_step: bool, start: Callable[[Path, int], None]) -> str | None:
    """Path of the socket of the fork server; None where there is none, and the step runs in its own process.

    Args:
        is_step: whether this process is a step; other commands are quick.
        start: starts a server that listens at a path, and watches a descriptor of the DVC process.
    """
    if not is_step or STAGE not in os.environ or os.environ.get(SWITCH, "1") == "0" or not hasattr(os, "pidfd_open"):
        return None
    with suppress(OSError, ValueError):
        pid = dvc_process()
        return _socket_of(pid, start) if pid is not None else None
    return None


def _socket_of(pid: int, start: Callable[[Path, int], None]) -> str | None:
    folder = FOLDER / f"{pid}-{_began(pid)}"
    path = folder / "socket"
    if path.exists():
        return str(path)
    if not folder.exists():
        remove_old()
        folder.mkdir(mode=0o700, parents=True)
        return None
    watched = os.pidfd_open(pid)
    try:
        start(path, watched)
    finally:
        os.close(watched)
    return str(path)


def dvc_process() -> int | None:
    """The DVC process that runs this step: the nearest one above without a stage of its own; None if it is no DVC."""
    pid = os.getppid()
    while pid > 1 and _has_stage(pid):
        pid = int(_status(pid)[1])
    words = (_PROCESSES / str(pid) / "cmdline").read_bytes().split(b"\0")
    return pid if any(os.path.basename(word) == b"dvc" for word in words[:4]) else None


def remove_old() -> None:
    """Removes folders of DVC processes that are gone; a server removes its own, but there may have been none."""
    for folder in FOLDER.glob("*-*"):
        pid, _, began = folder.name.partition("-")
        try:
            is_alive = _began(int(pid)) == began
        except (OSError, ValueError):
            is_alive = False
        if not is_alive:
            shutil.rmtree(folder, ignore_errors=True)


def _has_stage(pid: int) -> bool:
    variables = (_PROCESSES / str(pid) / "environ").read_bytes().split(b"\0")
    return any(variable.startswith(f"{STAGE}=".encode()) for variable in variables)


def _began(pid: int) -> str:
    """When a process began, in the system's ticks: a number that is given again means another process then."""
    return _status(pid)[19]


def _status(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat after the name, which may hold spaces: state, parent, and so on."""
    text = (_PROCESSES / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()
