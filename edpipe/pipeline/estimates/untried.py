"""What jobs would take, said at once: no network is tried and no folder is listed, so that it may be less exact."""

from collections.abc import Sequence
from pathlib import Path

from edpipe.params.schema import Params
from edpipe.pipeline.estimates.expected import Expected
from edpipe.pipeline.estimates.image_counts import image_counts_at_once
from edpipe.pipeline.estimates.job_costs import JobCosts
from edpipe.pipeline.estimates.network_speed import NetworkSpeed, NetworkSpeeds, NetworkUse
from edpipe.pipeline.estimates.summary import seconds_taken
from edpipe.storage.job import Job

ANY_NETWORK = NetworkSpeed(training=1000.0, forward=3000.0, parameters=0, device="", feature_stages=())
"""Stands for networks that were not measured here: jobs then differ by their images alone, at an unknown scale.

Of the three parts of training a block, one is its forward pass.
"""


class RememberedSpeeds(NetworkSpeeds):
    """Speeds that were measured here before, for instance by `edpipe plan`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_complete = True
        """Whether each network that was asked for is among them."""

    def of(self, use: NetworkUse) -> NetworkSpeed | None:
        """None for another network."""
        speed = self.remembered(use)
        self.is_complete &= speed is not None
        return speed


class EqualSpeeds(NetworkSpeeds):
    """As if all networks were equally fast."""

    def of(self, use: NetworkUse) -> NetworkSpeed | None:
        """Always the same."""
        return ANY_NETWORK


def expected(params: Params, jobs: Sequence[Job]) -> dict[Path, Expected]:
    """By first output; jobs of data sets whose number of images is not known yet are left out."""
    taken = {job.outputs[0]: seconds_taken(job) for job in jobs}
    new = [job for job in jobs if taken[job.outputs[0]] is None]
    remembered = RememberedSpeeds()
    found = _estimated(params, new, remembered)
    if not remembered.is_complete:  # measured and unmeasured networks could not be compared
        found = _estimated(params, new, EqualSpeeds())
    measured = {path: Expected(seconds, True) for path, seconds in taken.items() if seconds is not None}
    return measured | found


def _estimated(params: Params, jobs: Sequence[Job], speeds: NetworkSpeeds) -> dict[Path, Expected]:
    costs = JobCosts(params, speeds, image_counts_at_once)
    found = {job.outputs[0]: costs.of(job) for job in jobs}
    return {path: Expected(cost.seconds, False) for path, cost in found.items() if cost is not None}
