"""How long a job is expected to take, as a value that costs nothing to import."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Expected:
    """An expectation of one job."""

    seconds: float
    is_measured: bool
    """Whether this very job ran before; else it is in proportion to other jobs of its step only."""
