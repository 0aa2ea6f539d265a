"""What the Snakefile calls: loading, checks before the first job, and the exchange with DVC."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

from edpipe.errors import EdpipeError, ParamsError
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.pipeline.dvc import reconcile, record, repo
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.project.note import line_about_age
from edpipe.pipeline.snakemake import stored
from edpipe.pipeline.snakemake.terminal import facts
from edpipe.pipeline.snakemake.terminal.handler import let_log_catch_up
from edpipe.pipeline.state.checked_networks import check_once
from edpipe.pipeline.state.judgement import all_jobs
from edpipe.pipeline.state.running import announce_run, knobs_digest_at_start
from edpipe.pipeline.state.running import knobs_digest as present_knobs_digest
from edpipe.runtime.loggers import chosen_logger
from edpipe.runtime.threads import num_nodes, num_processes
from edpipe.storage.job import Job

RUN = "EDPIPE_RUN"
"""On a cluster: tells the jobs which call of Snakemake they are of."""
_STARTED_S = time.time()
"""Logs that are older are of an earlier run."""
GPU_FOLDER = Path("/proc/driver/nvidia/gpus")


def load(workflow: Any, config: dict[str, Any]) -> Params:
    """The checked params; before that, what the artifacts' own records say is made known to Snakemake.

    Ends the process with one line if params.yaml is wrong, if values were given on the command line, or if DVC is busy.
    """
    try:
        if config:
            raise ParamsError(
                f"--config {' '.join(map(str, config))}: edit params.yaml instead; DVC and the steps would not see this"
            )
        params = load_params()
        if repo.is_main(workflow):
            for line in filter(None, (line_about_age(), repo.why_left_out())):
                _say(f"edpipe: {line}")
        _make_known(workflow, params)
        return params
    except EdpipeError as error:
        _end(error)


def _make_known(workflow: Any, params: Params) -> None:
    """Links to local copies where artifacts lie in a store; what their records say is made known to Snakemake."""
    store = stored.store_of(workflow)
    stored.link_copies(store)
    if store is not None:
        stored.leave_dvc_out(store)
    if not repo.is_main(workflow):
        return
    if store is not None:
        stored.judge_stored(store, params)
    else:
        is_dry_run = bool(workflow.output_settings.dryrun)
        reconcile.reconcile(params, is_dry_run, has_dvc=repo.is_set_up())


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


def knobs_digest(job: Job, is_main: bool) -> str:
    """Digest of the job's knobs when the run began: a cluster's jobs read params.yaml again, each when it starts."""
    return present_knobs_digest(job) if is_main else knobs_digest_at_start(job)


def check_before_first_job(workflow: Any) -> None:
    """Networks of the experiments that are about to run; then other processes are told that this one is at work.

    Ends the process with one line if one does not fit, or if DVC is at work.
    """
    experiments = {str(name) for job in workflow.dag.jobs if (name := job.wildcards_dict.get("experiment"))}
    try:
        params = load_params()
        chosen_logger(params.logger)
        check_once(params, sorted(experiments))
        wanted = {_plain_path(workflow, str(path)) for job in workflow.dag.needrun_jobs() for path in job.output}
        announce_run(job for job in all_jobs(params) if not wanted.isdisjoint(map(str, job.outputs)))
        if repo.is_enabled(workflow):
            repo.hold_outputs()
    except EdpipeError as error:
        _end(error)


def _plain_path(workflow: Any, path: str) -> str:
    store = stored.store_of(workflow)
    return path if store is None else store.plain_path(path)


def tell_view(workflow: Any) -> None:
    """What Snakemake's log does not say of this run, and its view (the logger plugin edpipe) shows."""
    facts.tell_view(workflow)


def pass_sigterm_on() -> None:
    """SIGTERM to Snakemake ends its running jobs after a checkpoint, as Ctrl-C does; it would let them run on."""
    begin_to_end = signal.getsignal(signal.SIGTERM)  # Snakemake's own: no more jobs are started

    def end(number: int, frame: FrameType | None) -> None:
        if callable(begin_to_end):
            begin_to_end(number, frame)
        for job in _running_jobs():
            with suppress(psutil.Error):
                job.send_signal(number)
        _cancel_submitted_jobs()

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
                    _say(f"{line}  ({log})")


