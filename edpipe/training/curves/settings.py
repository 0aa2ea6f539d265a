"""What curves the trainings of this process are to write; without torch, since every command may say it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CurveSettings:
    """How one training is watched."""

    path: Path
    """Of its curve."""
    points: int
    """Rows of the curve; 0: none is written."""
    validation_images: int
    """At most so many are shown to the network at each point; 0: none."""
    logger: str | None = None
    """One of `runtime.loggers.LOGGERS`, which is told the same."""


_settings: ContextVar[CurveSettings | None] = ContextVar("curve_settings", default=None)


def curve_settings() -> CurveSettings | None:
    """Of the training that this process runs; None: it is not watched."""
    return _settings.get()


@contextmanager
def watched(settings: CurveSettings) -> Iterator[None]:
    """Inside the block a training writes this curve."""
    before = _settings.set(settings)
    try:
        yield
    finally:
        _settings.reset(before)
