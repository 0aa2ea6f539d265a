"""How long jobs take on several cores: each starts as soon as its inputs are there and enough cores are free."""

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from edpipe.storage.job import Job


def makespan(jobs: Sequence[Job], seconds: Mapping[Path, float], threads: Mapping[Path, int], cores: int) -> float:
    """Seconds until the last of them is done; found in time that grows with jobs and inputs, not with their square.

    Args:
        jobs: those that run, inputs before what reads them; other inputs are there.
        seconds: of each, by its first output.
        threads: of each likewise; a job that wants more than there are gets all.
        cores: that they share.
    """
    names = [job.outputs[0] for job in jobs]
    readers, missing = _readers(jobs)
    # Of jobs that end together the first by name ends first.
    rank = {number: place for place, number in enumerate(sorted(range(len(jobs)), key=names.__getitem__))}
    ready = _Ready([min(threads[name], cores) for name in names])
    for number, count in enumerate(missing):
        if not count:
            ready.add(number)
    running: list[tuple[float, int, int]] = []
    now, free = 0.0, cores
    while running or ready:
        while (number := ready.pop(free)) is not None:
            heapq.heappush(running, (now + seconds[names[number]], rank[number], number))
            free -= ready.needed[number]
        now, _, done = heapq.heappop(running)
        free += ready.needed[done]
        for reader in readers[done]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.add(reader)
    return now


def _readers(jobs: Sequence[Job]) -> tuple[dict[int, list[int]], list[int]]:
    """Which jobs read what each makes, by their numbers; and of how many others each needs something."""
    maker = {path: number for number, job in enumerate(jobs) for path in job.outputs}
    readers: dict[int, list[int]] = defaultdict(list)
    missing = []
    for number, job in enumerate(jobs):
        makers = {maker[path] for path in job.all_inputs if path in maker}
        missing.append(len(makers))
        for found in makers:
            readers[found].append(number)
    return readers, missing


class _Ready:
    """Jobs whose inputs are there, by the cores that they need; the first of them that fits is found at once."""

    def __init__(self, needed: Sequence[int]) -> None:
        self.needed = needed
        """Cores of each job."""
        self._by_need: dict[int, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_need)

    def add(self, number: int) -> None:
        """One more."""
        heapq.heappush(self._by_need.setdefault(self.needed[number], []), number)

    def pop(self, free: int) -> int | None:
        """The first that needs no more than the free cores; None: none does."""
        fitting = [numbers for need, numbers in self._by_need.items() if need <= free]
        if not fitting:
            return None
        number = heapq.heappop(min(fitting))
        if not self._by_need[self.needed[number]]:
            del self._by_need[self.needed[number]]
        return number
