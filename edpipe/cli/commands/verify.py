"""`edpipe verify [EXPERIMENT …]`: whether what lies in the project folder fits params.yaml and the code of today."""

import sys
import time
from argparse import REMAINDER, ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edpipe.errors import MismatchError, UsageError, remake
from edpipe.params.load import load_params
from edpipe.pipeline.jobs.graph import jobs_named, studies_named
from edpipe.pipeline.jobs.paths import SEARCH_PREFIX
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts, look_at
from edpipe.pipeline.state.judgement import inspect
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_state
from edpipe.pipeline.state.staleness import Assessment, Outcome, Verdict, assess, made_from, outcomes
from edpipe.runtime.progress import LINE_EVERY_S, announce
from edpipe.storage.job import Job
from edpipe.storage.records import record_path


def _soft_labels(words: Sequence[str]) -> None:
    from edpipe.cli.commands.soft_labels import verify

    verify(words)


FORMS: dict[str, Callable[[Sequence[str]], None]] = {"soft-labels": _soft_labels}
"""Other meanings of the first word, with what follows it; no experiment can have a name with a hyphen."""
QUICK = "--quick"
SHOWN = 10
"""Names in a line; of the others the number."""
UNFIT = (Verdict.STALE, Verdict.WAITS, Verdict.DAMAGED)
STYLES = {Verdict.CACHED: "green", Verdict.STALE: "yellow", Verdict.WAITS: "yellow", Verdict.DAMAGED: "red"}


def add_verify(command: ArgumentParser) -> None:
    """The command's words."""
    # The words are told apart here, not by subparsers: those would take every experiment for an unknown subcommand.
    command.add_argument(
        "words",
        nargs=REMAINDER,
        metavar="EXPERIMENT",
        help="names in params.yaml, or study_<study>: all of a study's, or search_<search>; none: all that was made; "
        "or: soft-labels FILE",
    )
    command.add_argument(
        QUICK,
        action="store_true",
        help="read records alone, and compare size and times of the other files with those when they were last read "
        "whole: no proof",
    )
    command.set_defaults(run=run)


def run(words: Sequence[str], quick: bool = False) -> None:
    """Does what the words say."""
    if words and words[0] in FORMS:
        if quick:
            raise UsageError(f"verify: {QUICK} and {words[0]} do not go together; leave one out")
        FORMS[words[0]](words[1:])
    else:
        verify([word for word in words if word != QUICK], quick or QUICK in words)


def verify(experiments: Sequence[str], quick: bool = False) -> None:
    """Prints a row for each artifact of these experiments, then notes and counts; without names, for all that exists.

    Every byte of every artifact is read, unless `quick`.

    Raises:
        ParamsError: params.yaml is wrong, or has no such experiment.
        MismatchError: an artifact that exists is stale, damaged, or was made from one that is.
    """
    params = load_params()
    jobs = [
        *jobs_named(params, experiments or [*params.experiments, *(f"{SEARCH_PREFIX}{s}" for s in params.searches)]),
        *studies_named(params, experiments),
    ]
    start_s = time.perf_counter()
    sizes = [_size_bytes(job, quick) for job in jobs]
    checked = CheckedArtifacts(reads_all=not quick)
    found = _verdicts(jobs, sizes, quick, checked)
    _print_rows([o for o in found if experiments or o.verdict is not Verdict.ABSENT])
    for line in [*damage_lines(found), *note_lines(found), *(quick_lines(found, checked) if quick else ())]:
        print(line)
    counts = Counter(outcome.verdict for outcome in found)
    summary = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    print(f"{summary or 'nothing asked for'}; {sum(sizes) / 1e6:,.1f} MB read in {time.perf_counter() - start_s:.1f} s")
    _refuse(counts)


def _refuse(counts: Counter[Verdict]) -> None:
    unfit = sum(counts[verdict] for verdict in UNFIT)
    if unfit:
        existing = counts.total() - counts[Verdict.ABSENT]
        raise MismatchError(
            f"{unfit} of {existing} artifacts do not fit params.yaml and the code; run `snakemake` to make them again "
            "(`edpipe plan` says what it would do)"
        )


