"""`edpipe adopt EXPERIMENT … | ARTIFACT …`: takes over artifacts that other code made, by evidence."""

import os
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edpipe.cli.adoption.adopt import Ended, Ending, Options, adopt
from edpipe.errors import MismatchError, ParamsError, nearest
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.graph import experiments_named, jobs_of
from edpipe.storage.job import Job

WORDS = {Ending.FITS: "fitted before", Ending.LEFT: "left to `snakemake`, cheap to make again", Ending.ABSENT: "absent"}
"""In the summary."""


def add_adopt(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument(
        "names",
        nargs="*",
        metavar="EXPERIMENT|ARTIFACT",
        help="names in params.yaml, or study_<study>: all that these need; or paths of artifacts: these alone",
    )
    command.add_argument("--dry-run", action="store_true", help="gather evidence, write nothing")
    command.add_argument(
        "--other-machine",
        action="store_true",
        help="another type of machine, or other numbers of threads or processes, made them: differences are allowed",
    )
    command.set_defaults(run=run)


def run(names: Sequence[str], dry_run: bool, other_machine: bool) -> None:
    """Prints a line for each artifact that did not fit, then counts.

    Raises:
        ParamsError: params.yaml is wrong; no name; or one that is neither an experiment, a study nor an artifact.
        MismatchError: an artifact was refused.
    """
    params = load_params()
    if not names:
        raise ParamsError(
            f"adopt: nothing named; name experiments, or paths of artifacts{nearest('', params.experiments)}"
        )
    jobs, chosen = _chosen(params, names)
    counts: Counter[Ending] = Counter()
    for ended in adopt(params, jobs, chosen, Options(dry_run, other_machine)):
        counts[ended.ending] += 1
        if ended.ending in (Ending.ADOPTED, Ending.REFUSED):
            print(_line(ended, dry_run), flush=True)
    print(_summary(counts, dry_run))
    _refuse(counts)


def _chosen(params: Params, names: Iterable[str]) -> tuple[list[Job[Any]], set[Path]]:
    """Jobs in order, and the artifacts that are to be taken over."""
    everything = jobs_of(params, params.experiments)
    by_output = {path: job for job in everything for path in job.outputs}
    found: list[Job[Any]] = []
    for name in names:
        path = Path(os.path.relpath(name))
        if path in by_output:
            found.append(by_output[path])
        else:
            _check_name(params, name)
            found += jobs_of(params, experiments_named(params, [name]))
    chosen = {job.outputs[0] for job in found}
    return _with_all_before(everything, chosen), chosen


def _check_name(params: Params, name: str) -> None:
    known = [*params.experiments, *(f"{paths.STUDY_PREFIX}{study}" for study in params.studies)]
    if name not in known:
        raise ParamsError(
            f"adopt: '{name}' is no experiment or study of params.yaml, and no artifact of one{nearest(name, known)}"
        )


def _with_all_before(jobs: Sequence[Job[Any]], chosen: set[Path]) -> list[Job[Any]]:
    """The jobs of these artifacts and of all that they are made from, in order."""
    needed = set(chosen)
    for job in reversed(jobs):
        if not needed.isdisjoint(job.outputs):
            needed.update(job.all_inputs)
    return [job for job in jobs if not needed.isdisjoint(job.outputs)]


def _line(ended: Ended, is_dry_run: bool) -> str:
    path = str(ended.job.outputs[0])
    if ended.ending is Ending.REFUSED:
        return f"refused      {ended.text if path in ended.text else f'{path}: {ended.text}'}"
    return f"{'would adopt' if is_dry_run else 'adopted':<12} {path}: {ended.text}"


def _summary(counts: Counter[Ending], is_dry_run: bool) -> str:
    words = {Ending.ADOPTED: "would be adopted" if is_dry_run else "adopted", Ending.REFUSED: "refused"} | WORDS
    return ", ".join(f"{counts[ending]} {word}" for ending, word in words.items() if counts[ending])


def _refuse(counts: Counter[Ending]) -> None:
    if counts[Ending.REFUSED]:
        raise MismatchError(
            f"{counts[Ending.REFUSED]} of {counts.total() - counts[Ending.ABSENT]} artifacts cannot be adopted; "
            "`snakemake` makes them again (`edpipe plan` says what it would do)"
        )
