"""Lines above what changes: how a job began, ended or failed, and what Snakemake says besides."""

import re
import signal
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edpipe.errors import printable, printable_lines
from edpipe.pipeline.snakemake.terminal.job_logs import JobLog
from edpipe.pipeline.snakemake.terminal.run import Run
from edpipe.pipeline.snakemake.terminal.words import count, rounded
from edpipe.results.measures.cost import duration

DURATION_WIDTH = 10
"""Characters of "9 min 59 s"."""
UNBROKEN = "\N{NO-BREAK SPACE}"
OWN_WORDS = "edpipe: "
"""How a step begins the line that says what is wrong."""
INTERRUPTIONS = tuple(f"exit status {128 + number}" for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
"""How a step ends that was stopped: after a checkpoint."""
EXIT = re.compile(r"Command '(.*)' (returned non-zero exit status \d+|died with .*)\.\s*", re.DOTALL)
KILLED = re.compile(r"died with <Signals\.(\w+): \d+>")


class Tone(StrEnum):
    """What a line is, for those who colour it."""

    PLAIN = "plain"
    QUIET = "quiet"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Line:
    """One line for a person."""

    text: str
    tone: Tone = Tone.PLAIN
    is_whole: bool = False
    """Whether nothing of it may be cut off: a terminal then wraps it."""


def message_lines(text: str, tone: Tone = Tone.PLAIN) -> list[Line]:
    """What Snakemake or somebody else says, as it is; without what a terminal would obey."""
    return [Line(line, tone, is_whole=True) for line in printable_lines(text).splitlines()]


def ended_line(title: str, fact: str, seconds: float) -> Line:
    """A job that is done.

    >>> ended_line("evaluate digits_ed seed 0", "top1 0.9582, 3 stages", 2.4).text
    '       2 s  evaluate digits_ed seed 0: top1 0.9582, 3 stages'
    """
    return Line(f"{rounded(seconds):>{DURATION_WIDTH}}  {title}{f': {fact}' if fact else ''}")


def state_text(run: Run) -> str:
    """How far all of it is.

    >>> state_text(Run(total=48, done=14, cached=12, failed=1, interrupted=2))
    '14 of 48 jobs done, 12 from the cache, 1 failed, 2 interrupted'
    """
    words = [f"{run.done:,} of {count(max(run.total, run.done), 'job')} done"]
    if run.cached:
        words.append(f"{run.cached:,} from the cache")
    if run.failed:
        words.append(f"{run.failed:,} failed")
    if run.interrupted:
        words.append(f"{run.interrupted:,} interrupted")
    return ", ".join(words)


def end_text(run: Run, now_s: float) -> str:
    """The last line of a run.

    >>> end_text(Run(total=4, done=4), 65.0)
    '4 of 4 jobs done in 1 min 5 s'
    """
    done, *others = state_text(run).split(", ")
    return ", ".join([f"{done} in {duration(now_s - run.started_s)}", *others])


def counts_lines(stats: Mapping[str, int], width: int) -> list[Line]:
    """How many jobs there are to run, by rule, in lines of so many characters.

    >>> [line.text for line in counts_lines({"evaluate": 3, "result": 1, "total": 4}, 25)]
    ['4 jobs: 3 evaluate,', '1 result']
    """
    rules = {rule: number for rule, number in stats.items() if rule != "total"}
    of_rules = ", ".join(f"{number}{UNBROKEN}{rule}" for rule, number in rules.items())
    lines = textwrap.wrap(f"{count(sum(rules.values()), 'job')}: {of_rules}", width)
    return [Line(line.replace(UNBROKEN, " ")) for line in lines]


@dataclass(frozen=True)
class Failure:
    """A job that failed."""

    title: str
    rule: str
    seconds: float | None
    """How long it ran; None: nobody saw it start."""
    end: str
    """How its command ended; empty: unknown."""
    notes: Sequence[str]
    """What the executor says besides."""
    logs: Sequence[JobLog]
    command: str
    """That goes on."""

    @property
    def is_interruption(self) -> bool:
        """Whether somebody has stopped it."""
        return self.end in INTERRUPTIONS

    def lines(self) -> Iterator[Line]:
        """What failed, the rule, the end of each log, and what to do; less of it, if somebody has stopped the job."""
        after = f" after {duration(self.seconds)}" if self.seconds is not None else ""
        if self.is_interruption:
            yield Line(f"interrupted{after}: {self.title}", Tone.WARNING)
            yield from [Line(line, is_whole=True) for log in self.logs for line in log.end()[-1:]]
            yield Line(f"  to go on: {printable(self.command)}", is_whole=True)
            return
        yield Line(f"failed{after}: {self.title}", Tone.ERROR)
        yield Line("  " + ", ".join(filter(None, (f"rule {self.rule}", self.end))))
        for note in self.notes:
            yield from message_lines(f"  {note}")
        for log in self.logs:
            yield from _log_lines(log)
        yield Line(f"  to go on, once that is mended: {printable(self.command)}", is_whole=True)


def _log_lines(log: JobLog) -> Iterator[Line]:
    end = log.end()
    if not end:
        yield Line(f"  log {log.path}: nothing was written", is_whole=True)
        return
    yield Line(f"  log {log.path} ends with:", is_whole=True)
    for number, line in enumerate(end, start=1):
        yield Line(line, is_whole=line.startswith(OWN_WORDS) or number == len(end))


def end_of_command(text: str) -> tuple[str, str] | None:
    """The shell command, and how it ended, if this is all that an error of Snakemake's tells; None: it tells more.

    >>> end_of_command("RuleException:\\nCalledProcessError in file \\"a.smk\\", line 3:\\n"
    ...                "Command 'set -euo pipefail;  false' returned non-zero exit status 1.")
    ('set -euo pipefail;  false', 'exit status 1')
    """
    head, _, rest = text.partition("\n")
    place, _, told = rest.partition("\n")
    found = EXIT.fullmatch(told)
    if head != "RuleException:" or not place.startswith("CalledProcessError in file ") or found is None:
        return None
    return found[1], KILLED.sub(_killed_by, found[2].removeprefix("returned non-zero "))


def _killed_by(found: re.Match[str]) -> str:
    hint = ", as the system does when memory runs out" if found[1] == "SIGKILL" else ""
    return f"killed by {found[1]}{hint}"
