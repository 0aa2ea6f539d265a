"""Results side by side on the terminal, and each against a base."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edpipe.errors import EdpipeError, printable
from edpipe.results.comparison.comparison import (
    ClassChange,
    Comparison,
    Entry,
    base_of,
    check_comparable,
    comparisons_of,
    facts_of,
    is_comparison,
    notes_of,
    ranked,
    read_entries,
    warnings_of,
)
from edpipe.results.measures.metrics import Spread
from edpipe.results.result_file import format_seconds
from edpipe.storage.records import write_record

COLUMNS = (
    "experiment",
    "method",
    "n",
    "top1 %",
    "95 %\ninterval",
    "top5\n%",
    "ECE\n%",
    "worst\nforgetting",
    "images\nseen",
    "training\nGMACs",
    "teacher forwards\nspent / saved",
    "time\nown / shared",
    "report",
)
HALVES = COLUMNS[:8], COLUMNS[:1] + COLUMNS[8:]
"""For a terminal too narrow for all columns: accuracy, then cost."""
LEGEND = (
    "mean ± std over n seeds; forgetting in points; images and GMACs of one seed, teacher forwards of all seeds; "
    "time of all students / of data, teachers and soft labels, which are shared; ≥: of some the time is not known"
)
PAIRED_COLUMNS: tuple[str, ...] = (
    "n",
    "top1\npp",
    "95 %\ninterval",
    "won / lost\n/ equal",
    "p",
    "p\nHolm",
    "training\nGMACs ×",
)
PAIRED_LEGEND = (
    "top1 minus that of {base} at the same seed, mean in points over n shared seeds; 95 % interval and two-sided p of "
    "Student's paired t; ×: of the GMACs of {base}; {count}"
)
NEXT = "`edpipe export {name}` writes the student of an experiment to a folder: weights, classes, normalisation, card"
LEFT_ALIGNED = frozenset({"experiment", "method", "report", "class"})
GIGA = 10**9


def add_compare(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("results", nargs="+", type=Path, help="results/<experiment>.json of one dataset, two or more")
    command.add_argument(
        "--base", metavar="NAME", help="experiment that the others are compared to; default: the only ce, or the first"
    )
    command.add_argument(
        "--unequal-budgets", action="store_true", help="compare even if the numbers of training images differ"
    )
    command.add_argument("--per-class", action="store_true", help="also print how top1 on each class changes")
    command.add_argument("--json", type=Path, metavar="FILE", dest="json_path", help="write all numbers there as well")
    command.set_defaults(run=compare)


def compare(
    results: Sequence[Path],
    base: str | None = None,
    unequal_budgets: bool = False,
    per_class: bool = False,
    json_path: Path | None = None,
) -> None:
    """Prints a row for each result, the best first; below, each against the base, and what weakens the comparison.

    Args:
        results: files of one dataset; with one of them there is nothing to compare with the base.
        base: an experiment or a path among the results; None: the only `ce` one, or else the first.
        unequal_budgets: whether other numbers of training images are a warning, not an error.
        per_class: whether to print the change of top1 on each class as well.
        json_path: where to write all these numbers; docs/result.md explains every key.

    Raises:
        CorruptFileError: a file is missing, damaged, no result, or of another version.
        MismatchError: datasets differ, or image budgets do without `unequal_budgets`.
        EdpipeError: a result is named twice, or none has the name of the base, or --per-class or --json cannot be.
        OverwriteError: the JSON file cannot be written.
    """
    named = read_entries(results)
    _check_words(results, per_class, json_path)
    check_comparable(named, unequal_budgets)
    against, entries = base_of(named, base), ranked(named)
    found = comparisons_of(entries, against)
    warnings = [*notes_of(found, against), *warnings_of(entries)]
    _print_all(entries, against, found, per_class, warnings)
    if json_path:
        write_record(json_path, facts_of(entries, against, found, warnings))


def _check_words(results: Sequence[Path], per_class: bool, json_path: Path | None) -> None:
    if per_class and len(results) == 1:
        raise EdpipeError(f"--per-class: {results[0]} is the only result; name a second one to hold it against")
    # A slip of the hand must not cost a result, which may have taken days.
    if json_path and json_path.exists() and not is_comparison(json_path):
        raise EdpipeError(f"--json: {json_path} is there and is no comparison; name another file, or remove this one")


def _print_all(
    entries: Sequence[Entry], base: Entry, found: Sequence[Comparison], per_class: bool, notes: Sequence[str]
) -> None:
    wide = table_of(entries, COLUMNS)
    below = [paired_table(found, base)] if found else []
    classes = [class_table(one, base) for one in found if one.classes] if per_class else []
    console = _console_for([wide, *below, *classes])
    fits = _width(console, wide) <= console.width
    console.print(*([wide] if fits else [table_of(entries, columns) for columns in HALVES]))
    console.print(Text(LEGEND, style="dim"), soft_wrap=True)
    for table in below:
        console.print("", table)
        console.print(
            Text(PAIRED_LEGEND.format(base=printable(base.name), count=format_count(found)), style="dim"),
            soft_wrap=True,
        )
    for table in classes:
        console.print("", table)
    for note in notes:
        console.print(Text(printable(note), style="yellow"), soft_wrap=True)
    console.print(Text(NEXT.format(name=printable(entries[0].name)), style="dim"), soft_wrap=True)


def _console_for(tables: Sequence[Table]) -> Console:
    """The terminal; or for a pipe or a log, which have no width of their own, one in which nothing is cut off."""
    console = Console(highlight=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, width=max(_width(console, table) for table in tables))


def _width(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def table_of(entries: Sequence[Entry], columns: Sequence[str]) -> Table:
    """A row for each entry; the best top1 is bold."""
    table = _empty_table(columns)
    best = max(entry.result.summary.top1.mean for entry in entries)
    for entry in entries:
        # Text, not str: a name may not be read as markup.
        cells = {name: Text(printable(cell)) for name, cell in zip(COLUMNS, _cells(entry), strict=True)}
        if entry.result.summary.top1.mean == best:
            cells["top1 %"].stylize("bold")
        table.add_row(*(cells[name] for name in columns))
    return table


def _empty_table(columns: Sequence[str], left_aligned: frozenset[str] = LEFT_ALIGNED) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns:
        is_number = name not in left_aligned
        table.add_column(Text(name), justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    return table


def _cells(entry: Entry) -> tuple[str, ...]:
    result, budget = entry.result, entry.result.budget
    lost = [spread.mean for spread in result.summary.forgetting.values()]
    has_teacher = budget.teacher_forwards_spent or budget.teacher_forwards_online
    page = entry.path.with_suffix(".html")
    return (
        entry.name,
        result.method,
        str(len(result.seeds)),
        _mean(result.summary.top1),
        _interval(result.summary.top1),
        f"{result.summary.top5.mean * 100:.2f}",
        f"{result.summary.ece.mean * 100:.2f}",
        f"{max(lost) * 100:+.2f}" if lost else "–",
        f"{budget.images_seen:,}",
        f"{budget.training_macs / GIGA:,.4g}",
        f"{budget.teacher_forwards_spent:,} / {budget.teacher_forwards_saved:,}" if has_teacher else "–",
        f"{format_seconds(result.cost, False)} / {format_seconds(result.cost, True)}",
        str(page) if page.is_file() else "–",
    )


def _mean(spread: Spread) -> str:
    return f"{spread.mean * 100:.2f}" + ("" if spread.std is None else f" ± {spread.std * 100:.2f}")


def _interval(spread: Spread) -> str:
    if spread.low is None or spread.high is None:
        return "–"
    return f"{max(spread.low, 0) * 100:.2f}–{min(spread.high, 1) * 100:.2f}"


def paired_table(found: Sequence[Comparison], base: Entry) -> Table:
    """A row for each result but the base: its top1 minus the base's at the same seed."""
    columns = [name for name in PAIRED_COLUMNS if len(found) > 1 or "Holm" not in name]
    table = _empty_table([first := f"minus {printable(base.name)}", *columns], frozenset({first}))
    for one in found:
        cells: dict[str, str] = dict(zip(PAIRED_COLUMNS, _paired_cells(one), strict=True))
        table.add_row(Text(printable(one.entry.name)), *(cells[name] for name in columns))
    return table


