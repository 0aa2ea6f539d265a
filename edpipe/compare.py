"""Results side by side, on the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edpipe.metrics import Spread
from edpipe.storage.result_file import Result, read_result, say_seconds

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
LEFT_ALIGNED = frozenset({"experiment", "method", "report"})
GIGA = 10**9


@dataclass(frozen=True)
class Entry:
    """One result and where it lies."""

    path: Path
    result: Result

    @property
    def group(self) -> tuple[str, str]:
        """Only entries of one dataset and partition can be held against each other."""
        return self.result.inputs.dataset, self.result.inputs.partition


def compare(results: list[Path]) -> None:
    """Prints a row for each result, the best first, and below what forbids or weakens the comparison.

    Raises:
        CorruptFileError: a file is missing, damaged, no result, or of another version.
    """
    entries = ranked([Entry(path, read_result(path)) for path in results])
    console = Console(highlight=False)
    table = table_of(entries, COLUMNS)
    width = console.measure(table, options=console.options.update(width=10_000)).maximum
    if not console.is_terminal:
        # A pipe or a log has no width of its own; nothing may be cut off.
        console = Console(highlight=False, width=width)
    tables = [table] if width <= console.width else [table_of(entries, columns) for columns in HALVES]
    console.print(*tables)
    console.print(Text(LEGEND, style="dim"), soft_wrap=True)
    for warning in warnings_of(entries):
        console.print(Text(warning, style="yellow"), soft_wrap=True)


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """The highest mean top1 first; equal ones by name, so that the order never depends on the command line."""
    return sorted(entries, key=lambda e: (-e.result.summary.top1.mean, e.result.experiment, str(e.path)))


def table_of(entries: Sequence[Entry], columns: Sequence[str]) -> Table:
    """A row for each entry; the best top1 of each dataset and partition is bold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns:
        is_number = name not in LEFT_ALIGNED
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for entry in entries:
        # Text, not str: a name may not be read as markup.
        cells = {name: Text(cell) for name, cell in zip(COLUMNS, _cells(entry), strict=True)}
        if entry.result.summary.top1.mean == max(e.result.summary.top1.mean for e in entries if e.group == entry.group):
            cells["top1 %"].stylize("bold")
        table.add_row(*(cells[name] for name in columns))
    return table


def _cells(entry: Entry) -> tuple[str, ...]:
    result, budget = entry.result, entry.result.budget
    lost = [spread.mean for spread in result.summary.forgetting.values()]
    has_teacher = budget.teacher_forwards_spent or budget.teacher_forwards_online
    page = entry.path.with_suffix(".html")
    return (
        result.experiment,
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
        f"{say_seconds(result.cost, False)} / {say_seconds(result.cost, True)}",
        str(page) if page.is_file() else "–",
    )


def _mean(spread: Spread) -> str:
    return f"{spread.mean * 100:.2f}" + ("" if spread.std is None else f" ± {spread.std * 100:.2f}")


def _interval(spread: Spread) -> str:
    if spread.low is None or spread.high is None:
        return "–"
    return f"{max(spread.low, 0) * 100:.2f}–{min(spread.high, 1) * 100:.2f}"


def warnings_of(entries: Sequence[Entry]) -> list[str]:
    """What forbids or weakens the comparison, a line for each; empty if nothing does."""
    found = [
        _difference("not comparable: datasets differ", entries, lambda r: f"{r.data.dataset} {r.inputs.dataset}"),
        _difference("not comparable: partitions differ", entries, lambda r: r.inputs.partition),
        _difference("budgets differ: images seen", entries, lambda r: f"{r.budget.images_seen:,}"),
        _difference("students differ", entries, lambda r: r.setup.student.model),
    ]
    lonely = [e.result.experiment for e in entries if len(e.result.seeds) == 1]
    if lonely:
        found.append(f"one seed only, so no spread is known: {', '.join(lonely)}")
    return [line for line in found if line]


def _difference(title: str, entries: Sequence[Entry], value_of: Callable[[Result], str]) -> str:
    """`title: value (experiments); value (experiments)`, or nothing if all have one value."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        groups.setdefault(value_of(entry.result), []).append(entry.result.experiment)
    if len(groups) < 2:
        return ""
    return f"{title}: " + "; ".join(f"{value} ({', '.join(names)})" for value, names in groups.items())
