"""`edpipe tracked_jobs`: the lists of jobs that dvc.yaml reads, from what params.yaml lists as tracked."""

from argparse import ArgumentParser

from edpipe.params.load import load_params
from edpipe.pipeline.dvc.lists import check_tracked_jobs, write_tracked_jobs
from edpipe.pipeline.jobs.model_checks import check_params


def add_tracked_jobs(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("--check", action="store_true", help="only say whether the file fits params.yaml")
    command.set_defaults(run=tracked_jobs)


def tracked_jobs(check: bool) -> None:
    """Writes workflow/tracked_jobs.yaml and the end of .dvcignore, or checks them.

    Raises:
        ParamsError: params.yaml is wrong, or the file does not fit it.
    """
    params = load_params()
    check_params(params)
    if check:
        check_tracked_jobs(params)
    else:
        write_tracked_jobs(params)
