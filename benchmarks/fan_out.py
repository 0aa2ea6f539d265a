"""Simulation of many equal jobs over workers that fail and are slow: what is lost, by the interval of checkpoints.

    python benchmarks/fan_out.py                                     the tables of docs/scale.md
    python benchmarks/fan_out.py --jobs 100 --hours 10 --workers 8 --mtbf-hours 24 --cost 5 --interval 60 600 3600

Each worker fails at random times, on average once in `--mtbf-hours` of work; its job then goes back to the front of the
queue and resumes from its last checkpoint on the next free worker, and the worker is back after `--restart` seconds. A
checkpoint is written after each interval of work, and takes `--cost` seconds; what is being written when a worker fails
does not count. A slow job takes `--slow-factor` times as long. All draws hang on seed, job and attempt alone, so that
two intervals meet the same failures. `young_s` is Young's approximation of the best interval (J. W. Young, "A first
order approximation to the optimum checkpoint interval", CACM 17(9), 1974).
"""

import argparse
import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field, replace
from statistics import mean

SEEDS = range(5)


@dataclass(frozen=True)
class FanOut:
    """Equal jobs, workers, and what goes wrong; all times in seconds."""

    num_jobs: int
    job_s: float
    """Work of one job."""
    workers: int
    mtbf_s: float = math.inf
    """Mean time between failures of one worker, while it works."""
    interval_s: float = math.inf
    """Of work, after which a checkpoint is written."""
    cost_s: float = 0.0
    """To write one."""
    restart_s: float = 0.0
    """Until a worker that failed takes jobs again."""
    slow_share: float = 0.0
    slow_factor: float = 1.0
    seed: int = 0


@dataclass
class Outcome:
    """What became of the jobs, in seconds summed over workers, but for the makespan."""

    makespan_s: float = 0.0
    lost_s: float = 0.0
    """Time of work, and of writing, after the last checkpoint before each failure."""
    writing_s: float = 0.0
    """Checkpoints that were written wholly."""
    failures: int = 0
    starts: list[int] = field(default_factory=list)
    """How often each job was started."""


def young_s(cost_s: float, mtbf_s: float) -> float:
    """The best interval of checkpoints, to first order: √(2 · cost · mean time between failures).

    >>> round(young_s(5.0, 86_400.0))
    930
    """
    return math.sqrt(2 * cost_s * mtbf_s)


def simulate(case: FanOut) -> Outcome:
    """Goes from event to event until all jobs are done.

    Raises:
        ValueError: no job, worker or time of work, or an interval that is not above 0.
    """
    if min(case.num_jobs, case.workers, case.job_s, case.mtbf_s, case.interval_s) <= 0:
        raise ValueError(f"jobs, workers and times must be above 0, got {case}")
    outcome = Outcome(starts=[0] * case.num_jobs)
    left_s = [case.job_s * _slowness(case, job) for job in range(case.num_jobs)]
    queue, free = deque(range(case.num_jobs)), [(0.0, worker) for worker in range(case.workers)]
    running: list[tuple[float, int, int, bool]] = []
    now = 0.0
    while queue or running:
        # A worker may be back later than the next event, which may put a job into the queue's front.
        if queue and free and (not running or free[0][0] <= running[0][0]):
            back_s, worker = heapq.heappop(free)
            job = queue.popleft()
            taken_s, is_done = _attempt(case, job, left_s, outcome)
            # Now: a job that was put back is not there before its failure, however long the worker has waited.
            heapq.heappush(running, (max(back_s, now) + taken_s, worker, job, is_done))
            continue
        now, worker, job, is_done = heapq.heappop(running)
        heapq.heappush(free, (now if is_done else now + case.restart_s, worker))
        if is_done:
            outcome.makespan_s = max(outcome.makespan_s, now)
        else:
            queue.appendleft(job)
    return outcome


