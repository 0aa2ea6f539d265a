"""Trains the student of one experiment and seed through one stage of its curriculum."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edpipe.device import prepare_device
from edpipe.errors import (
    MismatchError,
    MissingRowsError,
    OtherTemperatureError,
    OtherViewsError,
    ParamsError,
    UnverifiedError,
)
from edpipe.methods.curriculum import StagePlan, TeacherUse
from edpipe.models.aided import (
    Aided,
    Hint,
    attention_ends,
    hint_of,
    inherit_references,
    kept_references,
)
from edpipe.models.extra_norm import ExtraNorm
from edpipe.models.macs import count_macs, count_training_macs
from edpipe.models.split import Tap
from edpipe.models.student import Student, grow, student_weights
from edpipe.models.teskd import TeskdNetwork
from edpipe.models.zoo import build_network
from edpipe.params.partition import ALL_CLASSES
from edpipe.processes import joined
from edpipe.schedule import num_images
from edpipe.soft_label_batches import SoftLabelBatches, fit_in_memory
from edpipe.steps.classroom import Classroom, StageKnobsOfJob
from edpipe.steps.fitting import Fitting
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.partition_file import read_partition
from edpipe.storage.records import make_record, read_record, record_path
from edpipe.storage.soft_label_checks import check_content, check_provenance
from edpipe.storage.soft_label_file import SoftLabels, open_soft_labels
from edpipe.storage.soft_label_format import Provenance
from edpipe.storage.soft_label_store import SoftLabelStore, check_verified, open_store
from edpipe.storage.weights import read_weights, write_weights
from edpipe.streams import stream_text
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
    trajectory: Path | None = None
    """Of the teacher that learns beside the student; its record lies beside it."""


def run_stage(title: str, seed: int, knobs: StageKnobsOfJob, files: StageFiles) -> None:
    """Writes the student's weights after the stage, and their record.

    Raises:
        CorruptFileError: an input is damaged.
        MismatchError: inputs that do not belong together, such as soft labels of another teacher, dataset or views.
        NetworkError: the student cannot be split into that many blocks.
        ParamsError: several processes for a loss that needs the whole batch.
        TrainingError: the loss is no longer a finite number, or much too large.
        Interrupted: SIGTERM or Ctrl-C came; the same call goes on where it was.
    """
    device = prepare_device()
    with joined(device) as group:
        _check_whole_batch(knobs.plan, group.size)
        classroom = _open(seed, knobs, files, device)
        group.check_alike("digest of the taught samples", int(classroom.taught_digest, 16) >> 16)
        student, trainee = _student(seed, knobs, files, classroom)
        trainee.to(device).to(memory_format=torch.channels_last)
        total = num_images(knobs.plan.budget, classroom.stream.num_samples)
        record = _record(seed, knobs, classroom, total) | {
            "training_macs_per_image": _training_macs(trainee, classroom)
        }
        budget = Budget(total, knobs.plan.budget.learning_rate, knobs.plan.window)
        training = Training(trainee, knobs.recipe, budget, classroom.seed, group)
        fitting = Fitting(title, training, files.out, record, classroom.stream.num_samples)
        final_loss = fitting.run(classroom)
        if group.is_main:
            write_weights(files.out, _kept_weights(knobs.plan, student, trainee), {**record, "final_loss": final_loss})
            fitting.finish()


def _check_whole_batch(plan: StagePlan, num_processes: int) -> None:
    """That no loss compares samples with each other that several processes have each a part of."""
    several = len({use.teacher for use in plan.teachers}) > 1
    name = "dist" if plan.algorithm.kind == "dist" else "aekd" if plan.panel == "aekd" and several else ""
    if name and num_processes > 1:
        raise ParamsError(
            f"stage '{plan.name}': {name} compares the samples of a batch with each other, and each of {num_processes} "
            "processes has only a part of them; train it with EDPIPE_PROCESSES=1, or choose another method"
        )


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
    classroom.keep_easiest()
    if knobs.plan.trajectory is not None:
        store = _open_trajectory(knobs, files, classroom)
        classroom.trajectory = SoftLabelBatches(store, device, fit_in_memory([*stores, store], device))
    return classroom


def _open_trajectory(knobs: StageKnobsOfJob, files: StageFiles, classroom: Classroom) -> SoftLabelStore:
    """What the scratch teacher said, after every byte was checked, and that it saw what the student is to see."""
    assert files.trajectory is not None, "only stages with a trajectory come here"
    assert knobs.plan.trajectory is not None, "only stages with a trajectory come here"
    path, dataset, spec = files.trajectory, classroom.dataset, classroom.batches.spec
    record = read_record(record_path(path), "digest", "teacher_digest")
    ids = dataset.sample_ids("train")
    expected = Provenance(
        teacher=knobs.plan.trajectory.teacher,
        subset=ALL_CLASSES,
        teacher_digest=record["teacher_digest"],
        dataset_digest=dataset.digest,
        partition_digest="",
        view_spec=spec.canonical(),
        pixel_canary=classroom.batches.canary(ids),
        stream=stream_text(classroom.seed, knobs.recipe.batch_size, knobs.views.choice),
    )
    class_ids = np.arange(dataset.num_classes, dtype=np.int32)
    labels = open_soft_labels(path, expected, dataset.sample_keys, class_ids)
    _check_epochs(labels, knobs, ids)
    if labels.digest != record["digest"]:
        raise UnverifiedError(
            f"{record_path(path)}: speaks of trajectory {record['digest']!r}, at hand is {labels.digest!r}; record it "
            f"again with `snakemake --force {path}`"
        )
    store = SoftLabelStore((labels,))
    _check_sampled_at(store, knobs.plan, str(path), dataset)
    return store


def _check_epochs(labels: SoftLabels, knobs: StageKnobsOfJob, ids: np.ndarray) -> None:
    """That every sample has its logits in every epoch of the stage."""
    epochs = knobs.plan.budget.epochs
    if labels.views.first or labels.views.stop != epochs:
        raise OtherViewsError(
            f"{labels.path}: holds epochs {labels.views}, the stage has {epochs} epochs; give both the same number, "
            f"then `snakemake --force {labels.path}`"
        )
    if not np.array_equal(labels.sample_ids, ids):
        raise MissingRowsError(
            f"{labels.path}: holds {len(labels.sample_ids)} samples, the stage teaches {len(ids)}; record it again "
            f"with `snakemake --force {labels.path}`"
        )


def _open_store(index: Path, files: StageFiles, plan: StagePlan, dataset: Dataset) -> SoftLabelStore:
    """One teacher's soft labels, after every byte was checked, and that these are the ones that were verified."""
    own = [path for path in files.soft_labels if path.parent == index.with_suffix("")]
    store = open_store(own, sample_keys=dataset.sample_keys)
    check_verified(store, index)
    _check_sampled_at(store, plan, str(index.with_suffix("")), dataset)
    return store


