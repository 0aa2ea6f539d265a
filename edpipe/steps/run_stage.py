"""Trains the student of one experiment and seed through one stage of its curriculum."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edpipe.device import prepare_device
from edpipe.errors import MismatchError, OtherTemperatureError, OtherViewsError
from edpipe.methods.curriculum import StagePlan, TeacherUse
from edpipe.models.student import Student, grow
from edpipe.models.zoo import build_network
from edpipe.processes import joined
from edpipe.schedule import num_images
from edpipe.steps.classroom import Classroom, StageKnobsOfJob
from edpipe.steps.fitting import Fitting
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.partition_file import read_partition
from edpipe.storage.records import make_record, read_record
from edpipe.storage.soft_label_checks import check_content, check_provenance
from edpipe.storage.soft_label_format import Provenance
from edpipe.storage.soft_label_store import SoftLabelStore, check_verified, open_store
from edpipe.storage.weights import read_weights, write_weights
from edpipe.training import Budget, Training
from edpipe.views import ViewRange


@dataclass(frozen=True)
class StageFiles:
    """What a stage reads and writes."""

    dataset: Path
    partition: Path
    previous: Path | None
    indexes: tuple[Path, ...]
    """One for each teacher; its soft labels lie in the folder of the same name."""
    soft_labels: tuple[Path, ...]
    """The files of all teachers."""
    teachers: tuple[Path, ...]
    """Records of the teachers that the soft labels must come from, in the order of the indexes."""
    out: Path


def run_stage(title: str, seed: int, knobs: StageKnobsOfJob, files: StageFiles) -> None:
    """Writes the student's weights after the stage, and their record.

    Raises:
        CorruptFileError: an input is damaged.
        MismatchError: inputs that do not belong together, such as soft labels of another teacher, dataset or views.
        NetworkError: the student cannot be split into that many blocks.
        TrainingError: the loss is no longer a finite number, or much too large.
        Interrupted: SIGTERM or Ctrl-C came; the same call goes on where it was.
    """
    device = prepare_device()
    with joined(device) as group:
        classroom = _open(seed, knobs, files, device)
        student, inherited = _student(seed, knobs, files, classroom)
        classroom.previous_digest = inherited
        student.to(device).to(memory_format=torch.channels_last)
        total = num_images(knobs.plan.budget, classroom.stream.num_samples)
        record = _record(seed, knobs, classroom, total)
        budget = Budget(total, knobs.plan.budget.learning_rate, knobs.plan.window)
        training = Training(student, knobs.recipe, budget, classroom.seed, group)
        fitting = Fitting(title, training, files.out, record, classroom.stream.num_samples)
        final_loss = fitting.run(classroom)
        if group.is_main:
            write_weights(files.out, student.weights(), {**record, "final_loss": final_loss})
            fitting.finish()


def _open(seed: int, knobs: StageKnobsOfJob, files: StageFiles, device: torch.device) -> Classroom:
    dataset = open_dataset(files.dataset)
    partition = read_partition(files.partition, dataset)
    stores = [_open_store(index, files, knobs.plan, dataset) for index in files.indexes]
    classroom = Classroom(seed, knobs, dataset, partition, stores, device)
    for store, teacher, use in zip(stores, files.teachers, knobs.plan.teachers, strict=True):
        _check_views(store, classroom)
        digest = read_record(teacher, "weights_digest")["weights_digest"]
        for labels in store.files:
            expected = _expected(labels.views, store, digest, use, classroom)
            check_provenance(labels.path, labels.provenance, expected)
    _check_taught(classroom, files)
    return classroom


def _open_store(index: Path, files: StageFiles, plan: StagePlan, dataset: Dataset) -> SoftLabelStore:
    """One teacher's soft labels, after every byte was checked, and that these are the ones that were verified."""
    own = [path for path in files.soft_labels if path.parent == index.with_suffix("")]
    store = open_store(own, sample_keys=dataset.sample_keys)
    check_verified(store, index)
    if store.precision.temperature not in (None, plan.temperature):
        raise OtherTemperatureError(
            f"{index.with_suffix('')}: sampled at temperature {store.precision.temperature:g}, this stage teaches at "
            f"{plan.temperature:g}; use the same in soft_labels.{dataset.name}.storage.temperature and in the method"
        )
    return store


