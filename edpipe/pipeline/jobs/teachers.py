"""The jobs of teachers: each is made, its soft labels are verified, it is measured; all for every experiment."""

from pathlib import Path

from edpipe.params.lineage import check_dataset, last_stage
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.plans.scratch import check_scratch
from edpipe.params.schema import Params, entry, one_of
from edpipe.params.soft_labels import DumpKnobs, SoftLabelKnobs, VerifyKnobs
from edpipe.params.teacher import TeacherJobKnobs, TeacherKnobs, TrajectoryKnobs
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.choices import network_choice
from edpipe.pipeline.jobs.paths import with_record
from edpipe.storage.job import Job, NoKnobs
from edpipe.views.spec import ViewRange, count_views, view_ranges


def _subset_inputs(params: Params, dataset: str, teacher: str, subset: str) -> dict[str, tuple[Path, ...]]:
    """Dataset and, for a specialist, the partition that names its classes."""
    partition = entry(params, "teachers", teacher).partition
    if partition is None:
        one_of(f"subset of teacher '{teacher}'", subset, (ALL_CLASSES,))
        return {"dataset": (paths.dataset_path(dataset),), "partition": ()}
    one_of(f"subset of teacher '{teacher}'", subset, params.partitions[partition].subsets)
    return {"dataset": (paths.dataset_path(dataset),), "partition": (paths.partition_path(dataset, partition),)}


def make_teacher(params: Params, dataset: str, teacher: str, subset: str) -> Job[TeacherJobKnobs]:
    """Trains or fetches one teacher; the step's name says which."""
    knobs: TeacherKnobs = entry(params, "teachers", teacher)
    step = "train_teacher" if knobs.network.source == "train" else "fetch_teacher"
    return Job(
        step=step,
        arguments={"dataset": dataset, "teacher": teacher, "subset": subset},
        knobs=TeacherJobKnobs(
            knobs.network,
            knobs.fitting,
            params.recipes[knobs.fitting.recipe],
            entry(params, "soft_labels", dataset).space.augment,
        ),
        inputs=_subset_inputs(params, dataset, teacher, subset) | _student_input(params, dataset, teacher),
        outputs=with_record(paths.teacher_path(dataset, teacher, subset)),
        keys=(
            f"teachers.{teacher}.network",
            f"teachers.{teacher}.fitting",
            f"recipes.{knobs.fitting.recipe}",
            f"soft_labels.{dataset}.space.augment",
        ),
        choices=network_choice(step, knobs.network.model),
    )


def _student_input(params: Params, dataset: str, teacher: str) -> dict[str, tuple[Path, ...]]:
    """The student that a teacher was, if it was one."""
    knobs: TeacherKnobs = entry(params, "teachers", teacher)
    if knobs.network.experiment is None:
        return {}
    check_dataset(params, f"teachers.{teacher}.network.experiment", teacher, dataset)
    number, stage = last_stage(params, knobs.network.experiment)
    return {"student": with_record(paths.student_path(knobs.network.experiment, knobs.fitting.seed, number, stage))}


def soft_label_files(params: Params, dataset: str) -> tuple[ViewRange, ...]:
    """The views of each of the files over which one teacher's soft labels are spread."""
    knobs: SoftLabelKnobs = entry(params, "soft_labels", dataset)
    return view_ranges(count_views(knobs.student_views), knobs.views.per_file)


def dump_soft_labels(params: Params, dataset: str, teacher: str, subset: str, views: str) -> Job[DumpKnobs]:
    """Stores one teacher's logits on some views of its subset's training samples; `views` as in "0-7"."""
    knobs: SoftLabelKnobs = entry(params, "soft_labels", dataset)
    one_of(f"views of soft_labels.{dataset}", views, [str(part) for part in soft_label_files(params, dataset)])
    return Job(
        step="dump_soft_labels",
        arguments={"dataset": dataset, "teacher": teacher, "subset": subset, "views": views},
        knobs=DumpKnobs(knobs.space, knobs.storage, entry(params, "teachers", teacher).min_top1),
        inputs=_subset_inputs(params, dataset, teacher, subset)
        | {"teacher": with_record(paths.teacher_path(dataset, teacher, subset))},
        outputs=with_record(paths.soft_labels_path(dataset, teacher, subset, views)),
        keys=(f"soft_labels.{dataset}.space", f"soft_labels.{dataset}.storage", f"teachers.{teacher}.min_top1"),
        choices=network_choice("dump_soft_labels", params.teachers[teacher].network.model),
    )


def verify_soft_labels(params: Params, dataset: str, teacher: str, subset: str) -> Job[VerifyKnobs]:
    """Holds sampled rows of all files of one teacher's soft labels against the teacher; students wait for it."""
    return Job(
        step="verify_soft_labels",
        arguments={"dataset": dataset, "teacher": teacher, "subset": subset},
        knobs=VerifyKnobs(entry(params, "soft_labels", dataset).views),
        inputs=_subset_inputs(params, dataset, teacher, subset)
        | {
            "teacher": with_record(paths.teacher_path(dataset, teacher, subset)),
            "soft_labels": soft_label_paths(params, dataset, teacher, subset),
        },
        outputs=(paths.soft_labels_index_path(dataset, teacher, subset),),
        keys=(f"soft_labels.{dataset}.views",),
        choices=network_choice("verify_soft_labels", params.teachers[teacher].network.model),
    )


def soft_label_paths(params: Params, dataset: str, teacher: str, subset: str) -> tuple[Path, ...]:
    """Every file of one teacher's soft labels, each followed by its record."""
    parts = soft_label_files(params, dataset)
    return tuple(
        path for part in parts for path in with_record(paths.soft_labels_path(dataset, teacher, subset, str(part)))
    )


def record_trajectory(params: Params, dataset: str, teacher: str, seed: int) -> Job[TrajectoryKnobs]:
    """Trains one teacher on what students of this seed see, and stores what it says of each sample in each epoch."""
    entry(params, "datasets", dataset)
    network, fitting = check_scratch(params, f"teachers.{teacher}", teacher)
    soft_labels: SoftLabelKnobs = entry(params, "soft_labels", dataset)
    return Job(
        step="record_trajectory",
        arguments={"dataset": dataset, "teacher": teacher, "seed": seed},
        knobs=TrajectoryKnobs(
            network, fitting, params.recipes[fitting.recipe], soft_labels.student_views, soft_labels.storage
        ),
        inputs={"dataset": (paths.dataset_path(dataset),)},
        outputs=with_record(paths.trajectory_path(dataset, teacher, seed)),
        keys=(
            f"teachers.{teacher}.network",
            f"teachers.{teacher}.fitting",
            f"recipes.{fitting.recipe}",
            *(f"soft_labels.{dataset}.{part}" for part in ("space", "views", "storage")),
        ),
        choices=network_choice("record_trajectory", network.model),
    )


def evaluate_teacher(params: Params, dataset: str, teacher: str, subset: str) -> Job[NoKnobs]:
    """Asks one teacher about the test images of its classes, once for all students that are compared with it."""
    return Job(
        step="evaluate_teacher",
        arguments={"dataset": dataset, "teacher": teacher, "subset": subset},
        knobs=NoKnobs(),
        inputs=_subset_inputs(params, dataset, teacher, subset)
        | {"teacher": with_record(paths.teacher_path(dataset, teacher, subset))},
        outputs=(paths.teacher_evaluation_path(dataset, teacher, subset),),
        choices=network_choice("evaluate_teacher", params.teachers[teacher].network.model),
    )
