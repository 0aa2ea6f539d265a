"""The page of one experiment: what stands in its tables and charts, and its HTML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import CorruptFileError, MismatchError, remake
from edpipe.results.measures.cost import duration
from edpipe.results.page import curves as learning
from edpipe.results.page import headline, pictures, tables
from edpipe.results.page.answers import Answers, read_answers
from edpipe.results.page.curves import Curves
from edpipe.results.page.files import PageFiles
from edpipe.results.page.gallery import galleries
from edpipe.results.page.page_code import generator, named_results
from edpipe.results.page.sample_sheet import strips
from edpipe.results.page.units import grouped, macs, percent, points, short, size
from edpipe.results.page.vega import csv_link
from edpipe.results.page.words import classes_arrive, loss_text, method_text
from edpipe.results.result_file import Result, format_seconds, read_result
from edpipe.storage.code.units import step_unit
from edpipe.storage.code.versions import token

FOLDER = Path(__file__).parent
MOST_CONFUSIONS = 10
"""Pairs of classes in the list of those that are confused."""
MOST_SAVED = 2000
"""Pairs in the file beside it: a page of a thousand classes stays below 200 kB of them."""


def drawn(files: PageFiles, curves: Curves | None = None) -> str:
    """The page of a result in a file; raises what `report` does."""
    result = read_result(files.result)
    _check_lengths(files.result, result)
    others = [_comparable(path, read_result(path), files.result, result) for path in files.beside]
    return page(result, others, curves or {}, _measured(files, result))


def _comparable(path: Path, other: Result, result_path: Path, result: Result) -> Result:
    if other.inputs.dataset != result.inputs.dataset:
        raise MismatchError(
            f"{path}: was measured on dataset {other.inputs.dataset}, {result_path} on {result.inputs.dataset}; "
            f"{remake(path, act='make the older of them again')}"
        )
    return other


def _measured(files: PageFiles, result: Result) -> dict[str, Any]:
    """What is counted over single images, and the images; nothing where they are not given."""
    nothing = {"strips": (), "galleries": None, "reliability": None, "confusion": None, "confusions": []}
    nothing |= {"difference": None, "beside_teacher": {}, "teacher": "", "confusion_data": None}
    if files.dataset is None or files.partition is None:
        return nothing
    dataset = open_dataset(files.dataset)
    if dataset.digest != result.inputs.dataset:
        raise MismatchError(
            f"{files.result}: was measured on dataset {result.inputs.dataset}, but {files.dataset} holds "
            f"{dataset.digest}; {remake(files.result, act='make the result again')}"
        )
    partition = read_partition(files.partition, dataset)
    if partition.digest != result.inputs.partition:
        raise MismatchError(
            f"{files.result}: was measured on partition {result.inputs.partition}, but {files.partition} is "
            f"{partition.digest}; {remake(files.result, act='make the result again')}"
        )
    found = nothing | {"strips": strips(dataset, partition)}
    answers = read_answers(result, dataset, partition, files)
    return found | (_of_answers(answers, dataset) if len(answers.labels) else {})


def _of_answers(answers: Answers, dataset: Dataset) -> dict[str, Any]:
    names, confusions = dataset.class_names, answers.confusions(MOST_CONFUSIONS)
    every_pair = [
        {"label": names[one.label], "named": names[one.named], "share": one.share, "teacher_share": one.teacher_share}
        for one in answers.confusions(MOST_SAVED)
    ]
    return {
        "galleries": galleries(answers, dataset),
        "reliability": pictures.reliability_picture(answers),
        "confusion": pictures.confusion_picture(answers, names),
        "confusions": confusions,
        "confusion_data": csv_link("confusions", every_pair) if every_pair else None,
        "difference": pictures.difference_picture(answers, names),
        "beside_teacher": answers.beside_teacher(),
        "teacher": answers.teacher,
    }


def page(result: Result, others: Sequence[Result], curves: Curves, measured: Mapping[str, Any]) -> str:
    """The page as text; equal arguments and equal code give equal pages."""
    rows, classes = tables.matrix(result), tables.class_rows(result)
    every_stage = [stage for seed in result.seeds for stage in seed.stages]
    beside, curve_rows = headline.beside(result, others), learning.fitting(curves, result)
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            result=result,
            generator=generator(token(step_unit("report"))),
            named_results=named_results([one.file_digest for one in (result, *others)]),
            own_time=format_seconds(result.cost, False),
            shared_time=format_seconds(result.cost, True),
            method_text=method_text(result.method, result.setup.stages),
            classes_arrive=classes_arrive(result.setup.stages),
            losses=[loss_text(plan) for plan in result.setup.stages],
            rows=rows,
            matrix=pictures.matrix_pictures(result, rows),
            beside=beside,
            beside_picture=headline.picture(result, beside) if beside else None,
            verdict=headline.verdict(result, others),
            wilson=headline.wilson(result),
            break_even=headline.break_even(result),
            curve_pictures=learning.pictures(curve_rows, result),
            curve_link=learning.link(curve_rows),
            stages=list(zip(result.setup.stages, result.seeds[0].stages, strict=True)),
            final_losses=tables.final_losses(result),
            flow=tables.flow(result),
            teachers=tables.teacher_rows(result),
            classes=classes,
            hardest=tables.hardest(classes),
            versions=tables.versions(result),
            training_code=tables.versions_text(stage.code for stage in every_stage),
            measuring_code=tables.versions_text(seed.code for seed in result.seeds),
            gathering_code=tables.versions_text([result.code]),
            soft_labels=list(dict.fromkeys(use for stage in every_stage for use in stage.soft_labels)),
            **measured,
        )
    )


def environment() -> jinja2.Environment:
    """What templates of pages are read with."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"percent": percent, "points": points, "grouped": grouped}
    found.filters |= {"short": short, "macs": macs, "size": size, "duration": duration}
    return found


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
