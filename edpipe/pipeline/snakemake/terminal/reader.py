"""Reads Snakemake's log records, keeps the state of the run, and tells a view what happens.

What is not known here is shown as Snakemake would show it: only lines that say nothing of a run are left out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from logging import INFO, WARNING, Formatter, LogRecord
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from snakemake_interface_logger_plugins.common import LogEvent

from edpipe.errors import printable
from edpipe.pipeline.jobs.step_table import STEP
from edpipe.pipeline.snakemake.terminal.job_logs import SEEN_BEFORE, JobLog
from edpipe.pipeline.snakemake.terminal.lines import Failure, Line, Tone, end_of_command, message_lines
from edpipe.pipeline.snakemake.terminal.run import COLLECTING_RULE, Run, RunFacts, RunningJob
from edpipe.pipeline.snakemake.terminal.words import title

CHATTER = (
    "Assuming unrestricted shared filesystem usage.",
    "Building DAG of jobs...",
    "Complete log(s): ",
    "Conda environments: ignored",
    "Elapsed time: ",
    "Group jobs: inactive (local execution)",
    "Select jobs to execute...",
    "Singularity containers: ignored",
    "Using shell: ",
)
"""Beginnings of messages of every run; a failed one shows where the complete log is."""
COMPLETE_LOG = "Complete log(s): "


@runtime_checkable
class View(Protocol):
    """Shows it."""

    def begin(self, stats: Mapping[str, int], text: str) -> None:
        """The jobs that are to run are known; `text` is Snakemake's table of them."""
        ...

    def started(self, job: RunningJob) -> None:
        """A job begins."""
        ...

    def finished(self, job: RunningJob, fact: str, seconds: float) -> None:
        """A job is done; `fact` says what came of it."""
        ...

    def failed(self, failure: Failure) -> None:
        """A job failed."""
        ...

    def say(self, lines: Sequence[Line]) -> None:
        """Something else is to be said."""
        ...

    def close(self, is_over: bool) -> None:
        """Nothing more will come, since the run is over, or since somebody else goes on."""
        ...


