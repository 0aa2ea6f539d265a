"""The command line: `edpipe STEP …` runs one step of the pipeline; the other commands help people.

Steps import torch only when they run, so that a wrong word costs no waiting.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from edpipe import __version__
from edpipe.cli.arguments import TOOLS
from edpipe.cli.run_step import STEPS
from edpipe.errors import EdpipeError, LostProcessError
from edpipe.runtime.signals import Interrupted, interruptible
from edpipe.runtime.threads import is_main_process, is_started_by_torchrun

EXIT_MENDABLE = 2
"""A mistake that the user can mend; a bug ends with Python's 1, Ctrl-C with 130, SIGTERM with 143."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. What a user can mend is one line on standard error."""
    options = vars(_parser().parse_args(arguments))
    run: Callable[..., None] = options.pop("run")
    try:
        with interruptible():
            run(**options)
    except EdpipeError as error:
        # Of several processes that train together, all fail alike, but for the loss of one of them.
        for line in str(error).splitlines() if is_main_process() or isinstance(error, LostProcessError) else ():
            print(f"edpipe: {line}", file=sys.stderr)
        return EXIT_MENDABLE
    except BrokenPipeError:
        return 0
    except Interrupted as interruption:
        if not is_started_by_torchrun():  # whoever started them says it once
            print("edpipe: interrupted; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return interruption.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edpipe", description="Education Distillation, as a pipeline of cached stages."
    )
    parser.add_argument("--version", action="version", version=f"edpipe {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (run, words, text) in STEPS.items():
        _add(commands, name, run, text, words)
    for name, (add, text) in TOOLS.items():
        add(commands.add_parser(name, help=text, description=text))
    return parser


def _add(commands: argparse._SubParsersAction, name: str, run: Callable, text: str, words: tuple[str, ...]) -> None:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    for word in words:
        command.add_argument(f"--{word}", required=True, type=int if word == "seed" else str)


if __name__ == "__main__":
    sys.exit(main())
