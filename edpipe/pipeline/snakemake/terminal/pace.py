"""When a run will be over, from what its jobs took until now."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from edpipe.pipeline.estimates.expected import Expected
from edpipe.pipeline.snakemake.terminal.run import Run, RunningJob

QUICK = ("partition_dataset", "partition_by_confusion", "result", "report", "study", "all")
"""Rules that take no time to speak of."""
QUICK_S = 1.5


@dataclass(frozen=True)
class TimeLeft:
    """An estimate."""

    seconds: float
    is_whole: bool
    """Whether it counts every job; else it is a lower bound."""


@dataclass(frozen=True)
class _Sample:
    rule: str
    seconds: float
    expected: Expected | None


class Pace:
    """How long jobs of each rule take here."""

    def __init__(self, run: Run, expected: Mapping[str, Expected], now_s: float) -> None:
        self._expected = expected
        self._samples = defaultdict[str, list[_Sample]](list)
        for job in run.ended:
            self._add(job.rule, job.output, job.seconds)
        for job in run.running.values():
            left_s = job.left_s(now_s)
            if left_s is not None:
                self._add(job.rule, job.output, now_s - job.started_s + left_s)

    @property
    def is_known(self) -> bool:
        """Whether anything is known of this machine."""
        return bool(self._samples) or any(one.is_measured for one in self._expected.values())

    def _add(self, rule: str, output: str, seconds: float) -> None:
        self._samples[rule].append(_Sample(rule, seconds, self._expected.get(output)))

    def seconds(self, rule: str, output: str) -> float | None:
        """How long a job takes from its start to its end; None: nobody knows."""
        if rule in QUICK:
            return QUICK_S
        expected = self._expected.get(output)
        if expected is None:
            return _mean([sample.seconds for sample in self._samples[rule]])
        if expected.is_measured:
            return expected.seconds
        scale = _scale(self._samples[rule]) or _scale([s for of_rule in self._samples.values() for s in of_rule])
        return None if scale is None else expected.seconds * scale


def time_left(run: Run, expected: Mapping[str, Expected], now_s: float) -> TimeLeft | None:
    """How long the run will still take; None: nothing is known yet.

    The work that is left is divided by the number of jobs that ran at once until now.
    """
    pace = Pace(run, expected, now_s)
    if not pace.is_known:
        return None
    running = [_left_of(job, pace, now_s) for job in run.running.values()]
    waiting = [pace.seconds(rule, output) for output, rule in run.waiting.items()]
    known = [seconds for seconds in [*running, *waiting] if seconds is not None]
    if not known:
        return None
    longest = max((seconds for seconds in running if seconds is not None), default=0.0)
    return TimeLeft(max(sum(known) / _lanes(run, now_s), longest), len(known) == len(running) + len(waiting))


def _left_of(job: RunningJob, pace: Pace, now_s: float) -> float | None:
    said = job.left_s(now_s)
    if said is not None:
        return said
    whole = pace.seconds(job.rule, job.output)
    return None if whole is None else max(whole - (now_s - job.started_s), 0.0)


def _lanes(run: Run, now_s: float) -> float:
    """How many jobs run at once: on the average until now, or just now if that is more."""
    busy_s = sum(job.seconds for job in run.ended) + sum(now_s - job.started_s for job in run.running.values())
    return max(1.0, busy_s / max(now_s - run.started_s, 1e-9), float(len(run.running)))


def _scale(samples: list[_Sample]) -> float | None:
    """Seconds taken for each second expected, of jobs that had not run before."""
    pairs = [(s.seconds, s.expected.seconds) for s in samples if s.expected and not s.expected.is_measured]
    expected_s = sum(expected for _, expected in pairs)
    return sum(taken for taken, _ in pairs) / expected_s if expected_s else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
