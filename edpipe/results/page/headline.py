"""The first lines of a page: the main number, what it is worth, and the results that stand beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edpipe.results.measures.metrics import Spread, mean_and_spread
from edpipe.results.page.charts import top1_dots
from edpipe.results.page.units import percent
from edpipe.results.result_file import Result

SAME_COMPUTE = 0.02
"""Budgets that differ by less are called the same, as in a study at equal compute."""


@dataclass(frozen=True)
class Beside:
    """Another result, or a teacher."""

    name: str
    what: str
    top1: Spread
    compute: str
    """Its training, as a factor of the page's; empty of a teacher."""


def beside(result: Result, others: Sequence[Result]) -> list[Beside]:
    """The other results, then the teachers that know all classes."""
    found = [Beside(one.experiment, one.method, one.summary.top1, _factor(result, one)) for one in others]
    everything = result.seeds[0].metrics.test_samples
    for name, teacher in result.teachers.items():
        if teacher.top1 is not None and teacher.test_samples == everything:
            found.append(Beside(name, "teacher", mean_and_spread([teacher.top1]), ""))
    return found


def _factor(result: Result, other: Result) -> str:
    if not result.budget.training_macs:
        return "unknown"
    factor = other.budget.training_macs / result.budget.training_macs
    return "the same compute" if abs(factor - 1) < SAME_COMPUTE else f"{factor:.2f} times the compute"


def verdict(result: Result, others: Sequence[Result]) -> str:
    """Whether the best of the other results is better, in one sentence; empty without others."""
    if not others:
        return ""
    best = max(others, key=lambda one: one.summary.top1.mean)
    difference = (result.summary.top1.mean - best.summary.top1.mean) * 100
    words = "higher" if difference > 0 else "lower"
    apart = f"{abs(difference):.1f} points {words} than {best.experiment} ({percent(best.summary.top1.mean)})"
    if abs(difference) < 0.05:
        apart = f"as high as {best.experiment} ({percent(best.summary.top1.mean)})"
    return f"That is {apart}, the best of those beside it, which had {_factor(result, best)}. {_doubt(result, best)}"


def _doubt(result: Result, best: Result) -> str:
    mine, other = result.summary.top1, best.summary.top1
    ends = [mine.low, mine.high, other.low, other.high]
    if any(end is None for end in ends):
        return "With one seed nobody can tell whether that is chance."
    overlap = max(mine.low or 0, other.low or 0) <= min(mine.high or 0, other.high or 0)
    return "The 95 % intervals overlap." if overlap else "The 95 % intervals do not overlap."


def picture(result: Result, found: Sequence[Beside]) -> Markup:
    """All of them as dots with their 95 % intervals."""
    everything = [Beside(result.experiment, result.method, result.summary.top1, ""), *found]
    rows = [
        {
            "place": place,
            "name": one.name,
            "top1": one.top1.mean,
            "low": _inside(one.top1.low, one.top1.mean),
            "high": _inside(one.top1.high, one.top1.mean),
            "is_own": place == 0,
        }
        for place, one in enumerate(everything)
    ]
    words = "Top1: " + ", ".join(f"{one.name} {percent(one.top1.mean)}" for one in everything)
    return top1_dots(rows, words)


def _inside(end: float | None, mean: float) -> float:
    return mean if end is None else min(max(end, 0.0), 1.0)


def wilson(result: Result) -> tuple[float, float]:
    """The 95 % interval that the number of test images alone leaves for the mean top1 (Wilson)."""
    from scipy.stats import binomtest  # here, since it takes half a second

    images = result.seeds[0].metrics.test_samples
    interval = binomtest(round(result.summary.top1.mean * images), images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def break_even(result: Result) -> int | None:
    """With how many students the store of soft labels has paid off, in teacher forwards; None without teachers."""
    budget, students = result.budget, len(result.seeds)
    if not budget.teacher_forwards_online:
        return None
    return -(-budget.teacher_forwards_spent * students // budget.teacher_forwards_online)
