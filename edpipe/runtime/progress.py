"""What a person sees while a step runs: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from edpipe.errors import printable, shortened
from edpipe.runtime.threads import is_main_process

LINE_EVERY_S = 10.0


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

    def show(self, tick: Tick) -> None:
        self._last = tick
        if time.perf_counter() - self._shown_s >= LINE_EVERY_S:
            self._print()

    def close(self) -> None:
        self._print()

    def _print(self) -> None:
        self._shown_s = time.perf_counter()
        elapsed_s = self._shown_s - self._started_s
        done_now = self._last.done - self._before
        left_s = elapsed_s * (self._total - self._last.done) / max(done_now, 1)
        announce(
            f"{self._title}: {self._last.done:,}/{self._total:,} images, {_rate(done_now, elapsed_s)}, "
            f"{left_s:.0f} s left  {self._last.text}"
        )


def _rate(done: int, elapsed_s: float) -> str:
    return f"{done / max(elapsed_s, 1e-9):,.0f} images/s"
