"""A run on a terminal: a line for each running job that changes in place, and above it what has ended."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from edpipe.pipeline.estimates.expected import Expected
from edpipe.pipeline.snakemake.terminal.lines import Failure, Line, Tone, counts_lines, end_text, ended_line
from edpipe.pipeline.snakemake.terminal.pace import TimeLeft, time_left
from edpipe.pipeline.snakemake.terminal.run import Run, RunFacts, RunningJob
from edpipe.pipeline.snakemake.terminal.streams import LineStream
from edpipe.pipeline.snakemake.terminal.table import Size, cut, table

EVERY_S = 0.5
"""How often logs are looked at and the lines are drawn again."""
LOOK_S = 0.02
"""For each running job the pause is at least so long: logs may lie on a slow disk."""
PATIENCE_S = 2.0
"""So long the end waits for a look that is under way."""
STYLES = {Tone.PLAIN: "", Tone.QUIET: "dim", Tone.WARNING: "yellow", Tone.ERROR: "red"}
PACKS = "pack_dataset"
"""After this rule more is known of how long jobs take."""


class LiveView:
    """Draws on a terminal; all but the drawing itself is called under the lock.

    While a job of a user's own rule runs, which may write to the terminal itself, nothing changes in place.

    Args:
        stream: the terminal.
        run: what is shown.
        lock: held by whoever changes the run.
        on_fault: called once, without the lock, with an error of the drawing itself; then nothing is drawn any more.
        has_colours: whether there may be any; the environment variable NO_COLOR takes them away too.
        clock: seconds, of which only differences count.
    """

    def __init__(
        self,
        stream: Any,
        run: Run,
        lock: AbstractContextManager[Any],
        on_fault: Callable[[Exception], None],
        has_colours: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._lock, self._on_fault, self._clock = run, lock, on_fault, clock
        self._console = Console(
            file=stream, force_terminal=True, no_color=None if has_colours else True, highlight=False, emoji=False
        )
        self._streams = LineStream(stream, lambda line: self.say([Line(line, is_whole=True)]), lock)
        self._live: Live | None = None
        self._drawn: tuple[list[Line], Size] | None = None
        self._has_begun = False
        self._facts: RunFacts | None = None
        self._expected: Mapping[str, Expected] = {}
        self._is_expected = True
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="edpipe-terminal", daemon=True)

    def begin(self, stats: Mapping[str, int], text: str) -> None:
        """From now on something changes in place."""
        self._has_begun = True
        self.say(counts_lines(stats, self._size().width))
        self._streams.take_over()
        self._ticker.start()

    def expect(self, facts: RunFacts) -> None:
        """Has it found out how long jobs will take, without keeping anybody waiting."""
        self._facts, self._is_expected = facts, False

    def started(self, job: RunningJob) -> None:
        """Nothing is said of our own, whose lines appear by themselves."""
        if not job.is_own:
            self._stop()
            self.say([Line(f"start: {job.title}")])

    def finished(self, job: RunningJob, fact: str, seconds: float) -> None:
        """One line, above what changes."""
        self._is_expected &= job.rule != PACKS
        if self._live is not None:
            self._draw()
        self.say([ended_line(job.title, fact, seconds)])

    def failed(self, failure: Failure) -> None:
        """All of it, above what changes."""
        self.say(list(failure.lines()))

    def say(self, lines: Sequence[Line]) -> None:
        """Lines above what changes."""
        size = self._size()
        texts = [line.text if line.is_whole else cut(line.text, size) for line in lines]
        styled = [Text(text, STYLES[line.tone]) for text, line in zip(texts, lines, strict=True)]
        if styled:
            self._console.print(Text("\n").join(styled), soft_wrap=True)

    def close(self, is_over: bool) -> None:
        """What changed is gone; the last line of a run says what was done in all. Called without the lock."""
        self._over.set()
        if self._ticker.is_alive() and self._ticker is not threading.current_thread():
            self._ticker.join(PATIENCE_S)
        with self._lock:
            self._stop()
            self._streams.give_back()
            has_begun, self._has_begun = self._has_begun, False
            if has_begun and is_over and self._run.has_started:
                self.say([Line(end_text(self._run, self._clock()))])

    def refresh(self) -> None:
        """Reads the logs and draws anew; called without the lock."""
        self._find_expected()
        self._look()
        with self._lock:
            if not self._over.is_set():
                self._draw()

    def _tick(self) -> None:
        try:
            while not self._over.wait(max(EVERY_S, LOOK_S * len(self._run.running))):
                self.refresh()
        except Exception as error:
            self._on_fault(error)

    def _find_expected(self) -> None:
        if not self._is_expected and self._facts is not None:
            self._is_expected = True
            self._expected = self._facts.expect()

    def _look(self) -> None:
        """Reads the logs, without the lock: a disk may let it wait."""
        with self._lock:
            jobs = [job for job in self._run.running.values() if job.log is not None]
        for job in jobs:
            look = job.log.look() if job.log is not None else None
            if look is not None:
                with self._lock:
                    job.see(look, self._clock())

    def _draw(self) -> None:
        if not all(job.is_own for job in self._run.running.values()):
            return
        now_s, size = self._clock(), self._size()
        lines = table(self._run, self._left(now_s), now_s, size)
        if self._live is not None and (lines, size) == self._drawn:
            return
        self._drawn = (lines, size)
        text = Text("\n").join(Text(line.text, STYLES[line.tone]) for line in lines)
        text.no_wrap, text.overflow = True, "crop"
        if self._live is None:
            self._live = Live(
                text, console=self._console, auto_refresh=False, transient=True, redirect_stdout=False,
                redirect_stderr=False, vertical_overflow="crop",
            )  # fmt: skip
            self._live.start()
            self._console.show_cursor(True)  # a process that is killed could not do it later
        self._live.update(text, refresh=True)

    def _left(self, now_s: float) -> TimeLeft | None:
        return time_left(self._run, self._expected, now_s) if self._facts is not None else None

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _size(self) -> Size:
        width, height = self._console.size
        return Size(width, height, "…" if self._console.encoding.startswith("utf") else ".")


def is_live(stream: Any) -> bool:
    """Whether something can change in place there."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown") and sys.platform != "win32"
