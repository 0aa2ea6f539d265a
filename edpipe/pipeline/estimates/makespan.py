"""How long jobs take on several cores: each starts as soon as its inputs are there and enough cores are free."""

import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path

from edpipe.storage.job import Job


def makespan(jobs: Sequence[Job], seconds: Mapping[Path, float], threads: Mapping[Path, int], cores: int) -> float:
    """Seconds until the last of them is done.

    Args:
        jobs: those that run, inputs before what reads them; other inputs are there.
        seconds: of each, by its first output.
        threads: of each likewise; a job that wants more than there are gets all.
        cores: that they share.
    """
    makes = {path: job.outputs[0] for job in jobs for path in job.outputs}
    waits = {job.outputs[0]: {makes[path] for path in job.all_inputs if path in makes} for job in jobs}
    waiting = [job.outputs[0] for job in jobs]
    running: list[tuple[float, Path, int]] = []
    now, free = 0.0, cores
    while waiting or running:
        for name in [name for name in waiting if not waits[name]]:
            needed = min(threads[name], cores)
            if needed <= free:
                waiting.remove(name)
                heapq.heappush(running, (now + seconds[name], name, needed))
                free -= needed
        now, done, used = heapq.heappop(running)
        free += used
        for inputs in waits.values():
            inputs.discard(done)
    return now