def _check_views(store: SoftLabelStore, classroom: Classroom) -> None:
    """That the store holds the views that students see, and as many."""
    path, found, spec = store.files[0].path, store.provenance, classroom.batches.spec
    check_provenance(path, found, replace(found, view_spec=spec.canonical()))
    if store.num_views != spec.num_views:
        raise OtherViewsError(
            f"{path.parent}: holds {store.num_views} views of each image, students are to see {spec.num_views}; "
            f"dump and verify those of soft_labels.{classroom.dataset.name}.views with `snakemake`"
        )


def _expected(
    views: ViewRange, store: SoftLabelStore, teacher_digest: str, use: TeacherUse, classroom: Classroom
) -> Provenance:
    """What the soft labels of these views must have been made from."""
    dataset, partition = classroom.dataset, classroom.partition
    is_specialist = bool(store.provenance.partition_digest)
    class_ids = partition.classes_of((use.subset,)) if is_specialist else range(dataset.num_classes)
    check_content(store.files[0].path, store.files[0].header, None, np.array(class_ids, dtype=np.int32))
    ids = dataset.sample_ids("train", tuple(class_ids))
    return Provenance(
        teacher=use.teacher,
        subset=use.subset,
        teacher_digest=teacher_digest,
        dataset_digest=dataset.digest,
        partition_digest=partition.digest if is_specialist else "",
        view_spec=classroom.batches.spec.canonical(),
        pixel_canary=classroom.batches.canary(ids, views.first, views.num_views),
    )


def _check_taught(classroom: Classroom, files: StageFiles) -> None:
    """Every taught class has a teacher, if there are teachers at all."""
    if not classroom.lessons:
        return
    wanted = classroom.partition.classes_of(classroom.knobs.plan.taught)
    covered = {int(c) for lesson in classroom.lessons for c in lesson.class_ids}
    missing = [classroom.dataset.class_names[c] for c in wanted if c not in covered]
    if missing:
        raise MismatchError(f"{files.out}: no soft labels for classes {missing[:5]}; dump a teacher that knows them")


def _student(seed: int, knobs: StageKnobsOfJob, files: StageFiles, classroom: Classroom) -> tuple[Student, str]:
    plan, dataset = knobs.plan, classroom.dataset
    network = build_network(knobs.student.model, dataset.num_classes, dataset.channels, seed)
    student = Student(
        network,
        plan.number,
        plan.num_stages,
        len(classroom.known_class_ids),
        knobs.student.reference,
        dataset.image_size,
        dataset.channels,
        classroom.seed,
    )
    if files.previous is None:
        return student, ""
    weights, record = read_weights(files.previous)
    if record["inputs"]["dataset"] != dataset.digest or record["inputs"]["partition"] != classroom.partition.digest:
        raise MismatchError(f"{files.previous}: was taught from another dataset or partition; run the stages again")
    grow(weights, student)
    return student, record["weights_digest"]


def _certified(store: SoftLabelStore, temperature: float) -> float | None:
    """Nats; None for sampled rows, an estimate."""
    return None if store.precision.temperature is not None else store.kl_bound(temperature)


def _record(seed: int, knobs: StageKnobsOfJob, classroom: Classroom, images: int) -> dict[str, object]:
    """What is known before training; all that decides its result is in it."""
    stores = [lesson.labels.store for lesson in classroom.lessons]
    return make_record(
        "run_stage",
        {"plan": knobs.plan, "student": knobs.student, "recipe": knobs.recipe, "views": knobs.views},
        {
            "dataset": classroom.dataset.digest,
            "partition": classroom.partition.digest,
            "previous": classroom.previous_digest,
            "soft_labels": [
                {
                    "teacher": store.provenance.teacher,
                    "subset": store.provenance.subset,
                    "digests": store.digests,
                    "teacher_digest": store.provenance.teacher_digest,
                    "teacher_forwards": store.num_forwards,
                    "kl_bound": _certified(store, knobs.plan.temperature),
                }
                for store in stores
            ],
        },
        seed=seed,
        known_class_ids=classroom.known_class_ids.tolist(),
        images_seen=images,
        taught_samples=classroom.stream.num_samples,
    )
