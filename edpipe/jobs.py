"""The jobs that follow from params.yaml: for each, its command, knobs, inputs, outputs and keys.

Snakemake's rules, dvc.yaml's lists and the command line all ask here, so that no two of them can disagree.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from edpipe import layout
from edpipe.errors import ParamsError
from edpipe.methods import ce, ctkd, ed, kd, panel, teskd
from edpipe.methods.curriculum import StagePlan, TeacherUse
from edpipe.params.base import canonical_json
from edpipe.params.experiment import CeKnobs, CtkdKnobs, ExperimentKnobs, OneTeacherKnobs, PanelKnobs, TeskdKnobs
from edpipe.params.lineage import check_dataset, last_stage
from edpipe.params.partition import ALL_CLASSES, PartitionKnobs
from edpipe.params.schema import ONLY_STAGE, Params, check_scratch, entry, one_of
from edpipe.params.soft_labels import SoftLabelKnobs, StudentViews, unlimited_views
from edpipe.params.teacher import TeacherKnobs
from edpipe.storage.records import record_path
from edpipe.views import ViewRange, count_views, view_ranges

TRAINING_STEPS = ("train_teacher", "fetch_teacher", "run_stage")
"""Those that several processes may run together."""
NETWORK_STEPS = (*TRAINING_STEPS, "dump_soft_labels", "verify_soft_labels", "record_trajectory", "evaluate")
SMALL_SIDE = 64
"""Pixels; images up to this size are small."""


@dataclass(frozen=True)
class Job:
    """One act of the pipeline."""

    step: str
    """Rule, module and subcommand."""
    arguments: dict[str, str | int]
    """Options of the subcommand; they name the job."""
    knobs: dict[str, object]
    """All values that the step is given, defaults filled in; a change of any re-runs the job."""
    inputs: dict[str, tuple[Path, ...]]
    """Artifacts that are read, by role."""
    outputs: tuple[Path, ...]
    """Files that are made; the artifact first, its record next."""
    keys: tuple[str, ...] = ()
    """Where in params.yaml the knobs stand, as DVC names them."""

    @property
    def command(self) -> str:
        """What Snakemake and DVC run; nothing in it depends on the machine."""
        return " ".join(["edpipe", self.step, *(f"--{name} {value}" for name, value in self.arguments.items())])

    @property
    def knobs_text(self) -> str:
        """The knobs as canonical JSON."""
        return canonical_json(self.knobs)

    @property
    def all_inputs(self) -> tuple[Path, ...]:
        """Inputs of every role."""
        return tuple(path for paths in self.inputs.values() for path in paths)


def _with_record(path: Path) -> tuple[Path, ...]:
    return path, record_path(path)


def pack_dataset(params: Params, dataset: str) -> Job:
    """Packs one data set into one file."""
    return Job(
        step="pack_dataset",
        arguments={"dataset": dataset},
        knobs={"dataset": entry(params, "datasets", dataset)},
        inputs={},
        outputs=_with_record(layout.dataset_path(dataset)),
        keys=(f"datasets.{dataset}",),
    )


def partition_dataset(params: Params, dataset: str, partition: str) -> Job:
    """Deals the classes of one data set out to subsets; the step's name says whether a teacher is asked."""
    knobs: PartitionKnobs = entry(params, "partitions", partition)
    if knobs.confusion is not None:
        return _partition_by_confusion(params, dataset, partition, knobs.confusion.teacher)
    return Job(
        step="partition_dataset",
        arguments={"dataset": dataset, "partition": partition},
        knobs={"partition": knobs},
        inputs={"dataset": (layout.dataset_path(dataset),)},
        outputs=(layout.partition_path(dataset, partition),),
        keys=(f"partitions.{partition}",),
    )


