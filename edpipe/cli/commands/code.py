"""`edpipe code`: the digest of each step's code, which dvc.yaml takes as a parameter."""

from argparse import ArgumentParser

from edpipe.pipeline.dvc.code_file import check_code, write_code


def add_code(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("--check", action="store_true", help="only say whether the file fits the source files")
    command.set_defaults(run=code)


def code(check: bool) -> None:
    """Writes workflow/code.yaml, or checks it.

    Raises:
        MismatchError: the file does not fit the source files.
    """
    if check:
        check_code()
    else:
        write_code()
