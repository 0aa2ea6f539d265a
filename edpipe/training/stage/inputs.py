"""Opens what one stage reads, and checks that it fits: dataset, partition, soft labels, trajectory."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import (
    MismatchError,
    MissingRowsError,
    OtherTemperatureError,
    OtherViewsError,
    UnverifiedError,
    remake,
)
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.plans.plan import StageJobKnobs, StagePlan, TeacherUse
from edpipe.soft_labels.batches import SoftLabelBatches, fit_in_memory
from edpipe.soft_labels.file.checks import check_content, check_provenance
from edpipe.soft_labels.file.format import Provenance
from edpipe.soft_labels.file.reader import SoftLabels, open_soft_labels
from edpipe.soft_labels.file.store import SoftLabelStore, check_verified, open_store
from edpipe.storage.job import Job
from edpipe.storage.records import read_record, record_path
from edpipe.training.sample_stream import stream_text
from edpipe.training.stage.task import StageTask
from edpipe.views.spec import ViewRange

RECORD_AGAIN = "record it again"


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

    @classmethod
    def of_job(cls, job: Job[StageJobKnobs]) -> "StageFiles":
        """Those of a job of run_stage."""
        paths = job.inputs
        return cls(
            job.input("dataset"),
            job.input("partition"),
            job.input_or_none("previous"),
            paths["indexes"],
            paths["soft_labels"],
            paths["teachers"],
            job.outputs[0],
            job.input_or_none("trajectory"),
        )


def open_stage(seed: int, knobs: StageJobKnobs, files: StageFiles, device: torch.device) -> StageTask:
    """The task of one stage, after all that it reads was checked.

    Raises:
        CorruptFileError: a file is damaged.
        MismatchError: a file was made from something else than what the stage asks for.
    """
    dataset = open_dataset(files.dataset)
    partition = read_partition(files.partition, dataset)
    stores = [_open_store(index, files, knobs.plan, dataset) for index in files.indexes]
    task = StageTask(seed, knobs, dataset, partition, stores, device)
    for store, teacher, use in zip(stores, files.teachers, knobs.plan.teachers, strict=True):
        _check_views(store, task)
        digest = read_record(teacher, "weights_digest")["weights_digest"]
        for labels in store.files:
            expected = _expected(labels.views, store, digest, use, task)
            check_provenance(labels.path, labels.provenance, expected)
    _check_taught(task, files)
    task.keep_share()
    if knobs.plan.trajectory is not None:
        store = _open_trajectory(knobs, files, task)
        task.trajectory = SoftLabelBatches(store, device, fit_in_memory([*stores, store], device))
    return task


def _open_trajectory(knobs: StageJobKnobs, files: StageFiles, task: StageTask) -> SoftLabelStore:
    """What the scratch teacher said, after every byte was checked, and that it saw what the student is to see."""
    assert files.trajectory is not None, "only stages with a trajectory come here"
    assert knobs.plan.trajectory is not None, "only stages with a trajectory come here"
    path, dataset, spec = files.trajectory, task.dataset, task.batches.spec
    record = read_record(record_path(path), "digest", "teacher_digest")
    ids = dataset.sample_ids("train")
    expected = Provenance(
        teacher=knobs.plan.trajectory.teacher,
        subset=ALL_CLASSES,
        teacher_digest=record["teacher_digest"],
        dataset_digest=dataset.digest,
        partition_digest="",
        view_spec=spec.canonical(),
        pixel_canary=task.batches.canary(ids),
        stream=stream_text(task.seed, knobs.recipe.batch_size, knobs.views.choice),
    )
    class_ids = np.arange(dataset.num_classes, dtype=np.int32)
    labels = open_soft_labels(path, expected, dataset.sample_keys, class_ids)
    _check_epochs(labels, knobs, ids)
    if labels.digest != record["digest"]:
        raise UnverifiedError(
            f"{record_path(path)}: speaks of trajectory {record['digest']!r}, at hand is {labels.digest!r}; "
            f"{remake(path, act=RECORD_AGAIN)}"
        )
    store = SoftLabelStore((labels,))
    _check_sampled_at(store, knobs.plan, str(path), dataset)
    return store


def _check_epochs(labels: SoftLabels, knobs: StageJobKnobs, ids: np.ndarray) -> None:
    """That every sample has its logits in every epoch of the stage."""
    epochs = knobs.plan.budget.epochs
    if labels.views.first or labels.views.stop != epochs:
        raise OtherViewsError(
            f"{labels.path}: holds epochs {labels.views}, the stage has {epochs} epochs; give both the same number, "
            f"then {remake(labels.path, act=RECORD_AGAIN)}"
        )
    if not np.array_equal(labels.sample_ids, ids):
        raise MissingRowsError(
            f"{labels.path}: holds {len(labels.sample_ids)} samples, the stage teaches {len(ids)}; "
            f"{remake(labels.path, act=RECORD_AGAIN)}"
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


def _check_views(store: SoftLabelStore, task: StageTask) -> None:
    """That the store holds the views that students see, and as many."""
    path, found, spec = store.files[0].path, store.provenance, task.batches.spec
    check_provenance(path, found, replace(found, view_spec=spec.canonical()))
    if store.num_views != spec.num_views:
        raise OtherViewsError(
            f"{path.parent}: holds {store.num_views} views of each image, students are to see {spec.num_views}; "
            f"dump and verify those of soft_labels.{task.dataset.name}.views with `snakemake`"
        )


def _expected(
    views: ViewRange, store: SoftLabelStore, teacher_digest: str, use: TeacherUse, task: StageTask
) -> Provenance:
    """What the soft labels of these views must have been made from."""
    dataset, partition = task.dataset, task.partition
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
        view_spec=task.batches.spec.canonical(),
        pixel_canary=task.batches.canary(ids, views.first, views.num_views),
    )


def _check_taught(task: StageTask, files: StageFiles) -> None:
    """Every taught class has a teacher, if there are teachers at all."""
    if not task.teachers:
        return
    wanted = task.partition.classes_of(task.knobs.plan.taught)
    covered = {int(c) for teacher in task.teachers for c in teacher.class_ids}
    missing = [task.dataset.class_names[c] for c in wanted if c not in covered]
    if missing:
        raise MismatchError(f"{files.out}: no soft labels for classes {missing[:5]}; dump a teacher that knows them")