def _partition_by_confusion(params: Params, dataset: str, partition: str, teacher: str) -> Job:
    soft_labels: SoftLabelKnobs = entry(params, "soft_labels", dataset)
    return Job(
        step="partition_by_confusion",
        arguments={"dataset": dataset, "partition": partition},
        knobs={"partition": params.partitions[partition], "space": soft_labels.space},
        inputs={
            "dataset": (layout.dataset_path(dataset),),
            "indexes": (layout.soft_labels_index_path(dataset, teacher, ALL_CLASSES),),
            "soft_labels": _soft_label_paths(params, dataset, teacher, ALL_CLASSES)[::2],
            "teachers": (record_path(layout.teacher_path(dataset, teacher, ALL_CLASSES)),),
        },
        outputs=(layout.partition_path(dataset, partition),),
        keys=(f"partitions.{partition}", f"soft_labels.{dataset}.space"),
    )


def partition_teachers(knobs: PartitionKnobs) -> tuple[tuple[str, str], ...]:
    """Teacher and subset whose soft labels a partition is made from: one of all classes, or none."""
    return () if knobs.confusion is None else ((knobs.confusion.teacher, ALL_CLASSES),)


def _subset_inputs(params: Params, dataset: str, teacher: str, subset: str) -> dict[str, tuple[Path, ...]]:
    """Dataset and, for a specialist, the partition that names its classes."""
    partition = entry(params, "teachers", teacher).partition
    if partition is None:
        one_of(f"subset of teacher '{teacher}'", subset, (ALL_CLASSES,))
        return {"dataset": (layout.dataset_path(dataset),), "partition": ()}
    one_of(f"subset of teacher '{teacher}'", subset, params.partitions[partition].subsets)
    return {"dataset": (layout.dataset_path(dataset),), "partition": (layout.partition_path(dataset, partition),)}


def make_teacher(params: Params, dataset: str, teacher: str, subset: str) -> Job:
    """Trains or fetches one teacher; the step's name says which."""
    knobs = entry(params, "teachers", teacher)
    return Job(
        step="train_teacher" if knobs.network.source == "train" else "fetch_teacher",
        arguments={"dataset": dataset, "teacher": teacher, "subset": subset},
        knobs={
            "network": knobs.network,
            "fitting": knobs.fitting,
            "recipe": params.recipes[knobs.fitting.recipe],
            "augment": entry(params, "soft_labels", dataset).space.augment,
        },
        inputs=_subset_inputs(params, dataset, teacher, subset) | _student_input(params, dataset, teacher),
        outputs=_with_record(layout.teacher_path(dataset, teacher, subset)),
        keys=(
            f"teachers.{teacher}.network",
            f"teachers.{teacher}.fitting",
            f"recipes.{knobs.fitting.recipe}",
            f"soft_labels.{dataset}.space.augment",
        ),
    )


def _student_input(params: Params, dataset: str, teacher: str) -> dict[str, tuple[Path, ...]]:
    """The student that a teacher was, if it was one."""
    knobs: TeacherKnobs = entry(params, "teachers", teacher)
    if knobs.network.experiment is None:
        return {}
    check_dataset(params, f"teachers.{teacher}.network.experiment", teacher, dataset)
    number, stage = last_stage(params, knobs.network.experiment)
    return {"student": _with_record(layout.student_path(knobs.network.experiment, knobs.fitting.seed, number, stage))}


def soft_label_files(params: Params, dataset: str) -> tuple[ViewRange, ...]:
    """The views of each of the files over which one teacher's soft labels are spread."""
    knobs: SoftLabelKnobs = entry(params, "soft_labels", dataset)
    return view_ranges(count_views(knobs.student_views), knobs.views.per_file)


