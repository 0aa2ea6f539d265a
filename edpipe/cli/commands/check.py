"""`edpipe check`: everything that params.yaml alone decides, networks included."""

from argparse import ArgumentParser

from edpipe.errors import printable
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.params.text.dvc_form import broken_by_dvc
from edpipe.params.yaml_file import PARAMS_PATH
from edpipe.pipeline.state.checked_networks import check_once


def add_check(command: ArgumentParser) -> None:
    """It has no arguments."""
    command.set_defaults(run=check)


def check() -> None:
    """Prints how many experiments and trials there are, and what DVC would break; builds networks that are new to it.

    Raises:
        ParamsError: one line for each thing that is wrong.
    """
    params = load_params()
    check_once(params, tuple(params.with_trials.experiments))
    print(f"params.yaml: {len(params.experiments)} experiments{_searches(params)}, nothing wrong found")
    broken = broken_by_dvc(PARAMS_PATH.read_text(encoding="utf-8"))
    if broken:
        line, value = broken
        print(
            f"params.yaml: line {line}: `dvc exp run --set-param` would write {printable(value)!r} without quotes, and "
            "then the file cannot be read; write this entry on lines of its own, without braces"
        )


def _searches(params: Params) -> str:
    if not params.searches:
        return ""
    trials = sum(map(len, params.trials.values()))
    return f", {len(params.searches)} search{'es' * (len(params.searches) != 1)} with {trials} trials"
