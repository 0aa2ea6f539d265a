"""`edpipe verify [EXPERIMENT …]`: whether what lies in the project folder fits params.yaml and the code of today."""

import sys
import time
from argparse import REMAINDER, ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edpipe.errors import CorruptFileError, MismatchError
from edpipe.params.load import load_params
from edpipe.pipeline.jobs.graph import experiments_named, jobs_of
from edpipe.pipeline.state.artifact_checks import check_artifact, is_page_of
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_state
from edpipe.pipeline.state.staleness import Assessment, Outcome, RecordedState, Verdict, assess, outcomes
from edpipe.runtime.progress import LINE_EVERY_S, announce
from edpipe.storage.job import Job


def _soft_labels(words: Sequence[str]) -> None:
    from edpipe.cli.commands.soft_labels import verify

    verify(words)


FORMS: dict[str, Callable[[Sequence[str]], None]] = {"soft-labels": _soft_labels}
"""Other meanings of the first word, with what follows it; no experiment can have a name with a hyphen."""
UNFIT = (Verdict.STALE, Verdict.WAITS, Verdict.DAMAGED)
STYLES = {Verdict.CACHED: "green", Verdict.STALE: "yellow", Verdict.WAITS: "yellow", Verdict.DAMAGED: "red"}


def add_verify(command: ArgumentParser) -> None:
    """The command's words."""
    # The words are told apart here, not by subparsers: those would take every experiment for an unknown subcommand.
    command.add_argument(
        "words",
        nargs=REMAINDER,
        metavar="EXPERIMENT",
        help="names in params.yaml, or study_<study>: all of a study's; none: all that was made; or: soft-labels FILE",
    )
    command.set_defaults(run=run)


def run(words: Sequence[str]) -> None:
    """Does what the words say."""
    if words and words[0] in FORMS:
        FORMS[words[0]](words[1:])
    else:
        verify(words)


def verify(experiments: Sequence[str]) -> None:
    """Prints a row for each artifact of these experiments, then notes and counts; without names, for all that exists.

    Raises:
        ParamsError: params.yaml is wrong, or has no such experiment.
        MismatchError: an artifact that exists is stale, damaged, or was made from one that is.
    """
    params = load_params()
    jobs = jobs_of(params, experiments_named(params, experiments) or params.experiments)
    start_s = time.perf_counter()
    sizes = [_size_bytes(job) for job in jobs]
    found = _verdicts(jobs, sizes)
    _print_rows([o for o in found if experiments or o.verdict is not Verdict.ABSENT])
    for line in note_lines(found):
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
            "(`edpipe plan` says what it would do; a damaged one needs `snakemake --force ARTIFACT`)"
        )


def _size_bytes(job: Job) -> int:
    try:
        return job.outputs[0].stat().st_size
    except OSError:
        return 0


def _verdicts(jobs: Sequence[Job], sizes: Sequence[int]) -> list[Outcome]:
    records = Records()
    judgements: list[Assessment] = []
    missing: list[frozenset[Path]] = []
    with _show_bytes(sum(sizes)) as show:
        for job, size_bytes in zip(jobs, sizes, strict=True):
            found = inspect(job, records)
            # Inputs stand before what reads them: their digests are known by now.
            judgements.append(assess(job, found, present_origin(job, records)))
            missing.append(found.missing)
            show(size_bytes)
    return outcomes(jobs, judgements, missing)


def inspect(job: Job, records: Records) -> RecordedState:
    """What the record of a job's artifact says, after the artifact itself was read and compared with it."""
    found = recorded_state(job, records)
    if found.damage or job.outputs[0] in found.missing:
        return found
    try:
        if job.step == "report":
            return replace(found, reasons=_page_reasons(job))
        check_artifact(job, records)
    except (CorruptFileError, MismatchError) as error:
        return replace(found, damage=str(error))
    return found


def _page_reasons(job: Job) -> tuple[str, ...]:
    paths = [job.inputs[role][0] for role in ("result", "dataset", "partition")]
    if not all(path.exists() for path in paths):
        return ()
    try:
        is_same = is_page_of(paths[0], paths[1], paths[2], job.outputs[0])
    except MismatchError as error:  # the page is sound, but no other could be drawn now
        return (str(error),)
    return () if is_same else (f"from {paths[0]} another page would be drawn now",)


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


def note_lines(found: Sequence[Outcome]) -> list[str]:
    """What is worth knowing of the artifacts that exist, a line for each thing."""
    notes = Counter(note for outcome in found for note in outcome.notes)
    lines = [
        f"note: {note} since {count} artifacts were made; nothing is made again for it" for note, count in notes.items()
    ]
    if any(o.job.step == "pack_dataset" and o.verdict in (Verdict.CACHED, Verdict.STALE) for o in found):
        lines.append("note: raw files are not compared; if they changed, make datasets again with `snakemake --force`")
    return lines
