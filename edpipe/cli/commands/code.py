"""`edpipe code`: the digest of each step's code, which dvc.yaml takes as a parameter."""

from argparse import ArgumentParser

from edpipe.params.load import load_params
from edpipe.pipeline.dvc.code_file import check_code, write_code


def add_code(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("--check", action="store_true", help="only say whether the file fits the source files")
    command.set_defaults(run=code)


def code(check: bool) -> None:
    """Writes workflow/code.yaml, or checks it.

    Raises:
        ParamsError: this is no project folder, or params.yaml is wrong.
        MismatchError: the file does not fit the source files.
    """
    load_params()
    if check:
        check_code()
    else:
        write_code()
