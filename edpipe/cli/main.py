"""The command line: `edpipe STEP …` runs one step of the pipeline; the other commands help people.

Steps import torch only when they run, and a command is imported only when it is named, so that a wrong word costs no
waiting.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from edpipe import __version__
from edpipe.cli.arguments import CommandParser
from edpipe.cli.overview import FIRST_STEPS, add_arguments, command_names, help_lines, help_of, refuse_command
from edpipe.cli.run_step import STEP_COMMANDS
from edpipe.errors import EXIT_LATER, EXIT_MENDABLE, BusyError, EdpipeError, LostProcessError
from edpipe.runtime.memory_errors import line_about_memory
from edpipe.runtime.os_errors import is_outside, line_of
from edpipe.runtime.signals import Interrupted, interruptible
from edpipe.runtime.terminal import escaped_output
from edpipe.runtime.threads import is_alone_on_node, is_main_process, is_started_by_torchrun

LATER = (BusyError, LostProcessError)
"""Errors after which the same command may succeed without anybody's doing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. What a user can mend is one line on standard error.

    2 is a mistake that the user can mend, 75 says that the same command may succeed later, 1 is a bug's, 130 and 143
    are those of Ctrl-C and SIGTERM.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    with escaped_output():
        return _exit_code(words)


def _exit_code(words: Sequence[str]) -> int:
    try:
        with interruptible():
            _run(words)
    except EdpipeError as error:
        for line in () if _is_told_elsewhere(error) else str(error).splitlines():
            print(f"edpipe: {line}", file=sys.stderr)
        return EXIT_LATER if isinstance(error, LATER) else EXIT_MENDABLE
    except BrokenPipeError:
        return 0
    except OSError as error:
        if not is_outside(error):
            raise
        print(f"edpipe: {line_of(error)}", file=sys.stderr)
        return EXIT_MENDABLE
    except (MemoryError, RuntimeError) as error:
        line = line_about_memory(error)
        if line is None:
            raise
        print(f"edpipe: {line}", file=sys.stderr)
        return EXIT_MENDABLE
    except Interrupted as interruption:
        if not is_started_by_torchrun():  # whoever started them says it once
            print("edpipe: interrupted; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return interruption.exit_code
    return 0


def _is_told_elsewhere(error: EdpipeError) -> bool:
    """Whether another process says this: of several that train together all fail alike, but for the loss of one.

    That is told by whoever started them, if it started all of them.
    """
    if isinstance(error, LostProcessError):
        return is_started_by_torchrun() and is_alone_on_node()
    return not is_main_process()


def _run(words: Sequence[str]) -> None:
    """Does what the words of a command line say.

    Raises:
        EdpipeError: they are wrong, or the command fails in a way that the user can mend.
    """
    if not words:
        print(FIRST_STEPS, end="")
    elif words[0] in ("-h", "--help"):
        print("\n".join(help_lines(_step_texts())))
    elif words[0] == "--version":
        print(f"edpipe {__version__}")
    else:
        options = vars(_parser_of(words[0]).parse_args(words[1:]))
        run: Callable[..., None] = options.pop("run")
        run(**options)


def _step_texts() -> dict[str, str]:
    return {name: text for name, (_, _, text) in STEP_COMMANDS.items()}


def _parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of one command.

    Raises:
        UsageError: there is none of this name.
    """
    if name in STEP_COMMANDS:
        run, options, text = STEP_COMMANDS[name]
        parser = CommandParser(prog=f"edpipe {name}", description=text)
        parser.set_defaults(run=run)
        for option in options:
            parser.add_argument(f"--{option}", required=True, type=int if option == "seed" else str)
    elif name in command_names():
        parser = CommandParser(prog=f"edpipe {name}", description=help_of(name))
        add_arguments(name, parser)
    else:
        raise refuse_command(name, _step_texts())
    return parser


if __name__ == "__main__":
    sys.exit(main())