def _check_sampled_at(store: SoftLabelStore, plan: StagePlan, where: str, dataset: Dataset) -> None:
    """That sampled rows serve the temperature of the stage."""
    if store.precision.temperature not in (None, plan.temperature):
        raise OtherTemperatureError(
            f"{where}: sampled at temperature {store.precision.temperature:g}, this stage teaches at "
            f"{plan.temperature:g}; use the same in soft_labels.{dataset.name}.storage.temperature and in the method"
        )


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


def _student(seed: int, knobs: StageKnobsOfJob, files: StageFiles, classroom: Classroom) -> tuple[Student, nn.Module]:
    """The student at the start of the stage, and what is trained: it, or it with what only its training needs."""
    network = build_network(knobs.student.model, classroom.dataset.num_classes, classroom.dataset.channels, seed)
    if files.previous is not None:
        weights, record = read_weights(files.previous)
        _check_previous(files.previous, record, classroom)
        classroom.previous_digest = record["weights_digest"]
        if knobs.plan.anchor_weight:
            classroom.predecessor = _predecessor(seed, knobs, weights, classroom)
        return _aided(network, knobs, classroom, weights)
    return _aided(network, knobs, classroom, None)


def _check_previous(path: Path, record: Mapping[str, Any], classroom: Classroom) -> None:
    wanted = {"dataset": classroom.dataset.digest, "partition": classroom.partition.digest}
    if {name: record["inputs"][name] for name in wanted} != wanted:
        raise MismatchError(f"{path}: was taught from another dataset or partition; run the stages again")


def _aided(
    network: nn.Module, knobs: StageKnobsOfJob, classroom: Classroom, weights: Mapping[str, Tensor] | None
) -> tuple[Student, nn.Module]:
    plan, dataset = knobs.plan, classroom.dataset
    kept = _kept(network, knobs, classroom)
    student = _student_of(network, knobs, classroom, plan.number, len(classroom.known_class_ids))
    if weights is not None:
        grow(student_weights(weights), student)
    if plan.teskd is not None:
        return student, TeskdNetwork(network, dataset.image_size, dataset.channels, classroom.seed)
    is_last = plan.number == plan.num_stages > 1
    if is_last and knobs.student.reference == "authors" and not kept and plan.algorithm.kind != "at":
        return student, ExtraNorm(network)
    ends = attention_ends(network, student) if plan.algorithm.kind == "at" else []
    hint = _hint(network, classroom) if plan.algorithm.kind == "fitnet" else None
    if not kept and not ends and hint is None:
        return student, student
    aided = Aided(student, ends, kept, hint)
    if kept and weights is not None:
        inherit_references(weights, aided)
    return student, aided


