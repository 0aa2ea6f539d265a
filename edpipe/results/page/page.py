"""The page of one experiment: what stands in its tables and charts, and its HTML."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import CorruptFileError, MismatchError, remake
from edpipe.results.measures.metrics import Spread, mean_and_spread
from edpipe.results.page import charts
from edpipe.results.page.page_code import generator
from edpipe.results.page.sample_sheet import Strip, strips
from edpipe.results.page.units import grouped, macs, percent, points, short, size
from edpipe.results.page.words import classes_arrive, loss_text, method_text
from edpipe.results.result_file import Result, StageOutcome, TeacherOutcome, format_seconds, read_result
from edpipe.storage.code.units import step_unit
from edpipe.storage.code.versions import token

TEMPLATE = Path(__file__).with_name("page.html.jinja")
NUM_HARDEST = 3


@dataclass(frozen=True)
class Row:
    """One stage of the accuracy matrix, averaged over seeds; None where the subset was not known yet."""

    stage: str
    cells: tuple[Spread | None, ...]


@dataclass(frozen=True)
class Chart:
    """One subset's top1 over the stages: a line for each seed, and their mean."""

    subset: str
    seeds: tuple[charts.Line, ...]
    mean: charts.Line


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


@dataclass(frozen=True)
class SampleImages:
    """Where images to be shown are."""

    dataset_path: Path
    partition_path: Path


def drawn(result_path: Path, images: SampleImages | None = None) -> str:
    """The page of a result in a file; raises what `report` does."""
    result = read_result(result_path)
    _check_lengths(result_path, result)
    return page(result, _strips(result_path, result, images) if images else ())


def _strips(result_path: Path, result: Result, images: SampleImages) -> tuple[Strip, ...]:
    dataset = open_dataset(images.dataset_path)
    if dataset.digest != result.inputs.dataset:
        raise MismatchError(
            f"{result_path}: was measured on dataset {result.inputs.dataset}, but {images.dataset_path} holds "
            f"{dataset.digest}; {remake(result_path, act='make the result again')}"
        )
    return strips(dataset, read_partition(images.partition_path, dataset))


def page(result: Result, found: Sequence[Strip] = ()) -> str:
    """The page as text, with these images of each subset; equal arguments and equal code give equal pages."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "points": points, "grouped": grouped}
    environment.filters |= {"short": short, "macs": macs, "size": size}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    rows = matrix(result)
    scale = charts.scale_of([cell.mean for row in rows for cell in row.cells if cell] + _all_top1(result))
    classes = class_rows(result)
    every_stage = [stage for seed in result.seeds for stage in seed.stages]
    return template.render(
        result=result,
        generator=generator(token(step_unit("report"))),
        own_time=format_seconds(result.cost, False),
        shared_time=format_seconds(result.cost, True),
        method_text=method_text(result.method, result.setup.stages),
        classes_arrive=classes_arrive(result.setup.stages),
        losses=[loss_text(plan) for plan in result.setup.stages],
        strips=found,
        rows=rows,
        scale=scale,
        charts=charts_of(result, rows, scale),
        positions=charts.stage_positions(len(rows)),
        stages=list(zip(result.setup.stages, result.seeds[0].stages, strict=True)),
        final_losses=_final_losses(result),
        teachers=teacher_rows(result),
        classes=classes,
        hardest=_hardest(classes),
        versions=_versions(result),
        training_code=versions_text(stage.code for stage in every_stage),
        measuring_code=versions_text(seed.code for seed in result.seeds),
        gathering_code=versions_text([result.code]),
        soft_labels=list(dict.fromkeys(use for stage in every_stage for use in stage.soft_labels)),
    )


def _check_lengths(path: Path, result: Result) -> None:
    num_classes, num_stages = len(result.data.class_names), len(result.setup.stages)
    subsets = {subset.name for subset in result.data.subsets}
    for seed in result.seeds:
        fits = len(seed.metrics.top1_by_class) == len(result.data.test_samples_by_class) == num_classes
        fits = fits and [s.name for s in seed.stages] == [plan.name for plan in result.setup.stages]
        if not fits or any(set(stage.top1_by_subset) != subsets for stage in seed.stages):
            raise CorruptFileError(
                f"{path}: seed {seed.seed} does not fit {num_classes} classes, {num_stages} stages and subsets "
                f"{sorted(subsets)}; {remake(path)}"
            )


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


def _all_top1(result: Result) -> list[float]:
    every = [stage.top1_by_subset.values() for seed in result.seeds for stage in seed.stages]
    return [top1 for values in every for top1 in values if top1 is not None] or [result.summary.top1.mean]


def charts_of(result: Result, rows: Sequence[Row], scale: charts.Scale) -> tuple[Chart, ...]:
    """A panel for each subset, all on one scale."""
    return tuple(
        Chart(
            subset.name,
            tuple(
                charts.line_of(f"seed {seed.seed}", _column(seed.stages, subset.name), scale) for seed in result.seeds
            ),
            charts.line_of("mean", [cell.mean if (cell := row.cells[i]) else None for row in rows], scale),
        )
        for i, subset in enumerate(result.data.subsets)
    )


def _column(stages: Sequence[StageOutcome], subset: str) -> list[float | None]:
    return [stage.top1_by_subset[subset] for stage in stages]


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


def _hardest(classes: Sequence[ClassRow]) -> list[ClassRow]:
    measured = [row for row in classes if row.mean is not None]
    return sorted(measured, key=lambda row: (row.mean, row.class_id))[:NUM_HARDEST]


def versions_text(codes: Iterable[Mapping[str, str]]) -> str:
    """The versions of code by unit, each once.

    >>> versions_text([{"steps.result": "1"}, {"steps.result": "1"}])
    'steps.result 1'
    """
    return ", ".join(dict.fromkeys(f"{unit} {version}" for code in codes for unit, version in code.items()))


def _final_losses(result: Result) -> list[Spread]:
    by_stage = zip(*(seed.stages for seed in result.seeds), strict=True)
    return [mean_and_spread([stage.final_loss for stage in stages]) for stages in by_stage]


def _versions(result: Result) -> list[tuple[str, str]]:
    """Of each library every version that took part, from training to gathering."""
    parts = [stage.versions for seed in result.seeds for stage in seed.stages]
    parts += [seed.versions for seed in result.seeds] + [result.versions]
    names = sorted({name for part in parts for name in part})
    return [(name, ", ".join(sorted({part[name] for part in parts if name in part}))) for name in names]