def dump_soft_labels(params: Params, dataset: str, teacher: str, subset: str, views: str) -> Job:
    """Stores one teacher's logits on some views of its subset's training samples; `views` as in "0-7"."""
    knobs: SoftLabelKnobs = entry(params, "soft_labels", dataset)
    one_of(f"views of soft_labels.{dataset}", views, [str(part) for part in soft_label_files(params, dataset)])
    return Job(
        step="dump_soft_labels",
        arguments={"dataset": dataset, "teacher": teacher, "subset": subset, "views": views},
        # How many views there are is no knob: more of them leave this file as it is.
        knobs={
            "space": knobs.space,
            "storage": knobs.storage,
            "min_top1": entry(params, "teachers", teacher).min_top1,
        },
        inputs=_subset_inputs(params, dataset, teacher, subset)
        | {"teacher": _with_record(layout.teacher_path(dataset, teacher, subset))},
        outputs=_with_record(layout.soft_labels_path(dataset, teacher, subset, views)),
        keys=(f"soft_labels.{dataset}.space", f"soft_labels.{dataset}.storage", f"teachers.{teacher}.min_top1"),
    )


def verify_soft_labels(params: Params, dataset: str, teacher: str, subset: str) -> Job:
    """Holds sampled rows of all files of one teacher's soft labels against the teacher; students wait for it."""
    return Job(
        step="verify_soft_labels",
        arguments={"dataset": dataset, "teacher": teacher, "subset": subset},
        knobs={"views": entry(params, "soft_labels", dataset).views},
        inputs=_subset_inputs(params, dataset, teacher, subset)
        | {
            "teacher": _with_record(layout.teacher_path(dataset, teacher, subset)),
            "soft_labels": _soft_label_paths(params, dataset, teacher, subset),
        },
        outputs=(layout.soft_labels_index_path(dataset, teacher, subset),),
        keys=(f"soft_labels.{dataset}.views",),
    )


def _soft_label_paths(params: Params, dataset: str, teacher: str, subset: str) -> tuple[Path, ...]:
    """Every file of one teacher's soft labels, each followed by its record."""
    parts = soft_label_files(params, dataset)
    return tuple(
        path for part in parts for path in _with_record(layout.soft_labels_path(dataset, teacher, subset, str(part)))
    )


def record_trajectory(params: Params, dataset: str, teacher: str, seed: int) -> Job:
    """Trains one teacher on what students of this seed see, and stores what it says of each sample in each epoch."""
    entry(params, "datasets", dataset)
    network, fitting = check_scratch(params, f"teachers.{teacher}", teacher)
    soft_labels: SoftLabelKnobs = entry(params, "soft_labels", dataset)
    return Job(
        step="record_trajectory",
        arguments={"dataset": dataset, "teacher": teacher, "seed": seed},
        knobs={
            "network": network,
            "fitting": fitting,
            "recipe": params.recipes[fitting.recipe],
            "views": soft_labels.student_views,
            "storage": soft_labels.storage,
        },
        inputs={"dataset": (layout.dataset_path(dataset),)},
        outputs=_with_record(layout.trajectory_path(dataset, teacher, seed)),
        keys=(
            f"teachers.{teacher}.network",
            f"teachers.{teacher}.fitting",
            f"recipes.{fitting.recipe}",
            *(f"soft_labels.{dataset}.{part}" for part in ("space", "views", "storage")),
        ),
    )


def curriculum(params: Params, experiment: str) -> tuple[StagePlan, ...]:
    """The stages of an experiment, in order.

    Raises:
        ParamsError: no such experiment, or budgets that do not fit the method.
    """
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    method = knobs.method
    if isinstance(method, CeKnobs):
        return ce.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    if isinstance(method, TeskdKnobs):
        return teskd.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    if isinstance(method, CtkdKnobs):
        return ctkd.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    if isinstance(method, OneTeacherKnobs):
        return kd.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    if isinstance(method, PanelKnobs):
        return panel.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    specialists = {name for name, teacher in params.teachers.items() if teacher.partition is not None}
    levels = params.partitions[knobs.partition].subsets
    try:
        return ed.curriculum(method, levels, knobs.stages, specialists)
    except ParamsError as error:
        raise ParamsError(f"experiments.{experiment}.{error}") from error