def hand_over_to_dvc(workflow: Any) -> None:
    """Steps that this run finished become known to DVC; a failure to do so is told, but the run has still succeeded."""
    if not repo.is_enabled(workflow):
        return
    repo.let_go()
    try:
        record.record()
    except EdpipeError as error:
        _say(f"edpipe: {error}")


def draw_index() -> None:
    """The page of all results, where one was made since; a failure is told, but the run has still succeeded."""
    index = paths.RESULTS / "index.html"
    shown = [path for end in ("html", "json") for path in paths.RESULTS.glob(f"*.{end}") if path != index]
    made_ns = index.stat().st_mtime_ns if index.exists() else 0
    if all(path.stat().st_mtime_ns <= made_ns for path in shown):
        return
    from edpipe.results.page.index import write_index  # here, since it imports pydantic's models of results

    try:
        write_index(paths.RESULTS)
    except (EdpipeError, OSError, ValueError) as error:
        _say(f"edpipe: {index}: not drawn: {error}")


def gpus_per_job(workflow: Any) -> int:
    """How many GPUs a job asks for: 1 where this machine has one that may be used, and on a cluster; else 0."""
    if is_on_cluster(workflow):
        return int(os.environ.get("EDPIPE_DEVICE") != "cpu")
    return min(num_gpus(), 1)


def is_on_cluster(workflow: Any) -> bool:
    """Whether jobs are submitted; in a dry run, which knows no executor, whether it is said how many at once."""
    return not workflow.local_exec or bool(workflow.dryrun and workflow.resource_settings.nodes)


def share_resources(workflow: Any) -> None:
    """Here: as many GPUs as there are are shared, unless the command line says how many. On a cluster: all are its own.

    A job there may use all cores that its node gives it, not as many as the submit host has.
    """
    if not workflow.local_exec:
        workflow.resource_settings.cores = sys.maxsize
        os.environ[RUN] = f"{socket.gethostname()}-{os.getpid()}-{_STARTED_S:.0f}"
        atexit.register(_cancel_submitted_jobs)
    elif "gpu" not in workflow.global_resources and (count := num_gpus()):
        workflow.scheduler.global_resources["gpu"] = workflow.scheduler.resources["gpu"] = count


def _cancel_submitted_jobs() -> None:
    """Those of this run that are not over: Snakemake ends before them after Ctrl-C."""
    run = os.environ.get(RUN, "")
    if f"-{os.getpid()}-" not in run:  # a job on a node has the variable of the call that submitted it
        return
    from edpipe.pipeline.cluster.cancelling import cancel_run  # here: only clusters need it

    try:
        cancel_run(run)
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"edpipe: jobs of the cluster could not be cancelled: {error}; `edpipe cluster` lists them")


def num_gpus() -> int:
    """NVIDIA GPUs of this machine that may be used."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or os.environ.get("EDPIPE_DEVICE") == "cpu" or not GPU_FOLDER.is_dir():
        return 0
    count = len(list(GPU_FOLDER.iterdir()))
    return min(count, len(visible.split(","))) if visible else count


def processes_per_training() -> int:
    """EDPIPE_PROCESSES, else 1; ends the process with one line if it is no such number."""
    return _number_or_end(num_processes)


def nodes_per_training() -> int:
    """EDPIPE_NODES, else 1; ends the process with one line if it is no such number."""
    return _number_or_end(num_nodes)


def _number_or_end(read: Callable[[], int]) -> int:
    try:
        return read()
    except EdpipeError as error:
        _end(error)


def _say(line: str) -> None:
    """One line, after all that Snakemake has said before."""
    let_log_catch_up()
    print(line, file=sys.stderr)


def _end(error: EdpipeError) -> NoReturn:
    for line in str(error).splitlines():
        _say(f"edpipe: {line}")
    sys.stderr.flush()
    raise SystemExit(2)
