"""Trains the student of one experiment and seed through one stage of its curriculum."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from edpipe.batches import ViewBatches
from edpipe.device import prepare_device
from edpipe.errors import MismatchError, OtherClassesError, OtherTemperatureError, OtherViewsError
from edpipe.losses import combine, slice_kd_loss, task_loss
from edpipe.methods.curriculum import StagePlan, TeacherUse
from edpipe.models.student import Student, grow
from edpipe.models.zoo import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StudentViews
from edpipe.params.student import StudentKnobs
from edpipe.partition import Partition
from edpipe.pixels import normalise
from edpipe.progress import watch
from edpipe.schedule import SampleStream, num_images
from edpipe.soft_label_batches import SoftLabelBatches, fit_in_memory
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.partition_file import read_partition
from edpipe.storage.records import make_record, read_record
from edpipe.storage.soft_label_checks import check_content, check_provenance
from edpipe.storage.soft_label_format import Provenance
from edpipe.storage.soft_label_store import SoftLabelStore, check_verified, open_store
from edpipe.storage.weights import read_weights, write_weights
from edpipe.training import Budget, fit, forward
from edpipe.views import ViewRange, ViewSpec, view_of


@dataclass(frozen=True)
class StageKnobsOfJob:
    """What a stage is told by params.yaml."""

    plan: StagePlan
    student: StudentKnobs
    recipe: RecipeKnobs
    views: StudentViews


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


@dataclass(frozen=True)
class Lesson:
    """One teacher's soft labels, and where its classes sit among the student's outputs."""

    labels: SoftLabelBatches
    teacher_columns: Int64[Tensor, " class"]
    student_columns: Int64[Tensor, " class"]
    class_ids: Int64[np.ndarray, " class"]
    """Samples of these classes are taught by this teacher."""


def run_stage(title: str, seed: int, knobs: StageKnobsOfJob, files: StageFiles) -> None:
    """Writes the student's weights after the stage, and their record.

    Raises:
        CorruptFileError: an input is damaged.
        MismatchError: inputs that do not belong together, such as soft labels of another teacher, dataset or views.
        NetworkError: the student cannot be split into that many blocks.
        TrainingError: the loss is no longer a finite number.
    """
    classroom = _open(seed, knobs, files)
    student, inherited = _student(seed, knobs, files, classroom)
    classroom.previous_digest = inherited
    total = num_images(knobs.plan.budget, classroom.stream.num_samples)
    budget = Budget(total, knobs.plan.budget.learning_rate, knobs.plan.window)
    student.to(classroom.batches.device).to(memory_format=torch.channels_last)
    progress = fit(student, knobs.recipe, budget, lambda start, stop: classroom.loss(student, start, stop))
    final_loss = watch(title, total, classroom.stream.num_samples, progress)
    write_weights(files.out, student.weights(), _record(seed, knobs, classroom, total, final_loss))


class Classroom:
    """The opened inputs of one stage, and the loss of a batch of positions."""

    def __init__(
        self,
        seed: int,
        knobs: StageKnobsOfJob,
        dataset: Dataset,
        partition: Partition,
        stores: list[SoftLabelStore],
    ) -> None:
        plan = knobs.plan
        self.dataset, self.partition = dataset, partition
        self.knobs = knobs
        self.seed = _stage_seed(seed, plan.number)
        self.previous_digest = ""
        self.known_class_ids = np.array(partition.classes_of(plan.known), dtype=np.int64)
        taught = tuple(dataset.sample_ids("train", partition.classes_of((subset,))) for subset in plan.taught)
        self.stream = SampleStream(self.seed, taught, plan.mixing)
        # Partners of mixed views are those that the teacher saw.
        pools = tuple(store.sample_ids for store in stores) or taught
        spec = ViewSpec.from_knobs(knobs.views, dataset.image_size)
        self.batches = ViewBatches(dataset, spec, prepare_device(), pools)
        is_resident = fit_in_memory(stores, self.batches.device)
        self.lessons = [_lesson(self, store, is_resident) for store in stores]

    def loss(self, student: Student, start: int, stop: int) -> Float[Tensor, ""]:
        """Mean loss of the samples at positions start … stop-1."""
        plan = self.knobs.plan
        epochs, ids = self.stream.slice(start, stop)
        views = view_of(self.seed, epochs, ids, self.batches.spec.num_views, self.knobs.views.choice)
        images = normalise(self.batches.views(ids, views), self.dataset.mean, self.dataset.std)
        logits = forward(student, images, self.knobs.recipe)
        task = self._task(logits, ids, views)
        if not self.lessons:
            return task.mean()
        return combine(task, self._kd(logits, ids, views), plan.task_weight)

    def _task(
        self,
        logits: Float[Tensor, "sample head"],
        ids: Int64[np.ndarray, " sample"],
        views: Int64[np.ndarray, " sample"],
    ) -> Float[Tensor, " sample"]:
        """Each sample's loss against its label; of a mixed view against both labels, by their shares."""
        smoothing = self.knobs.plan.label_smoothing
        own = task_loss(logits, self._columns(self.dataset.labels[ids]), smoothing)
        if self.batches.spec.mixing is None:
            return own
        mix = self.batches.mix(ids, views)
        share = torch.from_numpy(mix.own_share).to(logits.device)
        other = task_loss(logits, self._columns(self.dataset.labels[mix.partner_ids]), smoothing)
        return share * own + (1 - share) * other

    def _kd(
        self,
        logits: Float[Tensor, "sample head"],
        ids: Int64[np.ndarray, " sample"],
        views: Int64[np.ndarray, " sample"],
    ) -> Float[Tensor, " sample"]:
        """Each sample's divergence from the teacher of its class."""
        plan = self.knobs.plan
        losses = torch.zeros(len(ids), device=logits.device)
        for lesson in self.lessons:
            rows = np.flatnonzero(np.isin(self.dataset.labels[ids], lesson.class_ids))
            if len(rows) == 0:
                continue
            taught = lesson.labels.logits(ids[rows], views[rows])[:, lesson.teacher_columns]
            on_device = torch.from_numpy(rows).to(logits.device)
            kd = slice_kd_loss(logits[on_device], taught, lesson.student_columns, plan.temperature, plan.normalisation)
            losses = losses.index_put((on_device,), kd)
        return losses

    def _columns(self, class_ids: np.ndarray) -> Int64[Tensor, " sample"]:
        """Where these classes sit among the student's outputs."""
        return torch.from_numpy(np.searchsorted(self.known_class_ids, class_ids)).to(self.batches.device)


