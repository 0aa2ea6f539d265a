"""What stands in the tables of a page, from its result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edpipe.results.measures.metrics import Spread, mean_and_spread
from edpipe.results.result_file import Result, StepCost, TeacherOutcome

NUM_HARDEST = 3
ORDER = ("pack", "partition", "train", "fetch", "dump", "verify", "record", "run", "evaluate_teacher", "evaluate")
"""How names of steps begin, in the order in which they run."""


@dataclass(frozen=True)
class Row:
    """One stage of the accuracy matrix, averaged over seeds; None where the subset was not known yet."""

    stage: str
    cells: tuple[Spread | None, ...]


@dataclass(frozen=True)
class ClassRow:
    """One class; low and high are the worst and best seed. None: the test split has no image of it."""

    class_id: int
    name: str
    subset: str
    test_samples: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class TeacherRow:
    """One teacher, and the last student's agreement with it over seeds; None: no test image of its classes."""

    name: str
    measured: TeacherOutcome
    agreement: Spread | None


def matrix(result: Result) -> tuple[Row, ...]:
    """Top1 after each stage on each subset, over seeds; subsets in the order of teaching."""
    names = [subset.name for subset in result.data.subsets]
    return tuple(
        Row(stages[0].name, tuple(_cell([stage.top1_by_subset[name] for stage in stages]) for name in names))
        for stages in zip(*(seed.stages for seed in result.seeds), strict=True)
    )


def _cell(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return mean_and_spread(known) if known else None


def all_top1(result: Result) -> list[float]:
    """Every number of the accuracy matrix, of all seeds."""
    every = [stage.top1_by_subset.values() for seed in result.seeds for stage in seed.stages]
    return [top1 for values in every for top1 in values if top1 is not None] or [result.summary.top1.mean]


def class_rows(result: Result) -> tuple[ClassRow, ...]:
    """Top1 of every class, over seeds, in order of class number."""
    subset_of = {c: subset.name for subset in result.data.subsets for c in subset.class_ids}
    rows = []
    for c, name in enumerate(result.data.class_names):
        top1 = [value for seed in result.seeds if (value := seed.metrics.top1_by_class[c]) is not None]
        numbers = (sum(top1) / len(top1), min(top1), max(top1)) if top1 else (None, None, None)
        rows.append(ClassRow(c, name, subset_of.get(c, ""), result.data.test_samples_by_class[c], *numbers))
    return tuple(rows)


def teacher_rows(result: Result) -> tuple[TeacherRow, ...]:
    """The teachers, in the order in which stages learn from them."""
    uses = [f"{use.teacher}/{use.subset}" for plan in result.setup.stages for use in plan.teachers]
    names = sorted(result.teachers, key=lambda name: uses.index(name) if name in uses else len(uses))
    return tuple(TeacherRow(name, result.teachers[name], result.summary.agreement.get(name)) for name in names)


def hardest(classes: Sequence[ClassRow]) -> list[ClassRow]:
    """The classes of the lowest top1."""
    measured = [row for row in classes if row.mean is not None]
    return sorted(measured, key=lambda row: (row.mean, row.class_id))[:NUM_HARDEST]


def versions_text(codes: Iterable[Mapping[str, str]]) -> str:
    """The versions of code by unit, each once.

    >>> versions_text([{"steps.result": "1"}, {"steps.result": "1"}])
    'steps.result 1'
    """
    return ", ".join(dict.fromkeys(f"{unit} {version}" for code in codes for unit, version in code.items()))


def final_losses(result: Result) -> list[Spread]:
    """Of each stage, over seeds."""
    by_stage = zip(*(seed.stages for seed in result.seeds), strict=True)
    return [mean_and_spread([stage.final_loss for stage in stages]) for stages in by_stage]


def versions(result: Result) -> list[tuple[str, str]]:
    """Of each library every version that took part, from training to gathering."""
    parts = [stage.versions for seed in result.seeds for stage in seed.stages]
    parts += [seed.versions for seed in result.seeds] + [result.versions]
    names = sorted({name for part in parts for name in part})
    return [(name, ", ".join(sorted({part[name] for part in parts if name in part}))) for name in names]


def flow(result: Result) -> list[tuple[str, StepCost]]:
    """What each step took, in the order in which steps run."""

    def place(name: str) -> int:
        return next((number for number, start in enumerate(ORDER) if name.startswith(start)), len(ORDER))

    return sorted(result.cost.steps.items(), key=lambda item: (place(item[0]), item[0]))
