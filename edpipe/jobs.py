"""The jobs that follow from params.yaml: for each, its command, knobs, inputs, outputs and keys.

Snakemake's rules, dvc.yaml's lists and the command line all ask here, so that no two of them can disagree.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from edpipe import layout
from edpipe.errors import ParamsError
from edpipe.job import Job, with_record
from edpipe.methods import ce, ctkd, ed, kd, panel, teskd
from edpipe.methods.curriculum import StagePlan, TeacherUse
from edpipe.params.experiment import CeKnobs, CtkdKnobs, ExperimentKnobs, OneTeacherKnobs, PanelKnobs, TeskdKnobs
from edpipe.params.partition import ALL_CLASSES, PartitionKnobs
from edpipe.params.schema import ONLY_STAGE, Params, entry, one_of
from edpipe.params.soft_labels import SoftLabelKnobs, StudentViews, unlimited_views
from edpipe.params.study import StudyKnobs
from edpipe.params.teacher import TeacherKnobs
from edpipe.storage.records import record_path
from edpipe.teacher_jobs import (
    dump_soft_labels,
    evaluate_teacher,
    make_teacher,
    record_trajectory,
    soft_label_files,
    soft_label_paths,
    verify_soft_labels,
)

TRAINING_STEPS = ("train_teacher", "fetch_teacher", "run_stage")
"""Those that several processes may run together."""
NETWORK_STEPS = (
    *TRAINING_STEPS,
    "dump_soft_labels",
    "verify_soft_labels",
    "evaluate_teacher",
    "record_trajectory",
    "evaluate",
)
PACKING_THREADS = 8
"""Raw images may be of any size; a machine with fewer cores gives what it has."""
SMALL_SIDE = 64
"""Pixels; images up to this size are small."""


def pack_dataset(params: Params, dataset: str) -> Job:
    """Packs one data set into one file."""
    return Job(
        step="pack_dataset",
        arguments={"dataset": dataset},
        knobs={"dataset": entry(params, "datasets", dataset)},
        inputs={},
        outputs=with_record(layout.dataset_path(dataset)),
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
            "soft_labels": soft_label_paths(params, dataset, teacher, ALL_CLASSES)[::2],
            "teachers": (record_path(layout.teacher_path(dataset, teacher, ALL_CLASSES)),),
        },
        outputs=(layout.partition_path(dataset, partition),),
        keys=(f"partitions.{partition}", f"soft_labels.{dataset}.space"),
    )


def partition_teachers(knobs: PartitionKnobs) -> tuple[tuple[str, str], ...]:
    """Teacher and subset whose soft labels a partition is made from: one of all classes, or none."""
    return () if knobs.confusion is None else ((knobs.confusion.teacher, ALL_CLASSES),)


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
            "previous": tuple(f for p in before for f in with_record(_student_path(experiment, seed, p))),
            # One index for each teacher, first, then the files that the indexes name.
            "indexes": tuple(layout.soft_labels_index_path(knobs.dataset, u.teacher, u.subset) for u in plan.teachers),
            "soft_labels": tuple(
                path
                for use in plan.teachers
                for path in soft_label_paths(params, knobs.dataset, use.teacher, use.subset)[::2]
            ),
            # Which weights the teacher has now: soft labels of others are refused.
            "teachers": tuple(_teacher_record(knobs.dataset, use) for use in plan.teachers),
            "trajectory": record_trajectory(params, knobs.dataset, plan.trajectory.teacher, seed).outputs
            if plan.trajectory
            else (),
        },
        outputs=with_record(layout.student_path(experiment, seed, plan.number, stage)),
        keys=_stage_keys(knobs, experiment, stage),
    )


def _stage_views(params: Params, knobs: ExperimentKnobs) -> StudentViews:
    """Which views the student sees: those that its teachers saw; without teachers nothing limits them."""
    soft_labels = params.soft_labels[knobs.dataset]
    return unlimited_views(soft_labels.space) if not has_teachers(knobs) else soft_labels.student_views


def has_teachers(knobs: ExperimentKnobs) -> bool:
    """Whether the students learn from soft labels."""
    return not isinstance(knobs.method, CeKnobs | TeskdKnobs)


def teacher_uses(plans: Iterable[StagePlan]) -> tuple[tuple[str, str], ...]:
    """Teacher and subset of all soft labels that some stage learns from, each once, in order."""
    return tuple(dict.fromkeys((use.teacher, use.subset) for plan in plans for use in plan.teachers))


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
    """Measures every stage's student of one seed on the test split, the last one also against its teachers."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    one_of(f"seeds of experiment '{experiment}'", seed, knobs.seeds)
    plans = curriculum(params, experiment)
    students = [_student_path(experiment, seed, plan) for plan in plans]
    return Job(
        step="evaluate",
        arguments={"experiment": experiment, "seed": seed},
        knobs={},
        inputs={
            "dataset": (layout.dataset_path(knobs.dataset),),
            "partition": (layout.partition_path(knobs.dataset, knobs.partition),),
            "students": tuple(path for student in students for path in with_record(student)),
            "teacher_evaluations": tuple(
                layout.teacher_evaluation_path(knobs.dataset, *use) for use in teacher_uses(plans)
            ),
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
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    return Job(
        step="report",
        arguments={"experiment": experiment},
        knobs={},
        inputs={
            "result": (layout.result_path(experiment),),
            "dataset": (layout.dataset_path(knobs.dataset),),
            "partition": (layout.partition_path(knobs.dataset, knobs.partition),),
        },
        outputs=(layout.report_path(experiment),),
    )


def study(params: Params, study: str) -> Job:
    """Holds the results of several experiments against one of them."""
    knobs: StudyKnobs = entry(params, "studies", study)
    return Job(
        step="study",
        arguments={"study": study},
        knobs={"study": knobs},
        inputs={"results": tuple(layout.result_path(experiment) for experiment in knobs.experiments)},
        outputs=(layout.study_path(study), layout.study_table_path(study)),
        keys=(f"studies.{study}",),
    )


def threads_of(params: Params, job: Job) -> int:
    """Threads that a job can use: small images leave a second one idle, large ones keep four busy.

    The last bits of what networks compute depend on it, so that it must not depend on who runs the job. What is packed
    does not depend on it.
    """
    if job.step == "pack_dataset":
        return PACKING_THREADS
    if job.step not in NETWORK_STEPS:
        return 1
    experiment = job.arguments.get("experiment")
    dataset = str(job.arguments["dataset"]) if experiment is None else params.experiments[str(experiment)].dataset
    return 1 if params.datasets[dataset].image_size <= SMALL_SIDE else 4


def experiments_named(params: Params, words: Iterable[str]) -> list[str]:
    """These experiments, and those of each study that is named as its result is: `study_<study>`; each once."""
    studies = {f"{layout.STUDY_PREFIX}{name}": study.experiments for name, study in params.studies.items()}
    return list(dict.fromkeys(name for word in words for name in studies.get(word, (word,))))


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
        *(evaluate_teacher(params, knobs.dataset, *use) for use in teacher_uses(curriculum(params, experiment))),
        *(evaluate(params, experiment, seed) for seed in knobs.seeds),
        result(params, experiment),
        report(params, experiment),
    ]


def _jobs_of_students(params: Params, experiment: str, seeds: Collection[int]) -> list[Job]:
    """What makes the students of these seeds; a job may be in it twice."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    plans = curriculum(params, experiment)
    uses = teacher_uses(plans)
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
