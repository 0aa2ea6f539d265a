"""`edpipe verify soft-labels FILE` and `edpipe plan soft-labels EXPERIMENT`: stored rows checked, and priced."""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from edpipe.cli.arguments import CommandParser
from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.datasets.partition import Partition
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import ParamsError
from edpipe.params.load import load_params
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.plans.plan import StagePlan, TeacherUse
from edpipe.params.schema import Params, entry
from edpipe.params.soft_labels import SoftLabelKnobs
from edpipe.params.student import StudentKnobs
from edpipe.pipeline.jobs import paths, teachers
from edpipe.soft_labels.difficulty import num_easiest
from edpipe.soft_labels.encoding.costs import (
    PLAIN,
    PrecisionCost,
    ViewCost,
    candidates,
    measure,
    store_bytes,
    view_cost,
)
from edpipe.soft_labels.file.format import feature_columns
from edpipe.training.schedule import ImageMacs, num_images
from edpipe.views.spec import count_views

VIEW_COUNTS = (1, 8, 32)
"""What is shown beside the number that is chosen."""
TRIED_ROWS = 512
"""Rows that a teacher is asked for, to measure errors and speed."""


def verify(words: Sequence[str]) -> None:
    """Asks the teacher again about rows drawn from one file, and prints how far they are apart.

    Raises:
        ParamsError: not the path of a file of soft labels of this project.
        CorruptFileError, MismatchError, VerificationError: the file is not what it must be.
    """
    parser = _parser("verify", verify)
    parser.add_argument("file", type=Path, help="artifacts/soft_labels/…/views_A-B.h5")
    parser.add_argument("--rows", type=_whole_from(1), default=1000, help="drawn from the file (default 1000)")
    parser.add_argument("--seed", type=_whole_from(0), default=0, help="of the draw (default 0)")
    options = parser.parse_args(list(words))
    params = load_params()
    job = teachers.verify_soft_labels(params, *_names(options.file))
    from edpipe.soft_labels.teacher_outputs import TeacherFiles
    from edpipe.soft_labels.verification import verify_file

    files = TeacherFiles.of_job(job.arguments, job.inputs)
    print(f"{options.file}: {verify_file(files, options.file, options.rows, options.seed).say()}")


def _parser(word: str, command: Callable[[Sequence[str]], None]) -> CommandParser:
    text = (command.__doc__ or "").partition("\n")[0]
    return CommandParser(prog=f"edpipe {word} soft-labels", description=text)


