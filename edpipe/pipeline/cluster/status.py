"""Says of a submitted job whether it runs, succeeded or failed; what another try helps is submitted again."""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edpipe.errors import EdpipeError
from edpipe.pipeline.cluster.fates import HELPED_BY_RETRY, REMEDIES, Fate, SchedulerState, fate_of
from edpipe.pipeline.cluster.schedulers import Scheduler, scheduler_of
from edpipe.pipeline.cluster.settings import ClusterSettings
from edpipe.pipeline.cluster.states import state_of
from edpipe.pipeline.cluster.submission import try_again
from edpipe.pipeline.cluster.submitted_job import FOLDER, End, SubmittedJob, note_fate, read_job

RUNNING, SUCCESS, FAILED = "running", "success", "failed"
"""The words that Snakemake understands."""
GRACE_S = 60.0
"""A job that has ended is given as long until its last file is seen here: file systems of networks lag."""


def status(name: str) -> str:
    """`running`, `success` or `failed`."""
    job = read_job(name)
    if job is None or not job.tries:
        return FAILED
    end = job.end()
    if end is not None and end.code == 0:
        return _over(job, Fate.DONE, "", end, SUCCESS)
    settings = ClusterSettings.model_validate(job.settings)
    scheduler = scheduler_of(settings)
    state = state_of(scheduler, job.tries[-1].id, FOLDER / "states.json", settings.scheduler == "commands")
    if state is None or state.is_alive or (end is None and _may_still_tell(job, state)):
        return RUNNING
    fate = fate_of(end.code if end else None, end.step_codes if end else (), state)
    has_more = len(job.tries) <= settings.retries and not job.is_cancelled
    if fate in HELPED_BY_RETRY and has_more and _tried_again(job, scheduler, fate, state, end):
        return RUNNING
    return _over(job, fate, state.word, end, FAILED)


def _may_still_tell(job: SubmittedJob, state: SchedulerState) -> bool:
    """Whether a job that the scheduler no longer runs may have ended so shortly ago that its word is not seen yet."""
    if state.fate is not None and state.fate is not Fate.FAILED:
        return False
    seen = job.folder / "seen_ended"
    with suppress(FileExistsError):
        seen.touch(exist_ok=False)
    return time.time() - seen.stat().st_mtime < GRACE_S


def _tried_again(job: SubmittedJob, scheduler: Scheduler, fate: Fate, state: SchedulerState, end: End | None) -> bool:
    noted = _noted(job, fate, state.word, end)
    try:
        (job.folder / "seen_ended").unlink(missing_ok=True)
        try_again(noted, scheduler)
    except EdpipeError as error:
        _tell_logs(job, str(error))
        return False
    return True


def _over(job: SubmittedJob, fate: Fate, word: str, end: End | None, answer: str) -> str:
    """Notes the end, and tells the logs of the steps why, for Snakemake and people read those."""
    noted = _noted(job, fate, word, end)
    noted.write()
    if answer == FAILED:
        _tell_logs(noted, line_of(noted))
    return answer


def _noted(job: SubmittedJob, fate: Fate, word: str, end: End | None) -> SubmittedJob:
    return replace(job, tries=(*job.tries[:-1], note_fate(job.tries[-1], fate, word, end)))


def line_of(job: SubmittedJob) -> str:
    """How a job that failed ended, and what to do."""
    last, tries = job.tries[-1], len(job.tries)
    fate = Fate(last.fate)
    where = f" on {last.node}" if last.node else ""
    word = f" ({last.word})" if last.word else ""
    count = "" if tries == 1 else f", the last of {tries} tries"
    end, said = job.end(), f"see {job.output(tries)}"
    is_told = end is not None and bool(end.step_codes)  # else the step has not begun, or was killed
    remedy = REMEDIES.get(fate, said).format(step=job.request.step) if is_told or fate is not Fate.FAILED else said
    return f"{job.request.name}: job {last.id} of the cluster{where}{count}: {fate.value}{word}; {remedy}"


def _tell_logs(job: SubmittedJob, line: str) -> None:
    for log in map(Path, job.request.logs):
        with suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"edpipe: {line}\n")
