"""What changes while jobs run: a line for each of them, and a last one for all. No line is wider than the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from edpipe.pipeline.snakemake.terminal.lines import Line, Tone, state_text
from edpipe.pipeline.snakemake.terminal.pace import TimeLeft
from edpipe.pipeline.snakemake.terminal.run import Run, RunningJob
from edpipe.pipeline.snakemake.terminal.words import count, images, rounded

HEADER = ("images", "images/s", "loss", "left")
DROPPED = ("images/s", "loss", "images")
"""Columns that a narrow terminal does without, the first one first."""
FEWEST_FOR_TITLE = 24
"""Columns are dropped for a title to have so many characters."""
GAP = "  "
LINES_BESIDE = 3
"""The header, the last line, and one where the cursor is."""


@dataclass(frozen=True)
class Size:
    """Of a terminal."""

    width: int
    height: int
    ellipsis: str = "…"
    """What ends a line that is cut off; one character."""


def cut(text: str, size: Size, width: int | None = None) -> str:
    """The text, no wider than the terminal, or than `width`.

    >>> cut("student digits_ed", Size(10, 24)), cut("short", Size(10, 24))
    ('student d…', 'short')
    """
    most = size.width if width is None else width
    if cell_len(text) <= most:
        return text
    return (set_cell_size(text, most - 1) + size.ellipsis) if most > 0 else ""


def cut_middle(text: str, size: Size, width: int) -> str:
    """The same for names, whose ends tell them apart.

    >>> cut_middle("teacher digits_specialists subset middle", Size(80, 24), 30)
    'teacher digits_spec…set middle'
    """
    if cell_len(text) <= width or width < 3:
        return cut(text, size, width)
    end = text[-(width // 3) :]
    return cut(text[: -len(end)], size, width - cell_len(end)) + end


def table(run: Run, left: TimeLeft | None, now_s: float, size: Size) -> list[Line]:
    """The lines, from the top."""
    jobs = sorted(run.running.values(), key=lambda job: (job.started_s, job.number))
    shown = jobs[: max(size.height - LINES_BESIDE, 1)]
    if len(shown) < len(jobs):
        shown = shown[:-1]
    lines = [*_job_lines(shown, now_s, size)]
    if len(shown) < len(jobs):
        lines.append(Line(f"and {count(len(jobs) - len(shown), 'more job')}"))
    lines.append(Line(f"{state_text(run)}{_left_text(left)}"))
    return [Line(cut(line.text, size), line.tone) for line in lines]


def _left_text(left: TimeLeft | None) -> str:
    if left is None:
        return ""
    return f", {'about' if left.is_whole else 'at least'} {rounded(left.seconds)} left"


def _job_lines(jobs: Sequence[RunningJob], now_s: float, size: Size) -> list[Line]:
    """The lines of jobs, and where one of them tells of its progress, the header before them."""
    cells = {job.number: _cells(job, now_s) for job in jobs if job.progress is not None}
    widths = {name: max(map(len, [name, *(row[name] for row in cells.values())])) for name in HEADER}
    for name in DROPPED:
        if size.width - _width(widths) < FEWEST_FOR_TITLE:
            widths.pop(name)
    header = [Line(_row("", dict(zip(HEADER, HEADER, strict=True)), widths, size), Tone.QUIET)] if cells else []
    return header + [
        Line(_row(job.title, cells[job.number], widths, size) if job.number in cells else _waiting(job, now_s, size))
        for job in jobs
    ]


def _cells(job: RunningJob, now_s: float) -> dict[str, str]:
    progress = job.progress
    assert progress is not None
    left_s = job.left_s(now_s)
    texts = (
        images(progress.done, progress.total),
        f"{progress.rate:,.0f}",
        progress.loss,
        "" if left_s is None else rounded(left_s),
    )
    return dict(zip(HEADER, texts, strict=True))


def _width(widths: dict[str, int]) -> int:
    return sum(len(GAP) + width for width in widths.values())


def _row(title: str, cells: dict[str, str], widths: dict[str, int], size: Size) -> str:
    width = size.width - _width(widths)
    name = cut_middle(title, size, width)
    return name + " " * (width - cell_len(name)) + "".join(f"{GAP}{cells[n]:>{w}}" for n, w in widths.items())


def _waiting(job: RunningJob, now_s: float, size: Size) -> str:
    """A job that tells nothing of its progress, with the last line of its log."""
    elapsed = f"{GAP}for {rounded(now_s - job.started_s)}"
    width = size.width - cell_len(elapsed)
    name = cut(f"{job.title}: {job.last_line}" if job.last_line else job.title, size, width)
    return name + " " * (width - cell_len(name)) + elapsed
