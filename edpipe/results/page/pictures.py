"""The charts of one experiment's page, each with a sentence that says what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edpipe.results.page.answers import Answers
from edpipe.results.page.charts import Cell, HeatMap, matrix_text, reliability, scale_of, subset_panel
from edpipe.results.page.tables import Row, all_top1
from edpipe.results.page.units import percent
from edpipe.results.page.vega import csv_link
from edpipe.results.result_file import Result

MOST_CLASSES = 30
"""Of a confusion matrix that can be read; pairs of classes are listed for more."""
FAINTEST_SHARE = 0.005
"""Cells of a confusion matrix below this have no number."""


@dataclass(frozen=True)
class Panel:
    """One subset's chart."""

    subset: str
    picture: Markup


@dataclass(frozen=True)
class MatrixPictures:
    """Accuracy after each stage."""

    heat_map: Markup
    panels: tuple[Panel, ...]
    scale: tuple[float, float]
    data: Markup


def matrix_pictures(result: Result, rows: Sequence[Row]) -> MatrixPictures:
    """The accuracy matrix as a heat map, and a panel for each subset."""
    scale = scale_of([cell.mean for row in rows for cell in row.cells if cell] + all_top1(result))
    subsets = [subset.name for subset in result.data.subsets]
    panels = tuple(Panel(name, _panel(result, rows, column, scale)) for column, name in enumerate(subsets))
    table = [
        {"stage": stage.name, "seed": seed.seed, "subset": name, "top1": stage.top1_by_subset[name]}
        for seed in result.seeds
        for stage in seed.stages
        for name in subsets
    ]
    return MatrixPictures(_heat_map(rows, subsets, scale), panels, scale, csv_link("accuracy_matrix", table))


def _heat_map(rows: Sequence[Row], subsets: Sequence[str], scale: tuple[float, float]) -> Markup:
    cells = tuple(
        Cell(r, c, cell and cell.mean, matrix_text(cell.mean, cell.std) if cell else "not yet")
        for r, row in enumerate(rows)
        for c, cell in enumerate(row.cells)
    )
    words = " ".join(f"After {row.stage}: " + "; ".join(_said(row, subsets)) + "." for row in rows)
    names = tuple(row.stage for row in rows)
    found = HeatMap(names, tuple(subsets), cells, (92, 46), "after stage", "top1 on subset")
    return found.svg(f"Heat map of top1, stages by subsets. {words}", *scale)


def _said(row: Row, subsets: Sequence[str]) -> list[str]:
    return [
        f"{name} {percent(cell.mean) if cell else 'not known yet'}"
        for name, cell in zip(subsets, row.cells, strict=True)
    ]


def _panel(result: Result, rows: Sequence[Row], column: int, scale: tuple[float, float]) -> Markup:
    name = result.data.subsets[column].name
    values = [
        {"stage": number, "seed": seed.seed, "top1": top1}
        for seed in result.seeds
        for number, stage in enumerate(seed.stages)
        if (top1 := stage.top1_by_subset[name]) is not None
    ]
    means = ", ".join(percent(cell.mean) for row in rows if (cell := row.cells[column]))
    return subset_panel(values, [row.stage for row in rows], scale, f"Top1 on {name} after each stage: {means}")


def reliability_picture(answers: Answers) -> tuple[Markup, Markup]:
    """The reliability diagram and its data."""
    bins = answers.bins()
    said = "; ".join(f"{percent(one['confidence'], 0)} sure, {percent(one['top1'], 0)} right" for one in bins)
    return reliability(bins, f"Reliability diagram: {said}"), csv_link("reliability", bins)


def confusion_picture(answers: Answers, names: Sequence[str]) -> Markup | None:
    """The confusion matrix as a heat map; None where the classes are too many to be read, or nothing was asked."""
    if not 0 < len(names) <= MOST_CLASSES or len(answers.labels) == 0:
        return None
    shares = answers.confusion
    cells = tuple(_confusion_cell(r, c, float(shares[r, c])) for r in range(len(names)) for c in range(len(names)))
    found = HeatMap(tuple(names), tuple(names), cells, (36, 26), "label", "class that is named", turned=True)
    words = f"Confusion matrix of {len(names)} classes, in percent of each label's test images"
    # The diagonal holds nearly all: half of it is already the strongest colour, so that errors can be seen.
    return found.svg(words, 0.0, 0.5)


def _confusion_cell(row: int, column: int, share: float) -> Cell:
    is_empty = share != share
    text = "" if is_empty or share < FAINTEST_SHARE else f"{share * 100:.0f}"
    return Cell(row, column, None if is_empty else share, text)


def difference_picture(answers: Answers, names: Sequence[str]) -> Markup | None:
    """Student minus teacher, in points, where a heat map can be read and there is such a teacher."""
    teacher = answers.teacher_confusion
    if teacher is None or not 0 < len(names) <= MOST_CLASSES or len(answers.labels) == 0:
        return None
    apart = answers.confusion - teacher
    cells = tuple(_difference_cell(r, c, float(apart[r, c])) for r in range(len(names)) for c in range(len(names)))
    found = HeatMap(
        tuple(names), tuple(names), cells, (36, 26), "label", "class that is named", is_signed=True, turned=True
    )
    return found.svg(f"Confusion matrix of the student minus that of teacher {answers.teacher}, in points", 0.0, 0.1)


def _difference_cell(row: int, column: int, apart: float) -> Cell:
    is_empty = apart != apart
    text = "" if is_empty or abs(apart) < FAINTEST_SHARE else f"{apart * 100:+.0f}".replace("-", "−")
    return Cell(row, column, None if is_empty else apart, text)
