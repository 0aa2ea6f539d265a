"""What the Snakefile calls: loading, checks before the first job, and the bridge to DVC."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

from edpipe import dvcsync
from edpipe.errors import EdpipeError, ParamsError
from edpipe.handover import SERVER
from edpipe.jobs import Job
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.threads import num_processes

_STARTED_S = time.time()
"""Logs that are older are of an earlier run."""
GPU_FOLDER = Path("/proc/driver/nvidia/gpus")
LONGEST_SOCKET_PATH = 100
"""Bytes; the system's own limit is 108 on Linux, 104 on macOS."""
LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What the libraries of numbers read when they are loaded; Snakemake sets them for each job."""
LIBRARIES = {"timm:": "timm", "torchvision:": "torchvision.models"}
"""Beginnings of model names, and what building such a network imports."""
MODULES = {
    "pack_dataset": (),
    "partition_dataset": (),
    "partition_by_confusion": (),
    "train_teacher": ("torch", "torch._dynamo"),  # torch's optimizers import it when they are first used
    "fetch_teacher": ("torch", "torch._dynamo"),
    "dump_soft_labels": ("torch",),
    "verify_soft_labels": ("torch",),
    "evaluate_teacher": ("torch",),
    "record_trajectory": ("torch", "torch._dynamo"),
    "run_stage": ("torch", "torch._dynamo"),
    "evaluate": ("torch", "torch._dynamo"),
    "result": ("scipy.special",),
    "report": (),
    "study": ("scipy.special",),
}
"""What steps import when they run, besides their own modules; in the order in which they are needed."""


def load(workflow: Any, config: dict[str, Any]) -> Params:
    """The checked params; before that, in a folder that DVC looks after, what DVC knows is made known to Snakemake.

    Ends the process with one line if params.yaml is wrong, if values were given on the command line, or if DVC is busy.
    """
    try:
        if config:
            raise ParamsError(
                f"--config {' '.join(map(str, config))}: edit params.yaml instead; DVC and the steps would not see this"
            )
        params = load_params()
        if dvcsync.is_enabled(workflow):
            dvcsync.reconcile(params, is_dry_run=bool(workflow.output_settings.dryrun))
        return params
    except EdpipeError as error:
        _end(error)


def put_command_on_path() -> None:
    """Steps find `edpipe` beside this Python also where the virtual environment is not activated."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def job_of(make: Callable[..., Job], params: Params, words: dict[str, str | int]) -> Job:
    """The job that the words of a path name; ends the process with one line if there is no such job."""
    number = words.pop("number", None)
    try:
        job = make(params, **words)
        if number is not None and not job.outputs[0].name.startswith(f"{number}_"):
            raise ParamsError(
                f"{number}_{words['stage']}: stage '{words['stage']}' makes {job.outputs[0]}; ask for that"
            )
        return job
    except EdpipeError as error:
        _end(error)


def check_before_first_job(workflow: Any) -> None:
    """Model names of the experiments that are about to run; ends the process with one line if one is unknown."""
    from edpipe.checks import check_params

    experiments = {str(name) for job in workflow.dag.jobs if (name := job.wildcards_dict.get("experiment"))}
    try:
        check_params(load_params(), tuple(sorted(experiments)))
    except EdpipeError as error:
        _end(error)


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
            libraries = [LIBRARIES[name] for name in LIBRARIES if name in knobs]
            os.environ[SERVER] = str(_start_fork_server([*libraries, *modules_of({job.rule.name for job in jobs})]))


def modules_of(steps: Collection[str]) -> list[str]:
    """What is to be imported for these steps; a step is served as soon as its own module is there.

    >>> modules_of(["report", "result"])
    ['edpipe.__main__', 'scipy.special', 'edpipe.steps.result', 'edpipe.steps.report']
    """
    found = ["edpipe.__main__"]
    for step in (step for step in MODULES if step in steps):
        found += [*MODULES[step], f"edpipe.steps.{step}"]
    return list(dict.fromkeys(found))


def _start_fork_server(modules: list[str]) -> Path:
    """Starts it, to import these modules too; gives the path of its socket, which can be called from now on."""
    path = _private_folder() / "socket"
    lifeline, _held_to_the_end = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        subprocess.Popen(
            [sys.executable, "-P", "-m", "edpipe.fork_server", str(listener.fileno()), str(lifeline), *modules],
            env=os.environ | dict.fromkeys(LIBRARY_THREADS, "1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(listener.fileno(), lifeline),
            start_new_session=True,  # the terminal's Ctrl-C is for the jobs' front-ends
        )
    os.close(lifeline)
    return path


def _private_folder() -> Path:
    """A folder that nobody else may enter, with a path that is short enough for a socket."""
    folder = tempfile.mkdtemp(prefix="edpipe-")
    if len(os.fsencode(folder)) + len("/socket") > LONGEST_SOCKET_PATH:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="edpipe-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def pass_sigterm_on() -> None:
    """SIGTERM to Snakemake ends its running jobs after a checkpoint, as Ctrl-C does; it would let them run on."""
    begin_to_end = signal.getsignal(signal.SIGTERM)  # Snakemake's own: no more jobs are started

    def end(number: int, frame: FrameType | None) -> None:
        if callable(begin_to_end):
            begin_to_end(number, frame)
        for job in _running_jobs():
            with suppress(psutil.Error):
                job.send_signal(number)

    signal.signal(signal.SIGTERM, end)


def _running_jobs() -> list[psutil.Process]:
    """Steps, to which their shells gave way (`exec`); the fork server has a session of its own and is no job."""
    found = []
    for child in psutil.Process().children():
        with suppress(OSError):  # it has just ended
            if os.getsid(child.pid) == os.getsid(0):
                found.append(child)
    return found


def explain_failures(workflow: Any) -> None:
    """After a failed run: the one line of each failed step, where --quiet keeps Snakemake from showing its log."""
    if not {str(quietness) for quietness in workflow.output_settings.quiet or ()} & {"rules", "all"}:
        return
    for job in workflow.dag.jobs:
        if not workflow.dag.needrun(job) or workflow.dag.finished(job):
            continue
        for log in map(Path, job.log):
            is_new = log.is_file() and log.stat().st_mtime >= _STARTED_S
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if is_new else ():
                if line.startswith("edpipe: "):
                    print(f"{line}  ({log})", file=sys.stderr)


def hand_over_to_dvc(workflow: Any) -> None:
    """Steps that this run finished become known to DVC; a failure to do so is told, but the run has still succeeded."""
    if not dvcsync.is_enabled(workflow):
        return
    try:
        dvcsync.record(workflow.dag)
    except EdpipeError as error:
        print(f"edpipe: {error}", file=sys.stderr)


def gpus_per_job() -> int:
    """1 where this machine has an NVIDIA GPU that may be used, else 0."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or os.environ.get("EDPIPE_DEVICE") == "cpu":
        return 0
    return int(GPU_FOLDER.is_dir() and any(GPU_FOLDER.iterdir()))


def processes_per_training() -> int:
    """EDPIPE_PROCESSES, else 1; ends the process with one line if it is no such number."""
    try:
        return num_processes()
    except EdpipeError as error:
        _end(error)


def _end(error: EdpipeError) -> NoReturn:
    for line in str(error).splitlines():
        print(f"edpipe: {line}", file=sys.stderr)
    sys.stderr.flush()
    raise SystemExit(2)