def _student_of(
    network: nn.Module, knobs: StageKnobsOfJob, classroom: Classroom, level: int, num_outputs: int
) -> Student:
    dataset = classroom.dataset
    return Student(
        network,
        level,
        knobs.plan.num_stages,
        num_outputs,
        knobs.student.reference,
        dataset.image_size,
        dataset.channels,
        classroom.seed,
    )


def _kept(network: nn.Module, knobs: StageKnobsOfJob, classroom: Classroom) -> Sequence[tuple[Tap, nn.Module]]:
    if not knobs.plan.kept:
        return []
    outputs = [len(columns) for columns in classroom.kept_columns]
    sizes = classroom.dataset.channels, classroom.dataset.image_size
    return kept_references(network, knobs.plan.num_stages, knobs.student.reference, outputs, sizes, classroom.seed)


def _hint(network: nn.Module, classroom: Classroom) -> Hint:
    """Raises:
    MissingRowsError: the soft labels hold no hints.
    """
    store = classroom.lessons[0].labels.store
    hint = store.hint_shape
    if hint is None:
        raise MissingRowsError(f"{store.files[0].path}: holds no hint; dump it with storage.hint (level, side)")
    shape = hint.channels, hint.height, hint.width
    sizes = classroom.dataset.channels, classroom.dataset.image_size
    return hint_of(network, hint.level, hint.side, shape, sizes, classroom.seed)


def _predecessor(seed: int, knobs: StageKnobsOfJob, weights: Mapping[str, Tensor], classroom: Classroom) -> nn.Module:
    """The student of the stage before, which no longer changes."""
    dataset = classroom.dataset
    network = build_network(knobs.student.model, dataset.num_classes, dataset.channels, seed)
    before = _student_of(network, knobs, classroom, knobs.plan.number - 1, len(classroom.anchored_columns))
    before.load(student_weights(weights))
    before.to(classroom.batches.device).to(memory_format=torch.channels_last)
    return before.eval().requires_grad_(False)


def _kept_weights(plan: StagePlan, student: Student, trainee: nn.Module) -> dict[str, Tensor]:
    """What the stage's file holds: earlier references go on to the next stage, after the last they are dropped."""
    is_last = plan.number == plan.num_stages
    is_more = isinstance(trainee, ExtraNorm) or (isinstance(trainee, Aided) and not is_last)
    return trainee.weights() if is_more else student.weights()  # type: ignore[operator]


def _training_macs(trainee: nn.Module, classroom: Classroom) -> int:
    """Multiply-accumulates of one image's way through everything that is trained or asked online."""
    sizes = classroom.dataset.channels, classroom.dataset.image_size
    before = 0 if classroom.predecessor is None else count_macs(classroom.predecessor, *sizes)
    return count_training_macs(trainee, *sizes) + before


def _certified(store: SoftLabelStore, temperature: float) -> float | None:
    """Nats; None for sampled rows, an estimate."""
    return None if store.precision.temperature is not None else store.kl_bound(temperature)


def _trajectory_facts(plan: StagePlan, classroom: Classroom) -> list[dict[str, object]]:
    """What the stage's record says of its trajectory, in the words of soft labels; empty if it has none."""
    if classroom.trajectory is None:
        return []
    store = classroom.trajectory.store
    return [_facts_of(store, plan)]


def _facts_of(store: SoftLabelStore, plan: StagePlan) -> dict[str, object]:
    return {
        "teacher": store.provenance.teacher,
        "subset": store.provenance.subset,
        "digests": store.digests,
        "teacher_digest": store.provenance.teacher_digest,
        "teacher_forwards": store.num_forwards,
        "kl_bound": _certified(store, plan.temperature),
    }


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
            "soft_labels": [_facts_of(store, knobs.plan) for store in stores],
            "trajectory": _trajectory_facts(knobs.plan, classroom),
        },
        seed=seed,
        known_class_ids=classroom.known_class_ids.tolist(),
        images_seen=images,
        taught_samples=classroom.stream.num_samples,
        taught_digest=classroom.taught_digest,
    )