class Reader:
    """Takes records, one after the other.

    Args:
        view: is told what happens, under `lock`.
        run: is kept up to date, likewise.
        lock: of both.
        formatter: Snakemake's own.
        command: that goes on after a failure.
        is_verbose: whether nothing is left out.
        clock: seconds, of which only differences count.
    """

    def __init__(
        self,
        view: View,
        run: Run,
        lock: AbstractContextManager[Any],
        formatter: Formatter,
        command: str,
        is_verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view, self._run, self._lock = view, run, lock
        self._formatter, self._command, self._is_verbose, self._clock = formatter, command, is_verbose, clock
        self._held: list[tuple[str, str, LogRecord]] = []
        """Errors that tell only how a shell command ended: their jobs' failures say the same, and come after."""

    def take(self, record: LogRecord) -> None:
        """Shows what a record tells."""
        react = _REACTIONS.get(getattr(record, "event", None), Reader._tell)
        with self._lock:
            react(self, record)

    def learn(self, facts: RunFacts) -> None:
        """Takes in what the graph of jobs says."""
        with self._lock:
            self._run.learn(facts)

    def close(self) -> None:
        """The run is over: shows what is still held back, and ends the view."""
        for record in self.held():
            with self._lock:
                self._tell(record)
        self._view.close(is_over=True)

    def leave(self) -> None:
        """Ends the view, since another goes on."""
        self._view.close(is_over=False)

    def held(self) -> list[LogRecord]:
        """What was held back until now, for somebody else to show."""
        with self._lock:
            held, self._held = self._held, []
        return [record for _, _, record in held]

    def _leave_out(self, record: LogRecord) -> None:
        if self._is_verbose:
            self._tell(record)

    def _tell(self, record: LogRecord) -> None:
        text = self._formatter.format(record)
        is_said = text not in (None, "", "None")
        if is_said and (self._is_verbose or not self._is_chatter(record, text)):
            self._view.say(message_lines(text, _tone(record)))

    def _is_chatter(self, record: LogRecord, text: str) -> bool:
        is_plain = record.levelno == INFO and getattr(record, "event", None) is None
        return is_plain and text.startswith(CHATTER) and not (self._run.failed and text.startswith(COMPLETE_LOG))

    def _begin(self, record: Any) -> None:
        stats = getattr(record, "stats", None)
        if not isinstance(stats, Mapping) or self._run.total:
            self._tell(record)
            return
        self._run.started_s = self._clock()
        self._run.total = int(stats.get("total", sum(stats.values())))
        self._view.begin(stats, self._formatter.format(record))

    def _start(self, record: Any) -> None:
        output = next(iter(record.output or ()), "")
        logs = [JobLog(Path(path), record.created) for path in (record.log or ())[:1]]
        name = title(record.rule_name, dict(record.wildcards or {}), record.rule_msg)
        job = RunningJob(
            number=record.jobid,
            rule=record.rule_name,
            title=printable(" ".join(name.split())),
            output=output,
            log=logs[0] if logs else None,
            started_s=self._clock(),
            is_own=(record.rule_name in STEP and bool(logs)) or _is_collecting(record.rule_name, output),
        )
        self._run.start(job)
        if not _is_collecting(job.rule, job.output):
            self._view.started(job)

    def _finish(self, record: Any) -> None:
        now_s = self._clock()
        job = self._run.finish(record.job_id, now_s)
        if job is None:
            self._view.say(message_lines(record.getMessage()))
            return
        fact = job.log.outcome() if job.log else ""
        self._run.cached += fact.startswith(SEEN_BEFORE)
        if not _is_collecting(job.rule, job.output):
            self._view.finished(job, fact, now_s - job.started_s)

    def _progress(self, record: Any) -> None:
        self._run.done, self._run.total = record.done, record.total

    def _error(self, record: LogRecord) -> None:
        ended = end_of_command(record.getMessage())
        if ended is None:
            self._tell(record)
        else:
            self._held.append((*ended, record))

    def _fail(self, record: Any) -> None:
        job, held = self._run.running.get(record.jobid), self._held_of(record.shellcmd)
        own = [job.log] if job and job.log else []
        others = [JobLog(Path(path), 0.0) for path in (record.log or ())[len(own) :]]
        notes = [*filter(None, [record.rule_msg]), *(f"{name}: {value}" for name, value in record.aux.items())]
        failure = Failure(
            title=job.title if job else record.rule_name,
            rule=record.rule_name,
            seconds=self._clock() - job.started_s if job else None,
            end=held[1] if held else "",
            notes=notes,
            logs=[*own, *others],
            command=self._command,
        )
        self._run.fail(record.jobid, failure.is_interruption)
        self._view.failed(failure)
        if held:
            self._held.remove(held)

    def _held_of(self, command: str | None) -> tuple[str, str, LogRecord] | None:
        """The error that was held back of this shell command."""
        return next((one for one in self._held if command and command.strip() in one[0]), None)


_REACTIONS: dict[Any, Callable[[Reader, Any], None]] = {
    LogEvent.WORKFLOW_STARTED: Reader._leave_out,
    LogEvent.RESOURCES_INFO: Reader._leave_out,
    LogEvent.JOB_STARTED: Reader._leave_out,
    LogEvent.RUN_INFO: Reader._begin,
    LogEvent.JOB_INFO: Reader._start,
    LogEvent.JOB_FINISHED: Reader._finish,
    LogEvent.PROGRESS: Reader._progress,
    LogEvent.JOB_ERROR: Reader._fail,
    LogEvent.ERROR: Reader._error,
}
"""By event; whatever else there is or will be is told."""


def _is_collecting(rule: str, output: str) -> bool:
    return rule == COLLECTING_RULE and not output


def _tone(record: LogRecord) -> Tone:
    if record.levelno > WARNING:
        return Tone.ERROR
    return Tone.WARNING if record.levelno == WARNING else Tone.PLAIN