def _paired_cells(one: Comparison) -> tuple[str, ...]:
    ratio = "–" if one.macs_ratio is None else f"{one.macs_ratio:.3f}"
    if one.paired is None:
        return ("0", *"–––––", ratio)
    paired, spread = one.paired, one.paired.spread
    return (
        str(spread.n),
        f"{spread.mean * 100:+.2f}",
        _signed_interval(spread),
        f"{paired.wins} / {paired.losses} / {paired.ties}",
        _p(paired.p),
        _p(one.p_holm),
        ratio,
    )


def _signed_interval(spread: Spread) -> str:
    if spread.low is None or spread.high is None:
        return "–"
    return f"{spread.low * 100:+.2f} to {spread.high * 100:+.2f}"


def _p(p: float | None) -> str:
    return "–" if p is None else f"{p:.2g}"


def class_table(one: Comparison, base: Entry) -> Table:
    """A row for each class, the greatest loss first; classes without test images last."""
    names = [f"{printable(name)} %" for name in (base.name, one.entry.name)]
    table = _empty_table(("class", "test\nimages", *names, "change\npp"))
    for change in sorted(one.classes, key=_by_change):
        shares = ("–" if share is None else f"{share * 100:.2f}" for share in (change.base, change.own))
        points = "–" if change.change is None else f"{change.change * 100:+.2f}"
        cells = (printable(change.name), f"{change.test_samples:,}", *shares, points)
        table.add_row(*map(Text, cells))
    return table


def _by_change(change: ClassChange) -> tuple[bool, float, int]:
    # Equal changes differ in their last bits; they stand in order of class number.
    return change.change is None, round(change.change or 0.0, 12), change.class_id


def format_count(found: Sequence[Comparison]) -> str:
    """How many comparisons were made, and for how many of them p values are adjusted."""
    if len(found) == 1:
        return "1 comparison, so p is not adjusted"
    tested = sum(one.p_holm is not None for one in found)
    return f"{len(found)} comparisons: p Holm is adjusted for the {tested} that have a p, intervals are not adjusted"
