"""`edpipe plan soft-labels EXPERIMENT`: what precisions and numbers of views cost, and when a store has paid off."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from edpipe.cli.arguments import CommandParser, whole_from
from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import ParamsError
from edpipe.params.load import load_params
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.plans.plan import StagePlan, TeacherUse
from edpipe.params.schema import Params, entry
from edpipe.params.soft_labels import SoftLabelKnobs, StorageKnobs
from edpipe.params.student import StudentKnobs
from edpipe.pipeline.estimates.job_costs import TRAINING_SHARE_OF_VIEWS, network_use
from edpipe.pipeline.estimates.network_speed import NetworkSpeeds, NetworkUse
from edpipe.pipeline.estimates.summary import size
from edpipe.pipeline.estimates.training_pool import PackedPool, TrainingPool, training_pool
from edpipe.pipeline.jobs import paths, teachers
from edpipe.results.measures.cost import duration
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


@dataclass(frozen=True)
class Trial:
    """What a teacher said of a few rows, and how fast."""

    logits: np.ndarray
    sample_ids: np.ndarray
    feature_bytes: int
    """Of a row's attention maps and hint, where they are to be stored."""
    rows_per_s: float


@dataclass(frozen=True)
class _Rates:
    """How fast each teacher is asked; views are made in this time too."""

    per_s: tuple[float, ...]
    """Images, for each teacher in order."""
    origin: str

    def seconds(self, counts: Sequence[tuple[int, int]], num_views: int = 1) -> float:
        """To ask each teacher about so many views of its own images."""
        return sum(num_views * samples / rate for (samples, _), rate in zip(counts, self.per_s, strict=True))


@dataclass(frozen=True)
class _Case:
    """An experiment, and what is known of its images and teachers."""

    params: Params
    name: str
    plans: tuple[StagePlan, ...]
    uses: tuple[TeacherUse, ...]
    pool: TrainingPool

    @property
    def dataset(self) -> str:
        return self.params.experiments[self.name].dataset

    @property
    def knobs(self) -> SoftLabelKnobs:
        return self.params.soft_labels[self.dataset]

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Samples and classes of each teacher."""
        return [self.pool.counts(self.params.teachers[use.teacher].partition, use.subset) for use in self.uses]


def plan(words: Sequence[str]) -> None:
    """Prints what each precision and number of views would cost an experiment, and when the store has paid off.

    Raises:
        ParamsError: no such experiment, one without teachers, or more views than there are.
        CorruptFileError: the dataset is not there yet, and nobody published how many images it has.
    """
    options = plan_parser().parse_args(list(words))
    case = _case(options.experiment)
    trial = _try_first(case)
    _print(case, trial, _rates(case, trial, options.images_per_second), options.views)


def plan_parser() -> CommandParser:
    """The command's words."""
    text = (plan.__doc__ or "").partition("\n")[0]
    parser = CommandParser(prog="edpipe plan soft-labels", description=text)
    parser.add_argument("experiment", help="a name in params.yaml or in the examples")
    parser.add_argument(
        "--images-per-second",
        type=_rate,
        metavar="RATE",
        help="how fast a teacher is asked; else the teacher is tried, or its network with random weights",
    )
    parser.add_argument(
        "--views",
        type=whole_from(1),
        action="append",
        default=[],
        metavar="N",
        help="price N views too; may be repeated",
    )
    return parser


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def _case(name: str) -> _Case:
    params = _params_with(name)
    knobs, plans = entry(params, "experiments", name), curriculum(params, name)
    uses = tuple(dict.fromkeys(use for stage in plans for use in stage.teachers))
    if not uses:
        raise ParamsError(f"experiments.{name}: method '{knobs.method.name}' has no teacher to store")
    of_teachers = [params.teachers[use.teacher].partition for use in uses]
    partitions = dict.fromkeys([knobs.partition, *(found for found in of_teachers if found is not None)])
    return _Case(params, name, plans, uses, training_pool(params, knobs.dataset, list(partitions)))