def run_stage(params: Params, experiment: str, seed: int, stage: str) -> Job:
    """Trains the student of one experiment and seed through one stage."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    one_of(f"seeds of experiment '{experiment}'", seed, knobs.seeds)
    plans = {plan.name: plan for plan in curriculum(params, experiment)}
    one_of(f"stages of experiment '{experiment}'", stage, plans)
    plan = plans[stage]
    before = [p for p in plans.values() if p.number == plan.number - 1]
    return Job(
        step="run_stage",
        arguments={"experiment": experiment, "seed": seed, "stage": stage},
        knobs={
            "plan": plan,
            "student": params.students[knobs.student],
            "recipe": params.recipes[knobs.recipe],
            "views": _stage_views(params, knobs),
        },
        inputs={
            "dataset": (layout.dataset_path(knobs.dataset),),
            "partition": (layout.partition_path(knobs.dataset, knobs.partition),),
            "previous": tuple(f for p in before for f in _with_record(_student_path(experiment, seed, p))),
            # One index for each teacher, first, then the files that the indexes name.
            "indexes": tuple(layout.soft_labels_index_path(knobs.dataset, u.teacher, u.subset) for u in plan.teachers),
            "soft_labels": tuple(
                path
                for use in plan.teachers
                for path in _soft_label_paths(params, knobs.dataset, use.teacher, use.subset)[::2]
            ),
            # Which weights the teacher has now: soft labels of others are refused.
            "teachers": tuple(_teacher_record(knobs.dataset, use) for use in plan.teachers),
            "trajectory": record_trajectory(params, knobs.dataset, plan.trajectory.teacher, seed).outputs
            if plan.trajectory
            else (),
        },
        outputs=_with_record(layout.student_path(experiment, seed, plan.number, stage)),
        keys=_stage_keys(knobs, experiment, stage),
    )


def _stage_views(params: Params, knobs: ExperimentKnobs) -> StudentViews:
    """Which views the student sees: those that its teachers saw; without teachers nothing limits them."""
    soft_labels = params.soft_labels[knobs.dataset]
    return unlimited_views(soft_labels.space) if not has_teachers(knobs) else soft_labels.student_views


def has_teachers(knobs: ExperimentKnobs) -> bool:
    """Whether the students learn from soft labels."""
    return not isinstance(knobs.method, CeKnobs | TeskdKnobs)


def _student_path(experiment: str, seed: int, plan: StagePlan) -> Path:
    return layout.student_path(experiment, seed, plan.number, plan.name)


def _teacher_record(dataset: str, use: TeacherUse) -> Path:
    return record_path(layout.teacher_path(dataset, use.teacher, use.subset))


def _stage_keys(knobs: ExperimentKnobs, experiment: str, stage: str) -> tuple[str, ...]:
    # A carried learning rate makes every stage depend on the budgets of all.
    carried = getattr(knobs.method, "learning_rate", "restarted") == "carried"
    return (
        f"experiments.{experiment}.method",
        f"experiments.{experiment}.stages" + ("" if carried else f".{stage}"),
        f"students.{knobs.student}",
        f"recipes.{knobs.recipe}",
        f"soft_labels.{knobs.dataset}.space",
        # Without teachers every view is seen; as many keys are wanted in each entry of DVC's lists.
        f"soft_labels.{knobs.dataset}." + ("views" if has_teachers(knobs) else "space"),
    )


def evaluate(params: Params, experiment: str, seed: int) -> Job:
    """Measures every stage's student of one seed on the test split."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    one_of(f"seeds of experiment '{experiment}'", seed, knobs.seeds)
    students = [_student_path(experiment, seed, plan) for plan in curriculum(params, experiment)]
    return Job(
        step="evaluate",
        arguments={"experiment": experiment, "seed": seed},
        knobs={},
        inputs={
            "dataset": (layout.dataset_path(knobs.dataset),),
            "partition": (layout.partition_path(knobs.dataset, knobs.partition),),
            "students": tuple(path for student in students for path in _with_record(student)),
        },
        outputs=(layout.evaluation_path(experiment, seed),),
    )


