"""Submits a job of Snakemake, or takes over the same one that an earlier Snakemake has left running."""

import os
import shlex
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from edpipe.pipeline.cluster.request import read_request
from edpipe.pipeline.cluster.schedulers import Scheduler, scheduler_of
from edpipe.pipeline.cluster.settings import load_settings
from edpipe.pipeline.cluster.submitted_job import FOLDER, SubmittedJob, Try, read_job
from edpipe.runtime.fork_protocol import SERVER
from edpipe.storage.atomic import write_text_atomically

LONGEST_END_S = 90.0
"""A job that was cancelled writes a checkpoint; Slurm gives it 30 seconds, by default."""
PAUSE_S = 1.0
NOT_PASSED_ON = (SERVER, "EDPIPE_KNOBS")
RUNNING = ("RUNNING", "COMPLETING", "")
"""Words of jobs that have begun; a scheduler that says nothing leaves it open."""


def submit(settings_path: Path, jobscript: Path) -> str:
    """Submits what Snakemake has written; gives the name by which Snakemake asks after it.

    Raises:
        EdpipeError: the settings are wrong, or the scheduler refuses the job.
    """
    settings = load_settings(settings_path)
    request = read_request(jobscript, settings)
    scheduler = scheduler_of(settings)
    before = read_job(request.name)
    passed_on = {name: text for name, text in os.environ.items() if name.startswith("EDPIPE_")}
    environment = {name: text for name, text in passed_on.items() if name not in NOT_PASSED_ON}
    if before is not None and before.tries and _goes_on(before, request.identity, scheduler):
        replace(before, environment=environment).write()
        write_text_atomically(before.jobscript, jobscript.read_text(encoding="utf-8"))  # for its next try
        return request.name
    shutil.rmtree(FOLDER / request.name, ignore_errors=True)
    job = SubmittedJob(request, settings.model_dump(mode="json"), environment)
    job.write()
    shutil.copyfile(jobscript, job.jobscript)
    write_text_atomically(job.script, script_of(job))
    try_again(job, scheduler)
    return request.name


def try_again(job: SubmittedJob, scheduler: Scheduler) -> None:
    """Submits a job that is in its folder; for the first time or once more.

    Raises:
        EdpipeError: the scheduler refuses it.
    """
    job.forget_end()
    number = scheduler.submit(job.request, job.script.absolute(), job.output(len(job.tries) + 1))
    replace(job, tries=(*job.tries, Try(number, time.time()))).write()


def script_of(job: SubmittedJob) -> str:
    """What the scheduler runs on the node."""
    words = [sys.executable, "-P", "-m", "edpipe.pipeline.cluster.node", str(job.folder.absolute())]
    return f"#!/bin/sh\ncd {shlex.quote(str(Path.cwd()))} || exit 1\nexec {shlex.join(words)}\n"


def _goes_on(before: SubmittedJob, identity: str, scheduler: Scheduler) -> bool:
    """Whether a job of an earlier run is at work on the same; one that works on something else is ended first."""
    number = before.tries[-1].id
    state = (scheduler.states([number]) or {}).get(number)
    if state is None or not state.is_alive or before.end() is not None:
        return False
    has_begun = state.word in RUNNING
    if has_begun and before.request.identity == identity and not before.is_cancelled:
        return True
    scheduler.cancel([number])
    until_s = time.monotonic() + LONGEST_END_S
    while time.monotonic() < until_s:
        state = (scheduler.states([number]) or {}).get(number)
        if state is None or not state.is_alive:
            break
        time.sleep(PAUSE_S)
    return False
