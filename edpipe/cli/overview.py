"""Which commands there are beside the steps, by purpose, and what `edpipe` and `edpipe --help` print."""

import argparse
from collections.abc import Iterator, Mapping
from importlib import import_module

from edpipe.errors import UsageError, nearest

GROUPS: dict[str, dict[str, str]] = {
    "run and look": {
        "plan": "what snakemake would run, why, and what it takes; or what storing soft labels costs",
        "explain": "what one artifact was made from, by which code, when, and what hangs on it",
        "verify": "check all artifacts against params.yaml and the code, or stored logits against the teacher",
        "adopt": "take over artifacts that other code made, if evidence shows that they fit",
        "index": "draw results/index.html, the page of all results",
        "compare": "a table of results, and the paired difference of each to a base",
        "partition": "the classes and images of each subset",
        "cache": "what is stored, who uses it, what it saved; delete what nobody needs",
        "cluster": "the jobs that were submitted to a cluster: where, how long, and how each ended",
        "doctor": "check this machine and this folder: versions, devices, disk, DVC, and what to mend",
        "zoo": "networks: parameters, MACs, feature stages",
    },
    "use a student": {
        "export": "write a finished student to a folder: weights, classes, model card",
        "predict": "name the classes of images",
        "evaluate_model": "measure a student or an exported folder on a packed data set",
    },
    "share": {
        "dvc-record": "record in DVC the artifacts that were made without it",
        "tracked_jobs": "write the lists of jobs that dvc.yaml reads",
        "code": "versions of the code: list what was edited; confirm that an edit changes no result",
    },
    "set up": {
        "init": "make a project folder: params.yaml, workflow/, dvc.yaml; --git, --dvc",
        "upgrade": "renew a project's workflow files after an upgrade of edpipe",
        "add": "add experiments or studies from the examples to params.yaml",
        "new": "add a folder of your own images to params.yaml, sized to them and this machine",
        "new-method": "write a file with a loss of your own, its test, and an experiment",
        "check": "check params.yaml",
        "schema": "print the JSON schema of params.yaml, for editors",
        "knobs": "print every knob of params.yaml, for docs/params.md",
    },
}
"""Command → help text; `edpipe/cli/commands/<command>.py` has its `add_<command>`, with underscores for hyphens."""
FIRST_STEPS = """\
edpipe: Education Distillation as a pipeline of cached stages. To begin:

  edpipe init my_project                       a project folder with ED, KD and CE on handwritten digits
  edpipe check                                 check params.yaml
  edpipe plan digits_ed                        what would run, and why
  snakemake --cores 2 results/digits_ed.html   make a result and its page
  edpipe export digits_ed                      the student, in a folder that others can use
  edpipe --help                                all commands
"""


def command_names() -> tuple[str, ...]:
    """The commands of all groups."""
    return tuple(name for commands in GROUPS.values() for name in commands)


def help_of(name: str) -> str:
    """The line of help of a command that is no step.

    Raises:
        KeyError: there is none of this name.
    """
    return {name: text for commands in GROUPS.values() for name, text in commands.items()}[name]


def add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    """Gives the parser the arguments of one command, whose module alone is imported."""
    module = name.replace("-", "_")
    getattr(import_module(f"edpipe.cli.commands.{module}"), f"add_{module}")(parser)


def help_lines(steps: Mapping[str, str]) -> Iterator[str]:
    """What `edpipe --help` prints: every command on a line, in groups.

    Args:
        steps: help text of each step.
    """
    yield "usage: edpipe COMMAND ...    (edpipe COMMAND --help describes one)"
    width = max(map(len, (*steps, *command_names())))
    for title, commands in (GROUPS | {"steps, as Snakemake and DVC call them": steps}).items():
        yield f"\n{title}"
        yield from (f"  {name:<{width}}  {text}" for name, text in commands.items())
    yield "\noptions"
    yield f"  {'--version':<{width}}  print the version"
    yield f"  {'--help':<{width}}  print this text"


def refuse_command(name: str, steps: Mapping[str, str]) -> UsageError:
    """The error for a command that does not exist."""
    kind = "option" if name.startswith("-") else "command"
    known = ("--help", "--version") if kind == "option" else (*command_names(), *steps)
    hint = nearest(name, known)
    return UsageError(f"unknown {kind} '{name}'{hint if 'mean' in hint else '; `edpipe --help` lists all'}")
