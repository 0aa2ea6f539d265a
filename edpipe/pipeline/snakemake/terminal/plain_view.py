"""A run in a file, in a pipe, or on a terminal that cannot move its cursor: a line at the start and end of each job."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edpipe.pipeline.snakemake.terminal.lines import Failure, Line, end_text, message_lines
from edpipe.pipeline.snakemake.terminal.run import Run, RunningJob
from edpipe.results.measures.cost import duration


class PlainView:
    """Writes whole lines, and nothing that a terminal would obey."""

    def __init__(
        self,
        stream: Any,
        run: Run,
        clock: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], str] = lambda: time.strftime("%H:%M:%S"),
    ) -> None:
        self._stream, self._run, self._clock, self._time_of_day = stream, run, clock, time_of_day
        self._has_begun = False

    def begin(self, stats: Mapping[str, int], text: str) -> None:
        """Snakemake's own table of jobs."""
        self._has_begun = True
        self.say(message_lines(text))

    def started(self, job: RunningJob) -> None:
        """The rule and what it is about."""
        self.say([Line(f"{self._time_of_day()} start   {job.rule}: {job.title}")])

    def finished(self, job: RunningJob, fact: str, seconds: float) -> None:
        """The same, what came of it, how long it took, and how many jobs are done."""
        told = f"{job.title}: {fact}" if fact else job.title
        number = f"{self._run.done}/{self._run.total}"
        self.say([Line(f"{self._time_of_day()} done    {job.rule}: {told}; {duration(seconds)} ({number})")])

    def failed(self, failure: Failure) -> None:
        """All of it."""
        first, *others = failure.lines()
        self.say([Line(f"{self._time_of_day()} {first.text}"), *others])

    def say(self, lines: Sequence[Line]) -> None:
        """Writes them, whole."""
        self._stream.write("".join(f"{line.text}\n" for line in lines))
        self._stream.flush()

    def close(self, is_over: bool) -> None:
        """What was done in all, once."""
        has_begun, self._has_begun = self._has_begun, False
        if has_begun and is_over and self._run.has_started:
            self.say([Line(end_text(self._run, self._clock()))])
