"""`edpipe doctor`: what is installed, where it runs, and whether this folder is sound; with what to mend."""

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial

from rich.console import Console
from rich.text import Text

from edpipe.cli.doctor import machine, project, software
from edpipe.cli.doctor.findings import Check, Finding, Level, findings
from edpipe.errors import MismatchError, printable

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "red"}
_WIDTHS = max(map(len, Level)), len("torchvision")


def add_doctor(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("--remote", action="store_true", help="also ask DVC's remote whether it answers")
    command.add_argument("--json", action="store_true", dest="is_json", help="print the findings as JSON")
    command.set_defaults(run=doctor)


def checks(asks_remote: bool) -> list[tuple[str, Check]]:
    """All of them, each with the word of its lines."""
    return [
        ("python", software.check_python),
        ("packages", software.check_packages),
        ("view", software.check_plugin),
        ("device", machine.check_device),
        ("bfloat16", machine.check_bfloat16),
        ("threads", machine.check_threads),
        ("memory", machine.check_memory),
        ("disk", machine.check_disk),
        ("disk", machine.check_writing),
        ("params", project.check_params),
        ("code", project.check_code),
        ("runs", project.check_runs),
        ("git", project.check_git),
        ("dvc", partial(project.check_dvc, asks_remote)),
    ]


def doctor(remote: bool, is_json: bool) -> None:
    """Prints a line for each finding.

    Raises:
        MismatchError: there is a fault.
    """
    found = findings(checks(remote))
    if is_json:
        contents = {"format": "edpipe-doctor", "format_version": 1, "findings": [asdict(one) for one in found]}
        print(json.dumps(contents, indent=1, ensure_ascii=False))
    else:
        _print(found)
    faults = Counter(one.level for one in found)[Level.FAULT]
    if faults:
        raise MismatchError(f"{faults} fault{'s' if faults > 1 else ''}; mend what is said there, then call this again")


def _print(found: Iterable[Finding]) -> None:
    console = Console(highlight=False)
    for one in found:
        level = Text(f"{one.level:<{_WIDTHS[0]}}", STYLES[one.level])
        console.print(level, Text(printable(f" {one.what:<{_WIDTHS[1]}}  {line_of(one)}")), soft_wrap=True)


def line_of(one: Finding) -> str:
    """The finding and what to do, in one line."""
    return f"{one.text}; {one.remedy}" if one.remedy else one.text
