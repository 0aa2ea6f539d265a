"""The state of one run: which jobs run, how far they are, and what has ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edpipe.pipeline.estimates.expected import Expected
from edpipe.pipeline.snakemake.terminal.job_logs import JobLog, Look
from edpipe.runtime.progress_line import ProgressLine

COLLECTING_RULE = "all"
"""It makes nothing: its inputs are what is wanted."""


@dataclass(frozen=True)
class RunFacts:
    """What Snakemake's log does not say of a run, but its graph."""

    cached: int
    """Jobs whose outputs are there and current, so that they need not run."""
    waiting: Sequence[tuple[str, str]]
    """Rule and first output of each job that is to run."""
    expect: Callable[[], Mapping[str, Expected]]
    """How long jobs will take, by first output; takes a moment, and more is known once data sets are packed."""


@dataclass
class RunningJob:
    """A job between its start and its end."""

    number: int
    """Snakemake's; of this run alone."""
    rule: str
    title: str
    output: str
    """The first one; empty for a job without."""
    log: JobLog | None
    started_s: float
    """Of the same clock as all other times here."""
    is_own: bool = True
    """Whether the rule is edpipe's; others may write to the terminal themselves."""
    progress: ProgressLine | None = None
    seen_s: float = 0.0
    """When the progress was read."""
    last_line: str = ""

    def see(self, look: Look, now_s: float) -> None:
        """Takes in what its log says now."""
        self.last_line = look.last
        if look.progress is not None:
            self.progress, self.seen_s = look.progress, now_s

    def left_s(self, now_s: float) -> float | None:
        """How long it will still take, as it said last; None: it has not said."""
        if self.progress is None or not self.progress.done:
            return None
        return max(self.progress.left_s - (now_s - self.seen_s), 0.0)


@dataclass(frozen=True)
class EndedJob:
    """What a job took."""

    rule: str
    output: str
    seconds: float


@dataclass
class Run:
    """All of it."""

    started_s: float = 0.0
    total: int = 0
    done: int = 0
    cached: int = 0
    failed: int = 0
    interrupted: int = 0
    running: dict[int, RunningJob] = field(default_factory=dict)
    ended: list[EndedJob] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    """Jobs that have not started: their rules, by first output."""

    @property
    def has_started(self) -> bool:
        """Whether any job has."""
        return bool(self.running or self.ended or self.failed or self.interrupted)

    def learn(self, facts: RunFacts) -> None:
        """Takes in what the graph says."""
        self.cached += facts.cached
        begun = {job.output for job in self.running.values()} | {job.output for job in self.ended}
        self.waiting = {output: rule for rule, output in facts.waiting if output and output not in begun}

    def start(self, job: RunningJob) -> None:
        """A job begins."""
        self.running[job.number] = job
        self.waiting.pop(job.output, None)

    def finish(self, number: int, now_s: float) -> RunningJob | None:
        """A job has made what it should; None: its start was not seen."""
        self.done += 1
        job = self.running.pop(number, None)
        if job is not None:
            self.ended.append(EndedJob(job.rule, job.output, now_s - job.started_s))
        return job

    def fail(self, number: int, is_interruption: bool) -> RunningJob | None:
        """A job has failed, or was stopped; it may be tried again."""
        self.interrupted += is_interruption
        self.failed += not is_interruption
        job = self.running.pop(number, None)
        if job is not None and job.output:
            self.waiting[job.output] = job.rule
        return job