def result(params: Params, experiment: str) -> Job:
    """Gathers the seeds of one experiment."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    return Job(
        step="result",
        arguments={"experiment": experiment},
        knobs={"seeds": list(knobs.seeds), "method": knobs.method.name},
        inputs={"evaluations": tuple(layout.evaluation_path(experiment, seed) for seed in knobs.seeds)},
        outputs=(layout.result_path(experiment), layout.curve_path(experiment)),
        keys=(f"experiments.{experiment}.seeds", f"experiments.{experiment}.method.name"),
    )


def report(params: Params, experiment: str) -> Job:
    """Draws the page of one experiment."""
    entry(params, "experiments", experiment)
    return Job(
        step="report",
        arguments={"experiment": experiment},
        knobs={},
        inputs={"result": (layout.result_path(experiment),)},
        outputs=(layout.report_path(experiment),),
    )


def threads_of(params: Params, job: Job) -> int:
    """Threads that a job can use: small images leave a second one idle, large ones keep four busy.

    The last bits of what networks compute depend on it, so that it must not depend on who runs the job.
    """
    if job.step not in NETWORK_STEPS:
        return 1
    experiment = job.arguments.get("experiment")
    dataset = str(job.arguments["dataset"]) if experiment is None else params.experiments[str(experiment)].dataset
    return 1 if params.datasets[dataset].image_size <= SMALL_SIDE else 4


def jobs_of(params: Params, experiments: Iterable[str]) -> list[Job]:
    """Every job that these experiments need, each once, inputs before what reads them."""
    jobs: dict[Path, Job] = {}
    for experiment in experiments:
        for job in _jobs_of_one(params, experiment):
            jobs.setdefault(job.outputs[0], job)
    return list(jobs.values())


def _jobs_of_one(params: Params, experiment: str) -> list[Job]:
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    return [
        *_jobs_of_students(params, experiment, knobs.seeds),
        *(evaluate(params, experiment, seed) for seed in knobs.seeds),
        result(params, experiment),
        report(params, experiment),
    ]


def _jobs_of_students(params: Params, experiment: str, seeds: Collection[int]) -> list[Job]:
    """What makes the students of these seeds; a job may be in it twice."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    plans = curriculum(params, experiment)
    uses = dict.fromkeys((use.teacher, use.subset) for plan in plans for use in plan.teachers)
    partitions = dict.fromkeys([knobs.partition, *(p for t, _ in uses if (p := params.teachers[t].partition))])
    asked = [use for partition in partitions for use in partition_teachers(params.partitions[partition])]
    return [
        pack_dataset(params, knobs.dataset),
        *_jobs_of_teachers(params, knobs.dataset, asked),
        *(partition_dataset(params, knobs.dataset, partition) for partition in partitions),
        *_jobs_of_teachers(params, knobs.dataset, uses),
        *(
            record_trajectory(params, knobs.dataset, plan.trajectory.teacher, seed)
            for seed in seeds
            for plan in plans
            if plan.trajectory
        ),
        *(run_stage(params, experiment, seed, plan.name) for seed in seeds for plan in plans),
    ]


def _jobs_of_teachers(params: Params, dataset: str, uses: Collection[tuple[str, str]]) -> list[Job]:
    """What makes these teachers and their verified soft labels; a use is a teacher and a subset."""
    return [
        *(job for teacher, _ in uses for job in _jobs_of_student(params, teacher)),
        *(make_teacher(params, dataset, *use) for use in uses),
        *(
            dump_soft_labels(params, dataset, *use, str(part))
            for use in uses
            for part in soft_label_files(params, dataset)
        ),
        *(verify_soft_labels(params, dataset, *use) for use in uses),
    ]


def _jobs_of_student(params: Params, teacher: str) -> list[Job]:
    """What makes the student that a teacher was, if it was one."""
    knobs: TeacherKnobs = params.teachers[teacher]
    experiment = knobs.network.experiment
    return [] if experiment is None else _jobs_of_students(params, experiment, (knobs.fitting.seed,))
