"""Trains the student of one experiment and seed through one stage of its curriculum."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from edpipe.batches import ViewBatches
from edpipe.device import prepare_device
from edpipe.errors import MismatchError
from edpipe.losses import combine, slice_kd_loss, task_loss
from edpipe.methods.curriculum import StagePlan, TeacherUse
from edpipe.models.student import Student, grow
from edpipe.models.zoo import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import ViewKnobs
from edpipe.params.student import StudentKnobs
from edpipe.partition import Partition
from edpipe.pixels import normalise
from edpipe.progress import watch
from edpipe.schedule import SampleStream, num_images
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.partition_file import read_partition
from edpipe.storage.records import make_record, read_record
from edpipe.storage.soft_label_file import Provenance, SoftLabels, open_soft_labels, read_provenance
from edpipe.storage.weights import read_weights, write_weights
from edpipe.training import Budget, fit, forward
from edpipe.views import ViewSpec, view_of


@dataclass(frozen=True)
class StageKnobsOfJob:
    """What a stage is told by params.yaml."""

    plan: StagePlan
    student: StudentKnobs
    recipe: RecipeKnobs
    views: ViewKnobs


@dataclass(frozen=True)
class StageFiles:
    """What a stage reads and writes."""

    dataset: Path
    partition: Path
    previous: Path | None
    soft_labels: tuple[Path, ...]
    teachers: tuple[Path, ...]
    """Records of the teachers that the soft labels must come from, in the same order."""
    out: Path


@dataclass(frozen=True)
class Lesson:
    """One teacher's soft labels, and where its classes sit among the student's outputs."""

    labels: SoftLabels
    teacher_columns: Int64[np.ndarray, " class"]
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
        self, seed: int, knobs: StageKnobsOfJob, dataset: Dataset, partition: Partition, lessons: list[Lesson]
    ) -> None:
        plan = knobs.plan
        self.dataset, self.partition, self.lessons = dataset, partition, lessons
        self.knobs = knobs
        self.seed = _stage_seed(seed, plan.number)
        self.previous_digest = ""
        self.batches = ViewBatches(dataset, ViewSpec.from_knobs(knobs.views, dataset.image_size), prepare_device())
        self.known_class_ids = np.array(partition.classes_of(plan.known), dtype=np.int64)
        taught = tuple(dataset.sample_ids("train", partition.classes_of((subset,))) for subset in plan.taught)
        self.stream = SampleStream(self.seed, taught, plan.mixing)

    def loss(self, student: Student, start: int, stop: int) -> Float[Tensor, ""]:
        """Mean loss of the samples at positions start … stop-1."""
        plan = self.knobs.plan
        epochs, ids = self.stream.slice(start, stop)
        views = view_of(self.seed, epochs, ids, self.batches.spec.num_views)
        images = normalise(self.batches.views(ids, views), self.dataset.mean, self.dataset.std)
        logits = forward(student, images, self.knobs.recipe)
        task = task_loss(logits, self._columns(self.dataset.labels[ids]), plan.label_smoothing)
        if not self.lessons:
            return task.mean()
        return combine(task, self._kd(logits, ids, views), plan.task_weight)

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
            targets = self._targets(lesson, ids[rows], views[rows], logits.device)
            on_device = torch.from_numpy(rows).to(logits.device)
            kd = slice_kd_loss(logits[on_device], targets, lesson.student_columns, plan.temperature, plan.normalisation)
            losses = losses.index_put((on_device,), kd)
        return losses

    def _targets(
        self, lesson: Lesson, ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"], device: torch.device
    ) -> Float[Tensor, "row class"]:
        logits: Float32[np.ndarray, "row class"] = lesson.labels.logits(ids, views)
        return torch.from_numpy(np.ascontiguousarray(logits[:, lesson.teacher_columns])).to(device)

    def _columns(self, class_ids: np.ndarray) -> Int64[Tensor, " sample"]:
        """Where these classes sit among the student's outputs."""
        return torch.from_numpy(np.searchsorted(self.known_class_ids, class_ids)).to(self.batches.device)


def _stage_seed(seed: int, number: int) -> int:
    """Of sample order and view choice: another for each stage, so that no stage repeats the one before."""
    return (seed << 8) + number


def _open(seed: int, knobs: StageKnobsOfJob, files: StageFiles) -> Classroom:
    dataset = open_dataset(files.dataset)
    partition = read_partition(files.partition, dataset)
    classroom = Classroom(seed, knobs, dataset, partition, [])
    for path, teacher, use in zip(files.soft_labels, files.teachers, knobs.plan.teachers, strict=True):
        digest = read_record(teacher, "weights_digest")["weights_digest"]
        labels = open_soft_labels(path, _expected(path, digest, use, classroom), dataset.sample_keys)
        classroom.lessons.append(_lesson(classroom, labels))
    _check_taught(classroom, files)
    return classroom


def _expected(path: Path, teacher_digest: str, use: TeacherUse, classroom: Classroom) -> Provenance:
    """What the soft labels must have been made from."""
    found = read_provenance(path)
    spec = classroom.batches.spec
    dataset = classroom.dataset
    is_specialist = bool(found.partition_digest)
    class_ids = classroom.partition.classes_of((use.subset,)) if is_specialist else None
    return Provenance(
        teacher=use.teacher,
        subset=use.subset,
        teacher_digest=teacher_digest,
        dataset_digest=dataset.digest,
        partition_digest=classroom.partition.digest if is_specialist else "",
        view_spec=spec.canonical(),
        pixel_canary=classroom.batches.canary(dataset.sample_ids("train", class_ids)),
        precision=found.precision,
    )


def _lesson(classroom: Classroom, labels: SoftLabels) -> Lesson:
    known = classroom.known_class_ids
    taught = np.flatnonzero(np.isin(labels.class_ids, known))
    class_ids = labels.class_ids[taught].astype(np.int64)
    columns = torch.from_numpy(np.searchsorted(known, class_ids)).to(classroom.batches.device)
    return Lesson(labels, taught, columns, class_ids)


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


def _record(
    seed: int, knobs: StageKnobsOfJob, classroom: Classroom, images: int, final_loss: float
) -> dict[str, object]:
    sources = [lesson.labels for lesson in classroom.lessons]
    return make_record(
        "run_stage",
        {"plan": knobs.plan, "student": knobs.student, "recipe": knobs.recipe, "views": knobs.views},
        {
            "dataset": classroom.dataset.digest,
            "partition": classroom.partition.digest,
            "previous": classroom.previous_digest,
            "soft_labels": [
                {
                    "teacher": labels.provenance.teacher,
                    "subset": labels.provenance.subset,
                    "digest": labels.digest,
                    "teacher_digest": labels.provenance.teacher_digest,
                    "teacher_forwards": labels.num_forwards,
                    "kl_bound": labels.kl_bound(knobs.plan.temperature),
                }
                for labels in sources
            ],
        },
        seed=seed,
        known_class_ids=classroom.known_class_ids.tolist(),
        images_seen=images,
        taught_samples=classroom.stream.num_samples,
        final_loss=final_loss,
    )