def _params_with(experiment: str) -> Params:
    """params.yaml; or, if only an example has the experiment, that."""
    from edpipe.cli.commands.add import read_examples

    params = load_params()
    if experiment in params.experiments:
        return params
    found = [example.params for example in read_examples() if experiment in example.params.experiments]
    return found[0] if found else params


def _rates(case: _Case, trial: Trial | None, given: float | None) -> _Rates | None:
    """As given; else of the trial; else of networks with random weights, tried for a second or remembered."""
    if given is not None:
        return _Rates((given,) * len(case.uses), "as given")
    if trial is not None:
        return _Rates((trial.rows_per_s,) * len(case.uses), "measured here, of one of these teachers")
    speeds = NetworkSpeeds()
    found = [
        speeds.of(_network_use(case, use, classes)) for use, (_, classes) in zip(case.uses, case.counts, strict=True)
    ]
    known = tuple(speed.forward / TRAINING_SHARE_OF_VIEWS for speed in found if speed is not None)
    device = " and ".join(dict.fromkeys(speed.device for speed in found if speed is not None))
    origin = f"measured here, of networks with random weights ({device})"
    return _Rates(known, origin) if len(known) == len(found) else None


def _network_use(case: _Case, use: TeacherUse, num_classes: int) -> NetworkUse:
    knobs = case.params.teachers[use.teacher]
    recipe = case.params.recipes[knobs.fitting.recipe]
    return network_use(case.params, case.dataset, knobs.network.model, num_classes, recipe, knobs.network.image_size)


def _print(case: _Case, trial: Trial | None, rates: _Rates | None, more_views: Sequence[int]) -> None:
    knobs, counts, temperature = case.knobs, case.counts, case.plans[0].temperature
    try:
        chosen, costs = _precision_costs(min(classes for _, classes in counts), knobs, trial, temperature)
    except ValueError as error:
        raise ParamsError(f"soft_labels.{case.dataset}.storage: {error}") from error
    images, current = _images_with_teacher(case), count_views(knobs.student_views)
    feature_bytes = trial.feature_bytes if trial else 0
    sizes = [store_bytes(cost.storage, counts, current, feature_bytes) for cost in costs]
    views = [view_cost(n, chosen.storage, counts, images, feature_bytes) for n in _view_counts(case, more_views)]
    console = Console()
    console.print(_precision_table(costs, chosen, sizes, feature_bytes, temperature))
    console.print(_view_table(views, current, rates, counts))
    for line in _lines(case, trial, rates, images):
        console.print(line, highlight=False)


def _view_counts(case: _Case, more: Sequence[int]) -> list[int]:
    current, is_exhaustive = count_views(case.knobs.student_views), case.knobs.space.exhaustive
    if is_exhaustive and max(more, default=0) > current:
        raise ParamsError(
            f"soft_labels.{case.dataset}.space: has {current} views and no more, got --views {max(more)}; "
            "use a smaller number of views"
        )
    # An exhaustive space has no more views than it has.
    return sorted({current, *more, *(n for n in VIEW_COUNTS if n < current or not is_exhaustive)})


def _lines(case: _Case, trial: Trial | None, rates: _Rates | None, images: int) -> list[str]:
    """What was counted and measured, below the tables."""
    total, num = sum(samples for samples, _ in case.counts), len(case.uses)
    unknown = "; errors, maps and hints are known once a teacher is there: `snakemake` makes it"
    lines = [
        f"{case.name}: {num} teacher{'s' if num > 1 else ''}, {total:,} images in all, "
        f"{images:,} seen with a teacher by each student{'' if trial else unknown}"
    ]
    if not isinstance(case.pool, PackedPool):
        lines.append(
            f"{case.dataset} is not packed and partitioned here: numbers of images are expected, evenly over classes"
        )
    if rates:
        speeds = ", ".join(dict.fromkeys(_speed(rate) for rate in rates.per_s))
        online = duration(images * rates.seconds(case.counts) / total)
        lines.append(f"a teacher takes {speeds} images/s ({rates.origin}); asked online, {online} for each student")
    return lines