def _attempt(case: FanOut, job: int, left_s: list[float], outcome: Outcome) -> tuple[float, bool]:
    """Seconds that a job runs this time, and whether it ends; books what is kept and lost."""
    fails_after_s = _failure(case, job, outcome.starts[job])
    outcome.starts[job] += 1
    # No checkpoint after the last piece of work: the artifact itself is written then.
    num_pieces = math.ceil(left_s[job] / case.interval_s) if case.interval_s < math.inf else 1
    needed_s = left_s[job] + (num_pieces - 1) * case.cost_s
    if needed_s <= fails_after_s:
        outcome.writing_s += (num_pieces - 1) * case.cost_s
        return needed_s, True
    piece_s = case.interval_s + case.cost_s
    kept = min(math.floor(fails_after_s / piece_s), num_pieces - 1) if piece_s < math.inf else 0
    kept_s = kept * case.interval_s if kept else 0.0
    left_s[job] -= kept_s
    outcome.failures += 1
    outcome.writing_s += kept * case.cost_s
    outcome.lost_s += fails_after_s - kept_s - kept * case.cost_s
    return fails_after_s, False


def _failure(case: FanOut, job: int, attempt: int) -> float:
    """When the worker fails, in seconds after the start; exponential, as nothing is known of its age."""
    drawn = random.Random(f"{case.seed}/{job}/{attempt}").random()
    return -math.log(1 - drawn) * case.mtbf_s if case.mtbf_s < math.inf else math.inf


def _slowness(case: FanOut, job: int) -> float:
    return case.slow_factor if random.Random(f"{case.seed}/{job}/slow").random() < case.slow_share else 1.0


def table(case: FanOut, intervals_s: list[float]) -> list[str]:
    """Lines of Markdown: a row for each interval, means over seeds."""
    lines = ["| interval | failures | lost | writing | both, of the work | makespan |", "|---|---|---|---|---|---|"]
    for interval_s in intervals_s:
        found = [simulate(replace(case, interval_s=interval_s, seed=seed)) for seed in SEEDS]
        lost_s, writing_s = mean(one.lost_s for one in found), mean(one.writing_s for one in found)
        share = (lost_s + writing_s) / (case.num_jobs * case.job_s)
        failures, makespan_s = mean(one.failures for one in found), mean(one.makespan_s for one in found)
        lines.append(
            f"| {_named(interval_s)} | {failures:.0f} | {lost_s / 3600:.1f} h | {writing_s / 3600:.1f} h | "
            f"{share:.1%} | {makespan_s / 3600:.1f} h |"
        )
    return lines


def _named(seconds: float) -> str:
    return "none" if seconds == math.inf else f"{seconds:,.0f} s"


SCALE = FanOut(
    num_jobs=100, job_s=36_000, workers=8, mtbf_s=86_400, cost_s=5, restart_s=300, slow_share=0.05, slow_factor=1.5
)
"""The case of docs/scale.md: 100 students of 10 hours on 8 GPUs that fail once a day each."""
SCALE_INTERVALS_S = [60.0, 250.0, round(young_s(SCALE.cost_s, SCALE.mtbf_s)), 3_600.0, math.inf]


def main() -> None:
    """Prints the table of one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=SCALE.num_jobs)
    parser.add_argument("--hours", type=float, default=SCALE.job_s / 3600, help="of one job")
    parser.add_argument("--workers", type=int, default=SCALE.workers)
    parser.add_argument("--mtbf-hours", type=float, default=SCALE.mtbf_s / 3600, help="inf: no worker fails")
    parser.add_argument("--cost", type=float, default=SCALE.cost_s, help="seconds to write a checkpoint")
    parser.add_argument("--restart", type=float, default=SCALE.restart_s, help="seconds until a worker is back")
    parser.add_argument("--slow-share", type=float, default=SCALE.slow_share)
    parser.add_argument("--slow-factor", type=float, default=SCALE.slow_factor)
    parser.add_argument("--interval", type=float, nargs="+", default=SCALE_INTERVALS_S, help="seconds; inf: none")
    options = parser.parse_args()
    case = FanOut(
        options.jobs, options.hours * 3600, options.workers, options.mtbf_hours * 3600, cost_s=options.cost,
        restart_s=options.restart, slow_share=options.slow_share, slow_factor=options.slow_factor,
    )  # fmt: skip
    print("\n".join(table(case, options.interval)))


if __name__ == "__main__":
    main()
