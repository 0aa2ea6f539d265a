"""What a person sees while a step runs: a bar on a terminal, plain lines in a log."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from edpipe.errors import printable, shortened
from edpipe.runtime.progress_line import ProgressLine
from edpipe.runtime.threads import is_main_process

LINE_EVERY_S = 10.0
FIRST_LINE_S = 1.0
"""When the first line comes where the log is a file."""
SHARE_BETWEEN_LINES = 0.2
"""Of the time that has passed: how long after a line in a file the next one comes, until that is `LINE_EVERY_S`."""


@dataclass(frozen=True)
class Tick:
    """One sign of life: how much is done, in images, and what to say beside it."""

    done: int
    text: str


def announce(text: str) -> None:
    """One plain line on standard error; of several processes that train together, only the first speaks."""
    if is_main_process():
        print(printable(shortened(text)), file=sys.stderr, flush=True)


@contextmanager
def show_progress(title: str, total: int, before: int = 0) -> Iterator[Callable[[Tick], None]]:
    """A function to call with each tick; `total` is in images, and so is `before`, what an earlier call has done of it.

    On a terminal a rich bar with images per second and time left; elsewhere a line every ten seconds, and a last one.
    A file has lines sooner at first: what Snakemake's terminal shows of a running job is read there.
    """
    console = Console(stderr=True)
    if console.is_terminal and is_main_process():
        with _bar(console) as bar:
            task = bar.add_task(title, total=total, completed=before, text="", rate="")
            started_s = time.perf_counter()
            yield lambda tick: bar.update(
                task,
                completed=tick.done,
                text=tick.text,
                rate=_rate(tick.done - before, time.perf_counter() - started_s),
            )
    else:
        lines = _Lines(title, total, before)
        yield lines.show
        lines.close()


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
    )


class _Lines:
    def __init__(self, title: str, total: int, before: int) -> None:
        self._title, self._total, self._before = title, total, before
        self._started_s = self._shown_s = time.perf_counter()
        self._last = Tick(before, "")
        self._is_file = _is_file(sys.stderr)

    def show(self, tick: Tick) -> None:
        self._last = tick
        now_s = time.perf_counter()
        if now_s - self._shown_s >= self._pause_s(now_s - self._started_s):
            self._print()

    def _pause_s(self, elapsed_s: float) -> float:
        """How long after a line the next one comes."""
        if not self._is_file:
            return LINE_EVERY_S
        return min(max(FIRST_LINE_S, SHARE_BETWEEN_LINES * elapsed_s), LINE_EVERY_S)

    def close(self) -> None:
        self._print()

    def _print(self) -> None:
        self._shown_s = time.perf_counter()
        elapsed_s = self._shown_s - self._started_s
        done_now = self._last.done - self._before
        left_s = elapsed_s * max(self._total - self._last.done, 0) / max(done_now, 1)
        rate = _images_per_s(done_now, elapsed_s)
        announce(str(ProgressLine(self._title, self._last.done, self._total, rate, left_s, self._last.text)))


def _is_file(stream: object) -> bool:
    """Whether what is written there can be read in a file."""
    with suppress(AttributeError, OSError, ValueError):  # no stream of the system's, or a closed one
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)  # type: ignore[attr-defined]
    return False


def _images_per_s(done: int, elapsed_s: float) -> float:
    return done / max(elapsed_s, 1e-9)


def _rate(done: int, elapsed_s: float) -> str:
    return f"{_images_per_s(done, elapsed_s):,.0f} images/s"
