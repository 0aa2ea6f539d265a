"""`edpipe check`: everything that params.yaml alone decides, networks included."""

from argparse import ArgumentParser

from edpipe.params.load import load_params
from edpipe.pipeline.jobs.model_checks import check_params


def add_check(command: ArgumentParser) -> None:
    """It has no arguments."""
    command.set_defaults(run=check)


def check() -> None:
    """Prints how many experiments there are; builds the networks that they name.

    Raises:
        ParamsError: one line for each thing that is wrong.
    """
    params = load_params()
    check_params(params)
    print(f"params.yaml: {len(params.experiments)} experiments, nothing wrong found")
