"""Cancels submitted jobs when Snakemake ends before them."""

from collections.abc import Sequence
from dataclasses import replace

from edpipe.pipeline.cluster.schedulers import scheduler_of
from edpipe.pipeline.cluster.settings import ClusterSettings
from edpipe.pipeline.cluster.submitted_job import SubmittedJob, all_jobs, read_job


def cancel_run(run: str) -> None:
    """Cancels the jobs of one call of Snakemake that are not over.

    Snakemake has a command for that, but gives it two seconds, in which a busy host may not even start Python.
    """
    cancel([job.request.name for job in all_jobs() if job.environment.get("EDPIPE_RUN") == run and _is_open(job)])


def _is_open(job: SubmittedJob) -> bool:
    return not job.tries[-1].fate and job.end() is None


def cancel(names: Sequence[str]) -> None:
    """Cancels the jobs of these names; each writes a checkpoint before it ends.

    Raises:
        subprocess.SubprocessError: the scheduler refuses, or does not answer.
    """
    found = [job for name in names if (job := read_job(name)) is not None and job.tries]
    for job in found:
        replace(job, is_cancelled=True).write()
    by_settings: dict[str, list[SubmittedJob]] = {}
    for job in found:
        by_settings.setdefault(repr(job.settings), []).append(job)
    for jobs in by_settings.values():
        scheduler = scheduler_of(ClusterSettings.model_validate(jobs[0].settings))
        scheduler.cancel([job.tries[-1].id for job in jobs])
