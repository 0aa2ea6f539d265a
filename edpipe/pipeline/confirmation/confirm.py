"""Confirms edited code: its jobs, run with the confirmed code and with the edited code, make the same bytes."""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edpipe.errors import MismatchError, ParamsError, nearest
from edpipe.pipeline.confirmation.comparison import first_difference
from edpipe.pipeline.confirmation.history import History, find_commit, open_history
from edpipe.pipeline.confirmation.probe import (
    jobs_with,
    make_folder,
    probe_jobs,
    read_probe,
    run_jobs,
    with_makers,
)
from edpipe.storage.code.modules import PACKAGE, SourceTree
from edpipe.storage.code.units import unit_digest, unit_names
from edpipe.storage.code.versions import HERE, Confirmed, confirmed, is_edited, read_entries, write_confirmed
from edpipe.storage.job import Job


@dataclass
class Confirmation:
    """What became of some units."""

    confirmed: dict[str, int] = field(default_factory=dict)
    """Units whose edit gives the same bytes, and how many jobs showed it."""
    refused: dict[str, str] = field(default_factory=dict)
    """Units that were not confirmed, and why not."""


def named_units(words: Sequence[str]) -> list[str]:
    """The units that these words name; a step may be named without its kind; without words, all that were edited.

    Raises:
        ParamsError: there is no such unit.
    """
    known = unit_names(HERE)
    found = []
    for word in words:
        matching = [unit for unit in known if word in (unit, unit.split(".")[1])]
        if not matching:
            raise ParamsError(f"{word}: no unit of the code has this name{nearest(word, known)}")
        found += matching
    return found or [unit for unit in known if is_edited(unit)]


def confirm(units: Sequence[str], announce: Callable[[str], None]) -> Confirmation:
    """Runs the probe of each unit that was edited, and writes down those that give the same bytes.

    Args:
        units: by name.
        announce: called with a line before a run of the probe.

    Raises:
        MismatchError: there is no git repository, or a job of the probe fails.
    """
    found = Confirmation()
    with _scratch() as folder:
        history = open_history(HERE.root, folder / "trees")
        now = _copy_of_package(folder / "now")
        for commit, group in _by_commit(history, [unit for unit in units if is_edited(unit)], found).items():
            announce(f"{', '.join(group)}: runs the jobs of the probe with commit {commit[:10]} and as edited")
            _probe(group, history.tree(commit), now, folder / commit[:10], found)
    _write({unit: confirmed()[unit].version for unit in found.confirmed})
    return found


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edpipe-confirm-") as folder:
        yield Path(folder)


def _by_commit(history: History, units: Iterable[str], found: Confirmation) -> dict[str, list[str]]:
    """The units by the commit that has their confirmed code; those without one are refused."""
    groups: dict[str, list[str]] = defaultdict(list)
    for unit in units:
        entry = confirmed().get(unit)
        try:
            if entry is None:
                raise MismatchError(f"{unit}: has no version yet; use --bump, which gives it the first")
            groups[find_commit(history, unit, entry.digest)].append(unit)
        except MismatchError as error:
            found.refused[unit] = str(error)
    return groups


def _copy_of_package(folder: Path) -> SourceTree:
    """The package as it is now: what is edited meanwhile is not confirmed.

    Raises:
        MismatchError: it was edited since this command began.
    """
    shutil.copytree(HERE.root, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    copied = SourceTree(folder / PACKAGE)
    for unit in unit_names(HERE):
        if unit_digest(copied, unit) != unit_digest(HERE, unit):
            raise MismatchError(f"{unit}: the code was edited since this command began; call it again")
    return copied


def _probe(units: Sequence[str], before: SourceTree, now: SourceTree, folder: Path, found: Confirmation) -> None:
    jobs = probe_jobs(read_probe())
    own = jobs_with(jobs, units)
    needed = with_makers(jobs, own)
    make_folder(folder / "before", needed)
    run_jobs(needed, folder / "before", before)
    again = _folder_without(own, folder)
    run_jobs(own, again, now)
    differences = {job.outputs[0]: first_difference(job, folder / "before", again) for job in own}
    for unit in units:
        _judge(unit, jobs_with(own, [unit]), differences, found)


def _folder_without(jobs: Sequence[Job], folder: Path) -> Path:
    """A copy of the folder in which these jobs have not run yet."""
    now = folder / "now"
    shutil.copytree(folder / "before", now)
    for job in jobs:
        for output in job.outputs:
            (now / output).unlink(missing_ok=True)  # the older code may not make it
    return now


def _judge(unit: str, jobs: Sequence[Job], differences: dict[Path, str | None], found: Confirmation) -> None:
    difference = next(filter(None, (differences[job.outputs[0]] for job in jobs)), None)
    if not jobs:
        found.refused[unit] = f"{unit}: no job of the probe uses it; use --bump"
    elif difference:
        found.refused[unit] = f"{unit}: {difference}; if that is meant, use --bump"
    else:
        found.confirmed[unit] = len(jobs)


def bump(units: Sequence[str]) -> dict[str, int]:
    """Gives each unit a new version for its present code; gives the versions."""
    versions = {unit: confirmed()[unit].version + 1 if unit in confirmed() else 1 for unit in units}
    _write(versions)
    return versions


def _write(versions: dict[str, int]) -> None:
    """Writes down that these versions are those of the present code; units that are gone are left out."""
    entries = dict(confirmed())
    entries |= {unit: Confirmed(version, unit_digest(HERE, unit)) for unit, version in versions.items()}
    known = unit_names(HERE)
    write_confirmed({unit: entries[unit] for unit in known if unit in entries})


def reseal() -> None:
    """Takes confirmed.yaml as it stands, as after a merge, and gives it its digest again.

    A digest that is not that of the code counts as an edit, so that nothing is taken for confirmed by this.

    Raises:
        CorruptFileError: the file cannot be read.
    """
    write_confirmed(read_entries())
