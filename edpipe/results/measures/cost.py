"""What the making of artifacts took, summed over everything that an experiment needed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Figures:
    """What the making of something took, interrupted attempts included."""

    seconds: float
    """By the clock."""
    cpu_seconds: float
    """Of the process and of those that it started."""
    images: int
    """Training images that a network was fitted to, repeats counted."""
    teacher_forwards: int
    """Images that went through a teacher which was asked, not fitted."""
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int | None
    """None: no GPU of torch's was used."""


@dataclass(frozen=True)
class CostPart:
    """One artifact's share of the cost."""

    step: str
    figures: Figures | None
    """None: nobody knows, as of an artifact that was made elsewhere."""
    is_shared: bool = False
    """Whether other experiments use the artifact as well."""


def sum_costs(parts: Sequence[CostPart]) -> dict[str, Any]:
    """The sum over all parts, and over those of each step; null where nothing is known of any of them."""
    steps = dict.fromkeys(part.step for part in parts)
    shared = [part for part in parts if part.is_shared]
    own = [part for part in parts if not part.is_shared]
    return {
        **_sum(parts),
        "shared_seconds": _sum(shared)["seconds"],
        "own_seconds": _sum(own)["seconds"],
        "steps": {step: _sum_of_step(step, parts) for step in steps},
    }


def _sum_of_step(step: str, parts: Sequence[CostPart]) -> dict[str, Any]:
    own = [part for part in parts if part.step == step]
    return {"is_shared": own[0].is_shared, **_sum(own)}


def _sum(parts: Sequence[CostPart]) -> dict[str, Any]:
    known = [part.figures for part in parts if part.figures is not None]
    counts = {"artifacts": len(parts), "with_figures": len(known)}
    if not known:
        return {**dict.fromkeys(field.name for field in fields(Figures)), **counts}
    return {**asdict(together(known)), **counts}


def together(known: Sequence[Figures]) -> Figures:
    """Times and counts added up, peaks as the highest of them."""
    gpu_peaks = [one.peak_gpu_memory_bytes for one in known if one.peak_gpu_memory_bytes is not None]
    return Figures(
        seconds=round(sum(one.seconds for one in known), 3),
        cpu_seconds=round(sum(one.cpu_seconds for one in known), 3),
        images=sum(one.images for one in known),
        teacher_forwards=sum(one.teacher_forwards for one in known),
        peak_memory_bytes=max(one.peak_memory_bytes for one in known),
        peak_gpu_memory_bytes=max(gpu_peaks, default=None),
    )


def duration(seconds: float) -> str:
    """Seconds in the units of a person.

    >>> duration(0.2), duration(47.4), duration(750.0), duration(9000.0)
    ('1 s', '47 s', '12 min 30 s', '2 h 30 min')
    """
    whole = max(round(seconds), 1)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
