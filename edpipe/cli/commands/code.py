"""`edpipe code`: the versions of the code that artifacts hang on; `edpipe code confirm`: an edit changed no result."""

import tempfile
from argparse import REMAINDER, ArgumentParser
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from edpipe.errors import MismatchError, UsageError
from edpipe.params.load import load_params
from edpipe.params.plans.registered import REGISTRY
from edpipe.params.schema import Params
from edpipe.pipeline.confirmation.confirm import bump, confirm, named_units, reseal
from edpipe.pipeline.confirmation.history import History, changed_definitions, find_commit, open_history
from edpipe.pipeline.dvc.code_file import check_code, code_versions, write_code
from edpipe.pipeline.dvc.lists import write_tracked_jobs
from edpipe.pipeline.dvc.record import record_check
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.storage.code.versions import HERE, confirmed, is_edited
from edpipe.storage.job import Job

CONFIRM, BUMP = "confirm", "--bump"
MOST_SHOWN = 5
"""Definitions that are named for each unit."""


def add_code(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument(
        "words",
        nargs=REMAINDER,
        metavar="confirm [--bump] UNIT…",
        help="confirm: show that edits change no result, of these units or of all that were edited; --bump: give them "
        "a new version instead, since results change",
    )
    command.add_argument("--check", action="store_true", help="only say whether workflow/code.yaml fits the package")
    command.add_argument("--confirmed", action="store_true", help="only say whether all code is confirmed")
    command.add_argument("--merged", action="store_true", help="accept confirmed.yaml as a merge has left it")
    command.set_defaults(run=code)


def code(words: Sequence[str], check: bool, confirmed: bool, merged: bool) -> None:
    """Does what the words say; without any, writes workflow/code.yaml and lists what was edited.

    Raises:
        ParamsError: this is no project folder, params.yaml is wrong, or there is no such unit.
        UsageError: words that do not go together.
        MismatchError: the file does not fit, or an edit was not confirmed.
    """
    if list(words[:1]) not in ([], [CONFIRM]):
        raise UsageError(
            f"code: expected `edpipe code` or `edpipe code {CONFIRM} [--bump] [UNIT…]`, got '{' '.join(words)}'"
        )
    if merged:
        reseal()
    params = load_params()
    if words:
        _confirm(named_units([word for word in words[1:] if word != BUMP]), BUMP in words)
    if check:
        check_code()
    elif confirmed:
        _check_confirmed()
    else:
        write_code()
        write_tracked_jobs(params)
        record_check()
        _list(params)


def _confirm(units: Sequence[str], is_bump: bool) -> None:
    if is_bump:
        for unit, version in bump(units).items():
            print(f"{unit}: version {version}")
        return
    found = confirm(units, print)
    for unit, count in found.confirmed.items():
        print(f"{unit}: confirmed, {count} job{'s' * (count != 1)} of the probe gave the same bytes")
    write_code()
    if found.refused:
        raise MismatchError(*found.refused.values())


def _check_confirmed() -> None:
    edited = [unit for unit in code_versions() if is_edited(unit)]
    if edited:
        raise MismatchError(
            f"the code of {', '.join(edited)} was edited since its version was confirmed; "
            f"run `edpipe code {CONFIRM}`, or with --bump where results change"
        )


def _list(params: Params) -> None:
    """A line for each unit that was edited, or one for all."""
    edited = [unit for unit in code_versions() if is_edited(unit)]
    jobs = jobs_of(params, params.experiments)
    with tempfile.TemporaryDirectory(prefix="edpipe-code-") as folder:
        for unit in edited:
            version = confirmed()[unit].version if unit in confirmed() else 0
            print(f"{unit}: version {version}, edited: {_definitions(unit, folder)}; {_reruns(jobs, unit)}")
    count = len(code_versions()) - len(edited)
    print(f"{count} of {count + len(edited)} units of the code are confirmed")
    if edited:
        print(f"`edpipe code {CONFIRM}` shows that an edit changes no result; then nothing runs again for it")


def _definitions(unit: str, folder: str) -> str:
    """Which definitions mean something else than the confirmed ones, as far as git has those.

    Args:
        unit: that was edited.
        folder: for copies of the package at earlier commits.
    """
    entry = confirmed().get(unit)
    if unit in REGISTRY.places:
        return f"of the plugin {REGISTRY.places[unit][0]}, whose code has no versions"
    if entry is None:
        return "new"
    try:
        history = _history(folder)
        before = history.tree(find_commit(history, unit, entry.digest))
        found = list(changed_definitions(before, HERE, unit))
    except (MismatchError, KeyError):
        return "what was confirmed is not in git"
    more = f" and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    return ", ".join(found[:MOST_SHOWN]) + more


@cache
def _history(folder: str) -> History:
    return open_history(HERE.root, Path(folder))


def _reruns(jobs: Sequence[Job], unit: str) -> str:
    """How many jobs of params.yaml hang on a unit, by step."""
    counts = Counter(job.step for job in jobs if unit in job.units)
    listed = ", ".join(f"{count} {step}" for step, count in counts.items())
    return f"jobs that hang on it: {listed or 'none'}"
