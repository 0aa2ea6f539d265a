"""Where the parts of a report's pictures go, in SVG units; pure arithmetic, the template draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

NARROWEST_SCALE = 0.1
"""A scale of top1 spans at least this much, so that noise does not look like a difference."""
FAINTEST, STRONGEST = 0.06, 0.6
"""Opacities of the heatmap's colour; text stays readable on both, on light and on dark ground."""
LEFT, RIGHT, TOP, BOTTOM = 40.0, 248.0, 12.0, 138.0
"""Edges of a panel's drawing area; outside stand its labels."""


@dataclass(frozen=True)
class Scale:
    """An axis of top1 and the values marked on it."""

    low: float
    high: float

    @property
    def ticks(self) -> tuple[float, ...]:
        """Multiples of 1, 2, 5, 10, 20 or 50 points inside the scale, at most six."""
        step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (self.high - self.low) / s <= 5.5)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return tuple(round((first + i) * step, 2) for i in range(count))

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def opacity(self, value: float) -> float:
        """Of a heatmap's cell; higher values are stronger."""
        return round(FAINTEST + (STRONGEST - FAINTEST) * self.share(value), 3)

    def height(self, value: float) -> float:
        """Vertical position inside a panel."""
        return round(BOTTOM - (BOTTOM - TOP) * self.share(value), 1)


def scale_of(values: Sequence[float]) -> Scale:
    """The smallest scale in whole points, inside 0 to 1, that holds all values and is wide enough to be fair.

    >>> scale_of([0.93, 0.964])
    Scale(low=0.88, high=0.98)
    """
    low, high = math.floor(min(values) * 100), math.ceil(max(values) * 100)
    lacking = max(0, round(NARROWEST_SCALE * 100) - (high - low))
    high = min(100, high + lacking // 4)
    low = max(0, min(low, high - round(NARROWEST_SCALE * 100)))
    return Scale(low / 100, max(high, low + round(NARROWEST_SCALE * 100)) / 100)


@dataclass(frozen=True)
class Dot:
    """One value of top1 in a panel."""

    x: float
    y: float
    top1: float


@dataclass(frozen=True)
class Line:
    """One seed, or the mean over seeds, over the stages that knew the subset."""

    label: str
    dots: tuple[Dot, ...]

    @property
    def points(self) -> str:
        """For a polyline."""
        return " ".join(f"{dot.x:g},{dot.y:g}" for dot in self.dots)


def stage_positions(num_stages: int) -> tuple[float, ...]:
    """Horizontal positions of the stages in a panel; a single one stands in the middle."""
    if num_stages == 1:
        return ((LEFT + RIGHT) / 2,)
    inset = 18.0
    step = (RIGHT - LEFT - 2 * inset) / (num_stages - 1)
    return tuple(round(LEFT + inset + step * k, 1) for k in range(num_stages))


def line_of(label: str, values: Sequence[float | None], scale: Scale) -> Line:
    """Values by stage, None where the subset was not known."""
    xs = stage_positions(len(values))
    return Line(label, tuple(Dot(x, scale.height(v), v) for x, v in zip(xs, values, strict=True) if v is not None))