def _speed(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _images_with_teacher(case: _Case) -> int:
    """Over all stages of one student, once for each teacher that an image is shown to; specialists share the images."""
    return sum(
        len({use.teacher for use in stage.teachers})
        * num_images(stage.budget, _num_taught(case, stage), _macs(case, stage))
        for stage in case.plans
        if stage.teachers
    )


def _macs(case: _Case, stage: StagePlan) -> ImageMacs:
    """Counts where a budget is one of compute; the network is built for no other."""
    if stage.budget.compute is None:
        return ImageMacs()
    from edpipe.models.students.stage_macs import stage_and_whole_macs

    student: StudentKnobs = case.params.students[case.params.experiments[case.name].student]
    knobs = case.params.datasets[case.dataset]
    return ImageMacs(*stage_and_whole_macs(stage, student, knobs.channels, knobs.image_size, case.pool.num_classes))


def _num_taught(case: _Case, stage: StagePlan) -> int:
    partition = case.params.experiments[case.name].partition
    return case.pool.num_taught(partition, stage.taught, min(stage.easiest, stage.hardest))


def _try_first(case: _Case) -> Trial | None:
    """Some rows of the first teacher that is there."""
    if not paths.dataset_path(case.dataset).exists():
        return None
    for use in case.uses:
        if paths.teacher_path(case.dataset, use.teacher, use.subset).exists():
            return measure_teacher(case.params, case.dataset, use, TRIED_ROWS)
    return None


def measure_teacher(params: Params, dataset_name: str, use: TeacherUse, num_rows: int) -> Trial:
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
    return Trial(logits, ids, feature_bytes, len(ids) / elapsed_s)


def _precision_costs(
    num_classes: int, knobs: SoftLabelKnobs, trial: Trial | None, temperature: float
) -> tuple[PrecisionCost, list[PrecisionCost]]:
    """The chosen precision, and all to compare it with."""
    costs = list(candidates(num_classes, knobs.storage))
    if trial:
        costs = [_measured(cost, trial, temperature) for cost in costs]
    plain: StorageKnobs = knobs.storage.model_copy(update=PLAIN)
    return next(cost for cost in costs if cost.storage == plain), costs


def _measured(cost: PrecisionCost, trial: Trial, temperature: float) -> PrecisionCost:
    try:
        return measure(cost, trial.logits, trial.sample_ids, temperature)
    except ValueError:  # these logits are too large for it: a dump would be refused
        return cost


def _precision_table(
    costs: list[PrecisionCost], chosen: PrecisionCost, sizes: list[int], feature_bytes: int, temperature: float
) -> Table:
    title = "How each row may be stored"
    if any(cost.mean_kl is not None for cost in costs):
        title += (
            f"; KL in nats at temperature {temperature:g}, of {TRIED_ROWS} rows: "
            "what is certified for a whole file is a few times larger"
        )
    headers = ("precision", "bytes/row", "size", "mean KL", "largest KL", "certified")
    table = Table(*headers, box=box.SIMPLE, title_justify="left", title=title)
    for cost, num_bytes in zip(costs, sizes, strict=True):
        mark = " ←" if cost is chosen else ""
        errors = ("–" if value is None else f"{value:.2g}" for value in (cost.mean_kl, cost.max_kl, cost.bound))
        table.add_row(cost.name + mark, str(cost.row_bytes + feature_bytes), size(num_bytes), *errors)
    return table


def _view_table(
    costs: Sequence[ViewCost], current: int, rates: _Rates | None, counts: Sequence[tuple[int, int]]
) -> Table:
    title = (
        "How many views may be stored; N views cost as many forwards as N epochs with a teacher that is asked online"
    )
    headers = ("views", "size", "teacher forwards", "time", "pays off from")
    table = Table(*headers, box=box.SIMPLE, title_justify="left", title=title)
    for cost in costs:
        mark = " ←" if cost.num_views == current else ""
        taken = duration(rates.seconds(counts, cost.num_views)) if rates else "–"
        pays = f"{cost.break_even} student" + ("s" if cost.break_even > 1 else "")
        views = f"{cost.num_views}{mark}"
        table.add_row(views, size(cost.num_bytes), f"{cost.forwards:,}", taken, pays)
    return table
