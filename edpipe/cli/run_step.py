"""A step as a command: finds the job that the options name, runs its module, and records what that took."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

from edpipe.errors import EdpipeError
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.pipeline.jobs import paths, step_table
from edpipe.pipeline.jobs.graph import jobs_of_result, jobs_of_searches
from edpipe.pipeline.jobs.resources import threads_of
from edpipe.pipeline.jobs.step_table import Artifact, Step
from edpipe.pipeline.state.artifact_lock import only_maker
from edpipe.pipeline.state.cost_ledger import costs_recorded, parts_of
from edpipe.pipeline.state.running import refuse_beside_snakemake, refuse_edited_knobs, refuse_other_knobs
from edpipe.runtime import bfloat16
from edpipe.runtime.loggers import chosen_logger
from edpipe.runtime.progress import announce
from edpipe.runtime.threads import by_default, is_main_process, is_started_by_torchrun
from edpipe.runtime.torchrun import end_with_launcher, is_to_be_shared, run_together
from edpipe.storage.job import Job
from edpipe.storage.records import made_by
from edpipe.training.curves.curve_file import Row, read_curve
from edpipe.training.curves.settings import CurveSettings, watched


def command_of(step: Step) -> Callable[..., None]:
    """The command of a step; its options are keyword arguments.

    It raises EdpipeError where params.yaml leaves the job to another step, and whatever the step raises.
    """

    def command(**options: str | int) -> None:
        params = load_params()
        job = step.make(params, **options)
        _check_step(step, job)
        _check_under_dvc(params, job)
        refuse_other_knobs(job)
        with by_default(threads_of(params, job) if step.needs_network else None):
            if step.trains and is_to_be_shared():
                run_together(job.command.split()[1:])
                return
            if is_started_by_torchrun():
                end_with_launcher()
            _warn_of_precision(job)
            with _alone(job), costs_recorded(job), made_by(job.units), _watched(params, job):
                import_module(f"edpipe.steps.{step.name}").run(job, **_also_given(step, params, job))
        if is_under_dvc():
            refuse_edited_knobs(job, step.make(load_params(), **options))

    return command


def _alone(job: Job) -> AbstractContextManager[None]:
    """Raises:
    BusyError: another process makes the same, on this host or another.
    """
    return only_maker(job.outputs[0]) if is_main_process() else nullcontext()


def _warn_of_precision(job: Job) -> None:
    """One line where the recipe of a training asks for what this machine is slow in."""
    recipe = getattr(job.knobs, "recipe", None)
    if getattr(recipe, "precision", None) == "bfloat16" and bfloat16.is_slow_here():
        announce(f"warning: bfloat16: {bfloat16.SLOW}; {bfloat16.REMEDY}")


def _watched(params: Params, job: Job) -> AbstractContextManager[None]:
    """Raises:
    EdpipeError: the logger is unknown or not installed.
    """
    logger = chosen_logger(params.logger)
    if not job.outputs[0].is_relative_to(paths.ARTIFACTS):
        return nullcontext()
    path, knobs = paths.training_curve_path(job.outputs[0]), params.curves
    return watched(CurveSettings(path, knobs.points, knobs.validation_images, logger))


def is_under_dvc() -> bool:
    """Whether DVC runs this process as a step; it names its stage in the environment."""
    return "DVC_STAGE" in os.environ


def _check_under_dvc(params: Params, job: Job) -> None:
    """Under DVC: that what it knows of the job fits params.yaml, and that no Snakemake is at work here."""
    if is_under_dvc():
        from edpipe.pipeline.dvc.lists import check_when_under_dvc

        refuse_beside_snakemake()
        check_when_under_dvc(params, job)


def _check_step(step: Step, job: Job) -> None:
    if job.step != step.name:
        what = step.chosen_by.format(**job.arguments)
        raise EdpipeError(f"{what} is made by `edpipe {job.step}`, not {step.name}")


def _also_given(step: Step, params: Params, job: Job) -> dict[str, Any]:
    """What a step is given besides its job: costs of what was made for a result or a search, curves for a page."""
    if step.artifact is Artifact.SEARCH:
        stages = [other for other in jobs_of_searches(params, [str(job.arguments["search"])]) if _is_input(other, job)]
        return {"costs": dict(zip([stage.outputs[0] for stage in stages], parts_of(stages), strict=True))}
    if step.artifact is Artifact.PAGE:
        return {"curves": curves_of(params, str(job.arguments["experiment"]))}
    if step.artifact is not Artifact.RESULT:
        return {}
    experiment = str(job.arguments["experiment"])
    # Each once: a job of several stages would be counted as often.
    everything = {other.outputs[0]: other for other in jobs_of_result(params, experiment)}
    before = [other for other in everything.values() if other.step != "result"]
    return {"costs": parts_of(before, experiment)}


def curves_of(params: Params, experiment: str) -> dict[tuple[int, str], list[Row]]:
    """The curves of an experiment's students, by seed and stage; of those that are not at hand no rows."""
    everything = jobs_of_result(params, experiment)
    stages = [job for job in everything if job.step == "run_stage" and job.arguments["experiment"] == experiment]
    return {
        (int(job.arguments["seed"]), str(job.arguments["stage"])): read_curve(paths.training_curve_path(job.outputs[0]))
        for job in stages
    }


def _is_input(other: Job, job: Job) -> bool:
    """Whether the other job makes a student that the job measures."""
    return other.step == "run_stage" and other.outputs[0] in job.inputs["students"]


STEP_COMMANDS = {step.name: (command_of(step), step.options, step.purpose) for step in step_table.STEPS}
"""For each step its command, its options, and what it does."""
