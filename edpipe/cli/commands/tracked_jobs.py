"""`edpipe tracked_jobs`: the lists of jobs that dvc.yaml reads, from what params.yaml lists as tracked."""

from argparse import ArgumentParser

from edpipe.params.load import load_params
from edpipe.pipeline.dvc.knob_files import write_knob_files
from edpipe.pipeline.dvc.lists import check_tracked_jobs, write_tracked_jobs
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.jobs.model_checks import check_params


def add_tracked_jobs(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("--check", action="store_true", help="only say whether the lists fit params.yaml")
    command.add_argument("--knobs", action="store_true", help="as --check; where they fit, write workflow/knobs")
    command.set_defaults(run=tracked_jobs)


def tracked_jobs(check: bool, knobs: bool) -> None:
    """Writes workflow/tracked_jobs.yaml, workflow/knobs and the end of .dvcignore, or checks the lists.

    Raises:
        ParamsError: params.yaml is wrong, or the lists do not fit it.
    """
    params = load_params()
    check_params(params)
    if check or knobs:
        check_tracked_jobs(params)
    if knobs:
        write_knob_files(jobs_of(params, params.tracked))
    elif not check:
        write_tracked_jobs(params)
