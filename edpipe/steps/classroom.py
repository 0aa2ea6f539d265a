"""What is taught in one stage: the samples in their order, their views, what the teachers say, and the loss."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from edpipe.batches import ViewBatches
from edpipe.errors import OtherClassesError
from edpipe.forward import forward
from edpipe.losses import combine, slice_kd_loss, task_loss
from edpipe.methods.curriculum import StagePlan
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StudentViews
from edpipe.params.student import StudentKnobs
from edpipe.partition import Partition
from edpipe.pixels import normalise
from edpipe.schedule import SampleStream
from edpipe.soft_label_batches import SoftLabelBatches, fit_in_memory
from edpipe.storage.dataset_file import Dataset
from edpipe.storage.soft_label_store import SoftLabelStore
from edpipe.views import ViewSpec, view_of


@dataclass(frozen=True)
class StageKnobsOfJob:
    """What a stage is told by params.yaml."""

    plan: StagePlan
    student: StudentKnobs
    recipe: RecipeKnobs
    views: StudentViews


@dataclass(frozen=True)
class Lesson:
    """One teacher's soft labels, and where its classes sit among the student's outputs."""

    labels: SoftLabelBatches
    teacher_columns: Int64[Tensor, " class"]
    student_columns: Int64[Tensor, " class"]
    class_ids: Int64[np.ndarray, " class"]
    """Samples of these classes are taught by this teacher."""


@dataclass(frozen=True)
class Teaching:
    """What one teacher says of the samples of a batch that it teaches."""

    rows: Int64[Tensor, " row"]
    """Which samples of the batch."""
    logits: Float[Tensor, "row class"]
    columns: Int64[Tensor, " class"]
    """Where these classes sit among the student's outputs."""


@dataclass(frozen=True)
class Batch:
    """What the loss of some samples needs besides the student; on the training device."""

    images: Float[Tensor, "sample channel height width"]
    """Normalised."""
    labels: Int64[Tensor, " sample"]
    """As positions among the student's outputs."""
    other: tuple[Int64[Tensor, " sample"], Float[Tensor, " sample"]] | None
    """Of mixed views: the other image's labels, and the share of the own one."""
    teachings: list[Teaching]


class Classroom:
    """The opened inputs of one stage, its batches, and their loss: the task of its training."""

    def __init__(
        self,
        seed: int,
        knobs: StageKnobsOfJob,
        dataset: Dataset,
        partition: Partition,
        stores: list[SoftLabelStore],
        device: torch.device,
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
        self.batches = ViewBatches(dataset, spec, device, pools)
        is_resident = fit_in_memory(stores, self.batches.device)
        self.lessons = [_lesson(self, store, is_resident) for store in stores]

    @property
    def num_workers(self) -> int:
        """Threads that make batches ahead, see `ViewBatches.num_workers`."""
        return self.batches.num_workers

    def batch(self, start: int, stop: int) -> Batch:
        """The samples at positions start … stop-1: their views, labels, and what their teachers say of them."""
        epochs, ids = self.stream.slice(start, stop)
        return self.batch_of(ids, view_of(self.seed, epochs, ids, self.batches.spec.num_views, self.knobs.views.choice))

    def batch_of(self, ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]) -> Batch:
        """The given view of each sample."""
        images = normalise(self.batches.views(ids, views), self.dataset.mean, self.dataset.std)
        teachings = [self._teaching(lesson, ids, views) for lesson in self.lessons]
        return Batch(images, self._columns(self.dataset.labels[ids]), self._other(ids, views), teachings)

    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, " sample"]:
        """Each sample's weighted mean of task loss and kd loss, nats."""
        plan = self.knobs.plan
        logits = forward(network, batch.images, self.knobs.recipe)
        task = self._task(logits, batch)
        return combine(task, self._kd(logits, batch), plan.task_weight) if self.lessons else task

    def _other(
        self, ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> tuple[Int64[Tensor, " sample"], Float[Tensor, " sample"]] | None:
        if self.batches.spec.mixing is None:
            return None
        mix = self.batches.mix(ids, views)
        share = torch.from_numpy(mix.own_share).to(self.batches.device)
        return self._columns(self.dataset.labels[mix.partner_ids]), share

    def _teaching(
        self, lesson: Lesson, ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> Teaching:
        rows = np.flatnonzero(np.isin(self.dataset.labels[ids], lesson.class_ids))
        taught = lesson.labels.logits(ids[rows], views[rows])[:, lesson.teacher_columns]
        return Teaching(torch.from_numpy(rows).to(self.batches.device), taught, lesson.student_columns)

    def _task(self, logits: Float[Tensor, "sample head"], batch: Batch) -> Float[Tensor, " sample"]:
        """Each sample's loss against its label; of a mixed view against both labels, by their shares."""
        smoothing = self.knobs.plan.label_smoothing
        own = task_loss(logits, batch.labels, smoothing)
        if batch.other is None:
            return own
        labels, share = batch.other
        return share * own + (1 - share) * task_loss(logits, labels, smoothing)

    def _kd(self, logits: Float[Tensor, "sample head"], batch: Batch) -> Float[Tensor, " sample"]:
        """Each sample's divergence from the teacher of its class."""
        plan = self.knobs.plan
        losses = torch.zeros(len(logits), device=logits.device)
        for teaching in batch.teachings:
            rows = teaching.rows
            kd = slice_kd_loss(logits[rows], teaching.logits, teaching.columns, plan.temperature, plan.normalisation)
            losses = losses.index_put((rows,), kd)
        return losses

    def _columns(self, class_ids: np.ndarray) -> Int64[Tensor, " sample"]:
        """Where these classes sit among the student's outputs."""
        return torch.from_numpy(np.searchsorted(self.known_class_ids, class_ids)).to(self.batches.device)


def _stage_seed(seed: int, number: int) -> int:
    """Of sample order and view choice: another for each stage, so that no stage repeats the one before."""
    return (seed << 8) + number


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