def _whole_from(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return int(text)

    return parse


def _names(path: Path) -> tuple[str, str, str]:
    """Dataset, teacher and subset of a file's path."""
    try:
        # Links are not followed: a file may be one to an object of DVC's cache.
        parts = Path(os.path.abspath(path)).relative_to(Path.cwd()).parts
    except ValueError:
        parts = ()
    if len(parts) != 6 or path.suffix != ".h5" or Path(*parts[:2]) != paths.ARTIFACTS / "soft_labels":
        raise ParamsError(
            f"{path}: not a file of soft labels of this project; name one such as "
            f"{paths.soft_labels_path('DATASET', 'TEACHER', 'SUBSET', '0-7')}"
        )
    return parts[2], parts[3], parts[4]


@dataclass(frozen=True)
class _Trial:
    """What a teacher said of a few rows, and how fast."""

    logits: np.ndarray
    sample_ids: np.ndarray
    feature_bytes: int
    """Of a row's attention maps and hint, where they are to be stored."""
    rows_per_s: float


def plan(words: Sequence[str]) -> None:
    """Prints what each precision and number of views would cost an experiment, and when the store has paid off.

    Raises:
        ParamsError: no such experiment, or one without teachers.
        CorruptFileError: the dataset is not there yet.
    """
    parser = _parser("plan", plan)
    parser.add_argument("experiment", help="a name in params.yaml")
    options = parser.parse_args(list(words))
    params = load_params()
    knobs = entry(params, "experiments", options.experiment)
    plans = curriculum(params, options.experiment)
    uses = tuple(dict.fromkeys(use for stage in plans for use in stage.teachers))
    if not uses:
        raise ParamsError(f"experiments.{options.experiment}: method '{knobs.method.name}' has no teacher to store")
    _print(params, options.experiment, plans, uses)


def _print(params: Params, experiment: str, plans: tuple[StagePlan, ...], uses: tuple[TeacherUse, ...]) -> None:
    knobs: SoftLabelKnobs = params.soft_labels[params.experiments[experiment].dataset]
    dataset = open_dataset(paths.dataset_path(params.experiments[experiment].dataset))
    counts = [_counts(params, dataset, use) for use in uses]
    trial = _try_first(params, experiment, uses)
    temperature = plans[0].temperature
    try:
        chosen, costs = _precision_costs(min(classes for _, classes in counts), knobs, trial, temperature)
    except ValueError as error:
        raise ParamsError(f"soft_labels.{dataset.name}.storage: {error}") from error
    images = _images_with_teacher(params, experiment, plans, dataset)
    current = count_views(knobs.student_views)
    feature_bytes = trial.feature_bytes if trial else 0
    sizes = [store_bytes(cost.storage, counts, current, feature_bytes) for cost in costs]
    # An exhaustive space has no more views than it has.
    views = sorted({current, *(n for n in VIEW_COUNTS if n < current or not knobs.space.exhaustive)})
    console = Console()
    console.print(_precision_table(costs, chosen, sizes, feature_bytes, temperature))
    view_costs = [view_cost(n, chosen.storage, counts, images, feature_bytes) for n in views]
    console.print(_view_table(view_costs, current, trial))
    console.print(
        f"{experiment}: {len(uses)} teacher{'s' if len(uses) > 1 else ''}, {sum(n for n, _ in counts):,} images in all,"
        f" {images:,} seen with a teacher by each student"
        + ("" if trial else "; errors, minutes, maps and hints are known once a teacher is there: `snakemake` makes it")
    )


def _images_with_teacher(params: Params, experiment: str, plans: tuple[StagePlan, ...], dataset: Dataset) -> int:
    """Over all stages of one student, once for each teacher that an image is shown to; specialists share the images."""
    path = paths.partition_path(dataset.name, params.experiments[experiment].partition)
    partition = read_partition(path, dataset)
    student = params.students[params.experiments[experiment].student]
    return sum(
        len({use.teacher for use in stage.teachers})
        * num_images(stage.budget, _num_taught(dataset, partition, stage), _macs(stage, student, dataset))
        for stage in plans
        if stage.teachers
    )


def _macs(stage: StagePlan, student: StudentKnobs, dataset: Dataset) -> ImageMacs:
    """Counts where a budget is one of compute; the network is built for no other."""
    if stage.budget.compute is None:
        return ImageMacs()
    from edpipe.models.students.stage_macs import stage_and_whole_macs

    return ImageMacs(*stage_and_whole_macs(stage, student, dataset.channels, dataset.image_size, dataset.num_classes))


def _num_taught(dataset: Dataset, partition: Partition, stage: StagePlan) -> int:
    class_ids, share = partition.classes_of(stage.taught), min(stage.easiest, stage.hardest)
    return sum(num_easiest(len(dataset.sample_ids("train", (class_id,))), share) for class_id in class_ids)


def _counts(params: Params, dataset: Dataset, use: TeacherUse) -> tuple[int, int]:
    """Samples and classes of one teacher."""
    name = params.teachers[use.teacher].partition
    class_ids = tuple(range(dataset.num_classes))
    if name is not None:
        class_ids = read_partition(paths.partition_path(dataset.name, name), dataset).classes_of((use.subset,))
    return len(dataset.sample_ids("train", class_ids)), len(class_ids)


def _try_first(params: Params, experiment: str, uses: tuple[TeacherUse, ...]) -> _Trial | None:
    """Some rows of the first teacher that is there."""
    dataset = params.experiments[experiment].dataset
    for use in uses:
        if paths.teacher_path(dataset, use.teacher, use.subset).exists():
            return measure_teacher(params, dataset, use, TRIED_ROWS)
    return None


def measure_teacher(params: Params, dataset_name: str, use: TeacherUse, num_rows: int) -> _Trial:
    """What the teacher says of so many rows at most, spread over its samples and views."""
    from edpipe.runtime.device import prepare_device
    from edpipe.soft_labels.teacher_outputs import TeacherFiles, load_teacher, teacher_forward
    from edpipe.views.batches import ViewBatches
    from edpipe.views.spec import ViewSpec

    job = teachers.verify_soft_labels(params, dataset_name, use.teacher, use.subset)
    dataset = open_dataset(job.inputs["dataset"][0])
    teacher = load_teacher(TeacherFiles.of_job(job.arguments, job.inputs), dataset)
    spec = ViewSpec.from_knobs(params.soft_labels[dataset_name].student_views, dataset.image_size)
    pool = dataset.sample_ids("train", teacher.class_ids)
    ids = pool[np.linspace(0, len(pool) - 1, min(num_rows, len(pool))).astype(np.int64)]
    views = np.arange(len(ids), dtype=np.int64) % spec.num_views
    storage, batches = params.soft_labels[dataset_name].storage, ViewBatches(dataset, spec, prepare_device(), (pool,))
    with teacher_forward(teacher, batches, storage.attention, storage.hint) as forward_pass:
        forward_pass.outputs(ids[:8], views[:8])  # the first call prepares kernels
        started_s = time.perf_counter()
        logits, features = forward_pass.outputs(ids, views)
        elapsed_s = time.perf_counter() - started_s
    columns = feature_columns({name: values.shape[1:] for name, values in features.items()})
    feature_bytes = sum(column.row_bytes for column in columns.values())
    return _Trial(logits, ids, feature_bytes, len(ids) / elapsed_s)


def _precision_costs(
    num_classes: int, knobs: SoftLabelKnobs, trial: _Trial | None, temperature: float
) -> tuple[PrecisionCost, list[PrecisionCost]]:
    """The chosen precision, and all to compare it with."""
    costs = list(candidates(num_classes, knobs.storage))
    if trial:
        costs = [_measured(cost, trial, temperature) for cost in costs]
    plain = knobs.storage.model_copy(update=PLAIN)
    return next(cost for cost in costs if cost.storage == plain), costs


def _measured(cost: PrecisionCost, trial: _Trial, temperature: float) -> PrecisionCost:
    try:
        return measure(cost, trial.logits, trial.sample_ids, temperature)
    except ValueError:  # these logits are too large for it: a dump would be refused
        return cost


def _precision_table(
    costs: list[PrecisionCost], chosen: PrecisionCost, sizes: list[int], feature_bytes: int, temperature: float
) -> Table:
    table = Table(
        "precision",
        "bytes/row",
        "size",
        "mean KL",
        "largest KL",
        "certified",
        box=box.SIMPLE,
        title_justify="left",
        title=f"How each row may be stored; KL in nats at temperature {temperature:g}, of {TRIED_ROWS} rows: "
        "what is certified for a whole file is a few times larger",
    )
    for cost, size in zip(costs, sizes, strict=True):
        mark = " ←" if cost is chosen else ""
        errors = ("–" if value is None else f"{value:.2g}" for value in (cost.mean_kl, cost.max_kl, cost.bound))
        table.add_row(cost.name + mark, str(cost.row_bytes + feature_bytes), _size(size), *errors)
    return table


def _view_table(costs: Sequence[ViewCost], current: int, trial: _Trial | None) -> Table:
    table = Table(
        "views",
        "size",
        "teacher forwards",
        "minutes",
        "pays off from",
        box=box.SIMPLE,
        title_justify="left",
        title="How many views may be stored",
    )
    for cost in costs:
        mark = " ←" if cost.num_views == current else ""
        minutes = f"{cost.forwards / trial.rows_per_s / 60:.1f}" if trial else "–"
        pays = f"{cost.break_even} student" + ("s" if cost.break_even > 1 else "")
        table.add_row(f"{cost.num_views}{mark}", _size(cost.num_bytes), f"{cost.forwards:,}", minutes, pays)
    return table


def _size(num_bytes: int) -> str:
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
