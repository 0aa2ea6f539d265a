"""Starts the fork server: one process imports torch and the steps, and Snakemake's local jobs are forked from it.

Under `dvc repro` the second step starts one; see `runtime.repro_server`.
"""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from edpipe.params.yaml_file import PARAMS_PATH
from edpipe.pipeline.jobs.step_table import STEPS
from edpipe.runtime.fork_protocol import SERVER

LONGEST_SOCKET_PATH = 100
"""Bytes; the system's own limit is 108 on Linux, 104 on macOS."""
LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What the libraries of numbers read when they are loaded; Snakemake sets them for each job."""
LIBRARIES = {"timm:": "timm", "torchvision:": "torchvision.models"}
"""Beginnings of model names, and what building such a network imports."""


def start_fork_server(workflow: Any) -> None:
    """Where jobs run on this machine: one process imports torch and the steps, and every job is forked from it.

    It ends with this process, whose end of a pipe it watches. Whatever keeps it from starting costs time only.
    """
    jobs = [job for job in workflow.dag.needrun_jobs() if job.is_shell]
    is_wanted = os.environ.get("EDPIPE_FORK_SERVER", "1") != "0" and len(jobs) > 1
    is_here = workflow.is_main_process and workflow.local_exec and not workflow.touch
    if is_wanted and is_here and hasattr(socket, "AF_UNIX"):
        knobs = " ".join(str(job.params) for job in jobs)
        with suppress(OSError):
            modules = [*_libraries_of(knobs), *modules_of({job.rule.name for job in jobs})]
            os.environ[SERVER] = str(_start_fork_server(modules))


def start_under_dvc(path: Path, watched: int) -> None:
    """Starts one for the steps that `dvc repro` runs, which are not known: it imports what any of them needs.

    Args:
        path: of its socket.
        watched: descriptor of the DVC process, with which it ends.
    """
    try:
        knobs = PARAMS_PATH.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the step will say so
        knobs = ""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        _serve(listener, watched, [*_libraries_of(knobs), *modules_of({step.name for step in STEPS})])


def _libraries_of(knobs: str) -> list[str]:
    return [LIBRARIES[name] for name in LIBRARIES if name in knobs]


def modules_of(steps: Collection[str]) -> list[str]:
    """What is to be imported for these steps; a step is served as soon as its own module is there.

    >>> modules_of(["report", "result"])
    ['edpipe.cli.main', 'edpipe.storage.code.preloaded', 'scipy.special', 'edpipe.steps.result', 'edpipe.steps.report']
    """
    found = ["edpipe.cli.main", "edpipe.storage.code.preloaded"]
    for step in (step for step in STEPS if step.name in steps):
        found += [*step.preloads, f"edpipe.steps.{step.name}"]
    return list(dict.fromkeys(found))


def _start_fork_server(modules: list[str]) -> Path:
    """Starts it, to import these modules too; gives the path of its socket, which can be called from now on."""
    path = _private_folder() / "socket"
    lifeline, _open_until_exit = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        _serve(listener, lifeline, modules)
    os.close(lifeline)
    return path


def _serve(listener: socket.socket, lifeline: int, modules: list[str]) -> None:
    """The server's process; it ends when `lifeline` can be read."""
    subprocess.Popen(
        [sys.executable, "-P", "-m", "edpipe.cli.fork_server", str(listener.fileno()), str(lifeline), *modules],
        env=os.environ | dict.fromkeys(LIBRARY_THREADS, "1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(listener.fileno(), lifeline),
        start_new_session=True,  # the terminal's Ctrl-C is for the jobs' front-ends
    )


def _private_folder() -> Path:
    """A folder that nobody else may enter, with a path that is short enough for a socket."""
    folder = tempfile.mkdtemp(prefix="edpipe-")
    if len(os.fsencode(folder)) + len("/socket") > LONGEST_SOCKET_PATH:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="edpipe-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
