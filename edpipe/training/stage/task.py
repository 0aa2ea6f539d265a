"""The task of one stage: its samples in order, their views, the teachers' soft labels, and the loss."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor, nn

from edpipe.datasets.dataset_file import Dataset
from edpipe.datasets.partition import Partition
from edpipe.errors import OtherClassesError
from edpipe.losses.coarse import group_batch, group_logits
from edpipe.losses.fade import faded
from edpipe.losses.stage_terms import (
    StageBatch,
    StageOutputs,
    TeacherPair,
    TeacherTargets,
    batch_loss,
    restrict_classes,
)
from edpipe.models.forward import forward
from edpipe.models.students.outputs import StudentOutputs, student_outputs
from edpipe.params.plans.loss import Stored
from edpipe.params.plans.plan import StageJobKnobs, plain_kd
from edpipe.soft_labels.batches import SoftLabelBatches, fit_in_memory
from edpipe.soft_labels.difficulty import easiest, hardest, label_losses
from edpipe.soft_labels.encoding.softmax import rows_together
from edpipe.soft_labels.file.store import SoftLabelStore
from edpipe.storage.digests import digest_bytes
from edpipe.training.sample_stream import SampleStream, stage_seed
from edpipe.training.schedule import ImageMacs, num_images
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.resizing import resized
from edpipe.views.sampling import view_of
from edpipe.views.spec import ViewSpec

MAX_SCORED_VIEWS = 8
"""Of each sample, to find the easiest ones, or the hardest."""


@dataclass(frozen=True)
class TeacherLabels:
    """One teacher's soft labels, and where its classes sit among the student's outputs."""

    labels: SoftLabelBatches
    teacher_columns: Int64[Tensor, " class"]
    student_columns: Int64[Tensor, " class"]
    class_ids: Int64[np.ndarray, " class"]
    """Samples of these classes are taught by this teacher."""


class StageTask:
    """The opened inputs of one stage, its batches, and their loss: the task of its training."""

    def __init__(
        self,
        seed: int,
        knobs: StageJobKnobs,
        dataset: Dataset,
        partition: Partition,
        stores: list[SoftLabelStore],
        device: torch.device,
    ) -> None:
        plan = knobs.plan
        self.dataset, self.partition = dataset, partition
        self.knobs = knobs
        self.seed = stage_seed(seed, plan.number)
        self.previous_digest = ""
        self.known_class_ids = np.array(partition.classes_of(plan.known), dtype=np.int64)
        taught = tuple(dataset.sample_ids("train", partition.classes_of((subset,))) for subset in plan.taught)
        self.image_size = plan.budget.image_size or dataset.image_size
        """Side of what the network sees, pixels; views are made at the dataset's size."""
        self.macs = ImageMacs()
        """Of training, to be told once the network is built; counts where a budget is of compute."""
        self.taught_ids = taught
        """Of each taught subset."""
        self.stream = SampleStream(self.seed, taught, plan.subset_order)
        spec = ViewSpec.from_knobs(knobs.views, dataset.image_size)
        # Partners of mixed views are those that the teacher saw; teachers of the same samples saw the same ones.
        pools = tuple({s.sample_ids.tobytes(): s.sample_ids for s in stores}.values()) or taught
        self.batches = ViewBatches(dataset, spec, device, pools if spec.mixing is not None else ())
        is_resident = fit_in_memory(stores, self.batches.device)
        self.teachers = [_teacher_labels(self, store, is_resident) for store in stores]
        self.kept_columns = [self._columns_of(subsets) for subsets in plan.kept]
        self.anchored_columns = self._columns_of(plan.anchored)
        self.fading_columns = self._columns_of(plan.fading)
        self.groups = self._subset_numbers() if plan.coarse else None
        """Of each of the student's outputs, if losses are taken over subsets."""
        self.predecessor: nn.Module | None = None
        """The student of the stage before, if the student is anchored to it."""
        self.trajectory: SoftLabelBatches | None = None
        """What a teacher said while it learnt beside a student of this seed; epochs stand for views."""
        self.watches_maps = Stored.ATTENTION in plan.algorithm.stored

    @property
    def num_workers(self) -> int:
        """Threads that make batches ahead, see `ViewBatches.num_workers`."""
        return self.batches.num_workers

    @property
    def taught_digest(self) -> str:
        """Of which samples are taught."""
        return digest_bytes(np.concatenate(self.taught_ids).tobytes())

    @property
    def num_images(self) -> int:
        """Images that the stage shows."""
        return num_images(self.knobs.plan.budget, self.stream.num_samples, self.macs)

    def keep_share(self) -> None:
        """Teaches the plan's share of each class: what its teachers name best, or worst; once stores are checked."""
        plan, labels = self.knobs.plan, self.dataset.labels
        choose, share = (easiest, plan.easiest) if plan.hardest == 1 else (hardest, plan.hardest)
        if share < 1:
            kept = (choose(ids, labels[ids], self._mean_losses(ids), share) for ids in self.taught_ids)
            self.taught_ids = tuple(kept)
            self.stream = SampleStream(self.seed, self.taught_ids, self.knobs.plan.subset_order)

    def _mean_losses(self, ids: Int64[np.ndarray, " sample"]) -> Float64[np.ndarray, " sample"]:
        """Cross-entropy of each sample in its teachers' stored logits, over all classes of each, nats; the mean of all.

        Of the first views, which lie in the store's first file.
        """
        losses, count = np.zeros(len(ids)), np.zeros(len(ids))
        for teacher in self.teachers:
            rows = np.flatnonzero(np.isin(self.dataset.labels[ids], teacher.class_ids))
            together = rows_together(len(teacher.class_ids))
            for some in np.split(rows, range(together, len(rows), together)):
                losses[some] += _losses_of(teacher.labels.store, ids[some], self.dataset.labels[ids[some]])
            count[rows] += 1
        return losses / count

    def batch(self, start: int, stop: int) -> StageBatch:
        """The samples at positions start … stop-1: their views, labels, and what their teachers say of them."""
        epochs, ids = self.stream.slice(start, stop)
        views = view_of(self.seed, epochs, ids, self.batches.spec.num_views, self.knobs.views.choice)
        # Of the iteration's first sample: the same for all processes that share it.
        size = self.knobs.recipe.batch_size
        first = start // size * size
        total, (begin, end) = self.num_images, self.knobs.plan.span
        progress = begin + first / total * (end - begin)
        together, fade_in = min(size, total - first), self.knobs.plan.fade_in
        batch = replace(self.batch_of(ids, views), progress=progress, num_together=together)
        if fade_in:
            batch = replace(batch, own_share=min(1.0, first / total / fade_in))
        return batch if self.trajectory is None else replace(batch, scratch=self.trajectory.logits(ids, epochs))

    def batch_of(self, ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]) -> StageBatch:
        """The given view of each sample."""
        seen = resized(self.batches.views(ids, views), self.image_size)
        images = normalise(seen, self.dataset.mean, self.dataset.std)
        count = sum(np.isin(self.dataset.labels[ids], teacher.class_ids).astype(np.int64) for teacher in self.teachers)
        targets = [self._targets_of(teacher, ids, views, np.asarray(count)) for teacher in self.teachers]
        return StageBatch(images, self._columns(self.dataset.labels[ids]), self._other(ids, views), targets)

    def loss(self, network: nn.Module, batch: StageBatch) -> Float[Tensor, " sample"]:
        """Each sample's loss, nats: the student's own, those of kept references, and that against its predecessor."""
        plan = self.knobs.plan
        outputs = student_outputs(network, batch.images, self.knobs.recipe)
        if plan.own_loss is not None:
            return plan.own_loss.losses(StageOutputs(plan, outputs, batch))
        assert isinstance(outputs, StudentOutputs), "only a loss of its own comes with a network of its own"
        logits = outputs.logits
        if plan.fading:
            logits = faded(logits, outputs.earlier[-1], self.fading_columns, batch.own_share)
        losses = self._batch_loss(logits, batch, self.groups, outputs)
        # Behind kept references may come one that only fades.
        for columns, earlier in zip(self.kept_columns, outputs.earlier, strict=False):
            rows, part = restrict_classes(batch, columns, len(self.known_class_ids))
            if len(rows):
                own = plan.reference_weight * self._batch_loss(earlier[rows], part, self._groups_of(columns))
                losses = losses + torch.zeros_like(losses).index_put((rows,), own)
        if self.predecessor is not None:
            losses = losses + plan.anchor_weight * self._anchor(logits, batch)
        return losses

    def _batch_loss(
        self,
        logits: Float[Tensor, "sample head"],
        batch: StageBatch,
        groups: Int64[Tensor, " head"] | None,
        outputs: StudentOutputs | None = None,
    ) -> Float[Tensor, " sample"]:
        """Of classes, or of groups of them."""
        if groups is None:
            return batch_loss(self.knobs.plan, logits, batch, outputs)
        return batch_loss(self.knobs.plan, group_logits(logits, groups), group_batch(batch, groups), outputs)

    def _groups_of(self, columns: Int64[Tensor, " class"]) -> Int64[Tensor, " class"] | None:
        """Of some outputs, without gaps."""
        return None if self.groups is None else torch.unique(self.groups[columns], return_inverse=True)[1]

    def _subset_numbers(self) -> Int64[Tensor, " head"]:
        """Of each of the student's outputs the number of its subset."""
        numbers = torch.empty(len(self.known_class_ids), dtype=torch.int64, device=self.batches.device)
        for number, subset in enumerate(self.knobs.plan.known):
            numbers[self._columns_of((subset,))] = number
        return numbers

    def _anchor(self, logits: Float[Tensor, "sample head"], batch: StageBatch) -> Float[Tensor, " sample"]:
        """Each sample's kd loss against the student of the stage before, on the classes that it knew."""
        plan = self.knobs.plan
        assert self.predecessor is not None, "only anchored stages come here"
        with torch.no_grad():
            teacher_logits = forward(self.predecessor, batch.images, self.knobs.recipe)
        rows = torch.arange(len(logits), device=logits.device)
        targets = TeacherTargets(rows, teacher_logits, self.anchored_columns, torch.ones_like(logits[:, 0]))
        return plain_kd().losses(TeacherPair(logits, targets, batch, None, plan.temperature, "slice"))

    def _other(
        self, ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> tuple[Int64[Tensor, " sample"], Float[Tensor, " sample"]] | None:
        if self.batches.spec.mixing is None:
            return None
        mix = self.batches.mix(ids, views)
        share = torch.from_numpy(mix.own_share).to(self.batches.device)
        return self._columns(self.dataset.labels[mix.partner_ids]), share

    def _targets_of(
        self,
        teacher: TeacherLabels,
        ids: Int64[np.ndarray, " sample"],
        views: Int64[np.ndarray, " sample"],
        count: Int64[np.ndarray, " sample"],
    ) -> TeacherTargets:
        """What one teacher says; `count` of them teach each sample."""
        rows, device = np.flatnonzero(np.isin(self.dataset.labels[ids], teacher.class_ids)), self.batches.device
        taught = teacher.labels.logits(ids[rows], views[rows])[:, teacher.teacher_columns]
        share = torch.from_numpy((1 / count[rows]).astype(np.float32)).to(device)
        # Of its own number: teachers of several families have more maps or fewer.
        num_maps = len(teacher.labels.store.files[0].header.attention_sizes) if self.watches_maps else 0
        maps = tuple(
            torch.from_numpy(teacher.labels.store.attention(level, ids[rows], views[rows])).to(device)
            for level in range(1, num_maps + 1)
        )
        hint = None
        if Stored.HINT in self.knobs.plan.algorithm.stored:
            hint = torch.from_numpy(teacher.labels.store.hint(ids[rows], views[rows])).to(device)
        return TeacherTargets(torch.from_numpy(rows).to(device), taught, teacher.student_columns, share, maps, hint)

    def _columns_of(self, subsets: tuple[str, ...]) -> Int64[Tensor, " class"]:
        """Where the classes of these subsets sit among the student's outputs."""
        return self._columns(np.array(self.partition.classes_of(subsets), dtype=np.int64))

    def _columns(self, class_ids: np.ndarray) -> Int64[Tensor, " sample"]:
        """Where these classes sit among the student's outputs."""
        return torch.from_numpy(np.searchsorted(self.known_class_ids, class_ids)).to(self.batches.device)


def _losses_of(
    store: SoftLabelStore, ids: Int64[np.ndarray, " sample"], labels: Int32[np.ndarray, " sample"]
) -> Float64[np.ndarray, " sample"]:
    """Mean cross-entropy of each sample over the first views, nats."""
    views, columns = range(store.files[0].views.stop)[:MAX_SCORED_VIEWS], np.searchsorted(store.class_ids, labels)
    return np.mean([label_losses(store.logits(ids, np.full_like(ids, view)), columns) for view in views], axis=0)


def _teacher_labels(task: StageTask, store: SoftLabelStore, is_resident: bool) -> TeacherLabels:
    known, device = task.known_class_ids, task.batches.device
    taught = np.flatnonzero(np.isin(store.class_ids, known))
    if store.precision.temperature is not None and len(taught) < len(store.class_ids):
        raise OtherClassesError(
            f"{store.files[0].path.parent}: sampled rows estimate the softmax over all {len(store.class_ids)} classes "
            f"of the teacher, this stage knows {len(taught)} of them; use another precision, or specialists"
        )
    class_ids = store.class_ids[taught].astype(np.int64)
    columns = torch.from_numpy(np.searchsorted(known, class_ids)).to(device)
    labels = SoftLabelBatches(store, device, is_resident)
    return TeacherLabels(labels, torch.from_numpy(taught).to(device), columns, class_ids)