def _size_bytes(job: Job, quick: bool) -> int:
    """Of all outputs that are read."""
    return sum(look.size for look in look_at(set(job.outputs) - (set(contents_of(job)) if quick else set())).values())


def contents_of(job: Job) -> tuple[Path, ...]:
    """The outputs of a job that are read to their end without `--quick` alone: all but records."""
    return tuple(path for path in job.outputs if path != record_path(job.outputs[0]))


def _verdicts(jobs: Sequence[Job], sizes: Sequence[int], quick: bool, checked: CheckedArtifacts) -> list[Outcome]:
    records = Records()
    judgements: list[Assessment] = []
    missing: list[frozenset[Path]] = []
    with _show_bytes(sum(sizes)) as show:
        for job, size_bytes in zip(jobs, sizes, strict=True):
            found = recorded_state(job, records) if quick else inspect(job, records, checked)
            # Inputs stand before what reads them: their digests are known by now.
            judgements.append(assess(job, found, present_origin(job, records)))
            missing.append(found.missing)
            show(size_bytes)
    checked.save()
    return outcomes(jobs, judgements, missing)


@contextmanager
def _show_bytes(total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the bytes of each artifact that was read."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total).add
        return
    columns = (TextColumn("verify"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda size_bytes: bar.advance(task, size_bytes)


class _Lines:
    """A line now and then, for logs."""

    def __init__(self, total: int) -> None:
        self._done, self._total, self._shown_s = 0, total, time.perf_counter()

    def add(self, size_bytes: int) -> None:
        self._done += size_bytes
        if time.perf_counter() - self._shown_s >= LINE_EVERY_S:
            self._shown_s = time.perf_counter()
            announce(f"verify: {self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB read")


def _print_rows(rows: Sequence[Outcome]) -> None:
    if not sys.stdout.isatty():
        for row in rows:
            print(
                " ".join([f"{row.verdict:<8}", str(row.job.outputs[0])])
                + "".join(f": {r}" for r in [_reasons(row)] if r)
            )
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("artifact", "verdict", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name == "verdict")
    for row in rows:
        # Text, not str: a value may not be read as markup.
        table.add_row(
            Text(str(row.job.outputs[0])), Text(row.verdict, STYLES.get(row.verdict, "dim")), Text(_reasons(row))
        )
    Console(highlight=False).print(table)


def _reasons(row: Outcome) -> str:
    return "" if row.verdict is Verdict.ABSENT else "; ".join(row.reasons)


def damage_lines(found: Sequence[Outcome]) -> list[str]:
    """For each damaged artifact what was made from it, and the command that makes it again."""
    present = [outcome.job for outcome in found if outcome.verdict is not Verdict.ABSENT]
    damaged = [outcome.job.outputs[0] for outcome in found if outcome.verdict is Verdict.DAMAGED]
    lines = [(path, list(map(str, made_from(path, present)))) for path in damaged]
    return [
        f"damaged: {path}: {len(names)} artifact{'s were' if len(names) > 1 else ' was'} made from it: "
        f"{_first(names)}; {remake(path)}"
        for path, names in lines
        if names
    ]


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def quick_lines(found: Sequence[Outcome], checked: CheckedArtifacts) -> list[str]:
    """What a quick look does not show."""
    existing = [outcome.job for outcome in found if outcome.verdict is not Verdict.ABSENT]
    unread = [str(job.outputs[0]) for job in existing if checked.find(job.outputs) is None]
    lines = [
        "note: --quick reads records, and of all else compares size and times with those when it was last read whole: "
        "no proof; `edpipe verify` reads every byte"
    ]
    if unread:
        lines.append(
            f"note: {len(unread):,} of {len(existing):,} artifacts were not read since they were made or changed: "
            f"{_first(unread)}"
        )
    return lines


def note_lines(found: Sequence[Outcome]) -> list[str]:
    """What is worth knowing of the artifacts that exist, a line for each thing."""
    notes = Counter(note for outcome in found for note in outcome.notes)
    lines = [
        f"note: {note} since {count} artifacts were made; nothing is made again for it" for note, count in notes.items()
    ]
    if any(o.job.step == "pack_dataset" and o.verdict in (Verdict.CACHED, Verdict.STALE) for o in found):
        lines.append("note: raw files are not compared; if they changed, make datasets again with `snakemake --force`")
    return lines