def _stage_seed(seed: int, number: int) -> int:
    """Of sample order and view choice: another for each stage, so that no stage repeats the one before."""
    return (seed << 8) + number


def _open(seed: int, knobs: StageKnobsOfJob, files: StageFiles) -> Classroom:
    dataset = open_dataset(files.dataset)
    partition = read_partition(files.partition, dataset)
    stores = [_open_store(index, files, knobs.plan, dataset) for index in files.indexes]
    classroom = Classroom(seed, knobs, dataset, partition, stores)
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


def _lesson(classroom: Classroom, store: SoftLabelStore, is_resident: bool) -> Lesson:
    known, device = classroom.known_class_ids, classroom.batches.device
    taught = np.flatnonzero(np.isin(store.class_ids, known))
    if store.precision.temperature is not None and len(taught) < len(store.class_ids):
        raise OtherClassesError(
            f"{store.files[0].path.parent}: sampled rows estimate the softmax over all {len(store.class_ids)} classes "
            f"of the teacher, this stage knows {len(taught)} of them; use another precision, or specialists"
        )
    class_ids = store.class_ids[taught].astype(np.int64)
    columns = torch.from_numpy(np.searchsorted(known, class_ids)).to(device)
    labels = SoftLabelBatches(store, device, is_resident)
    return Lesson(labels, torch.from_numpy(taught).to(device), columns, class_ids)


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


def _record(
    seed: int, knobs: StageKnobsOfJob, classroom: Classroom, images: int, final_loss: float
) -> dict[str, object]:
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
        final_loss=final_loss,
    )
