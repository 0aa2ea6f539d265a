"""Trains one teacher on what students of a seed see, and stores what it says of each sample in each epoch.

The teacher's logits are those that its own loss was computed of: in training mode, before the update, on the very
batch. It gets no gradient from any student, so that learning first and being replayed equals learning beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from edpipe.batches import ViewBatches
from edpipe.device import prepare_device
from edpipe.errors import EdpipeError, ParamsError
from edpipe.forward import forward
from edpipe.models.resize import resize_images
from edpipe.models.zoo import build_network
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StorageKnobs, StudentViews
from edpipe.params.teacher import FittingKnobs, NetworkKnobs
from edpipe.pixels import normalise
from edpipe.precisions import make_precision
from edpipe.progress import announce
from edpipe.schedule import SampleStream
from edpipe.steps.fitting import Fitting
from edpipe.storage.checkpoint import Checkpoints
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.records import code_digest, digest_json, library_versions, make_record, read_record, record_path
from edpipe.storage.soft_label_file import open_soft_labels
from edpipe.storage.soft_label_format import Header, Provenance
from edpipe.storage.soft_label_writer import adopt_soft_labels, create_soft_labels
from edpipe.storage.trajectory import TrajectoryRecorder, trajectory_header
from edpipe.streams import stage_seed, stream_text
from edpipe.training import Budget, Training
from edpipe.views import ViewRange, ViewSpec, view_of

STAGE = 1
"""Students with a trajectory have this one stage."""
WAITING = "waiting."
"""Prefix of the tensors of epochs that are not whole yet in a checkpoint."""


@dataclass(frozen=True)
class TrajectoryKnobs:
    """What a recording is told by params.yaml."""

    network: NetworkKnobs
    fitting: FittingKnobs
    recipe: RecipeKnobs
    views: StudentViews
    storage: StorageKnobs


@dataclass(frozen=True)
class SharedBatch:
    """What teacher and student both see in one iteration."""

    epochs: Int64[np.ndarray, " sample"]
    sample_ids: Int64[np.ndarray, " sample"]
    images: Float[Tensor, "sample channel height width"]
    """Normalised."""
    labels: Int64[Tensor, " sample"]
    other: tuple[Int64[Tensor, " sample"], Float[Tensor, " sample"]] | None
    """Of mixed views: the other image's labels, and the share of the own one."""


class SharedLessons:
    """The samples and views that students of a seed see, in their batches.

    Args:
        seed: of the students.
        views: that they see.
        dataset: whose training samples.
        device: where batches are wanted.
    """

    def __init__(self, seed: int, views: StudentViews, dataset: Dataset, device: torch.device) -> None:
        self.seed, self.dataset, self._views = stage_seed(seed, STAGE), dataset, views
        self.sample_ids = dataset.sample_ids("train")
        self.stream = SampleStream(self.seed, (self.sample_ids,), "mixed")
        self.batches = ViewBatches(dataset, ViewSpec.from_knobs(views, dataset.image_size), device, (self.sample_ids,))

    def batch(self, start: int, stop: int) -> SharedBatch:
        """The samples at positions start … stop-1."""
        epochs, ids = self.stream.slice(start, stop)
        views = view_of(self.seed, epochs, ids, self.batches.spec.num_views, self._views.choice)
        images = normalise(self.batches.views(ids, views), self.dataset.mean, self.dataset.std)
        return SharedBatch(epochs, ids, images, self._labels(ids), self._other(ids, views))

    def _labels(self, sample_ids: Int64[np.ndarray, " sample"]) -> Int64[Tensor, " sample"]:
        return torch.from_numpy(self.dataset.labels[sample_ids].astype(np.int64)).to(self.batches.device)

    def _other(
        self, ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> tuple[Int64[Tensor, " sample"], Float[Tensor, " sample"]] | None:
        if self.batches.spec.mixing is None:
            return None
        mix = self.batches.mix(ids, views)
        return self._labels(mix.partner_ids), torch.from_numpy(mix.own_share).to(self.batches.device)


class ScratchLessons:
    """What the scratch teacher learns, and where what it says is recorded. The task of its training."""

    def __init__(self, shared: SharedLessons, recipe: RecipeKnobs, recorder: TrajectoryRecorder) -> None:
        self._shared, self._recipe, self._recorder = shared, recipe, recorder

    @property
    def num_workers(self) -> int:
        """Threads that make batches ahead, see `ViewBatches.num_workers`."""
        return self._shared.batches.num_workers

    def batch(self, start: int, stop: int) -> SharedBatch:
        """The samples at positions start … stop-1."""
        return self._shared.batch(start, stop)

    def loss(self, network: nn.Module, batch: SharedBatch) -> Float[Tensor, " sample"]:
        """Cross-entropy of each sample, nats; the logits are recorded."""
        logits = forward(network, batch.images, self._recipe)
        self._recorder.record(batch.epochs, batch.sample_ids, logits.detach().cpu().numpy())
        # Not edpipe.losses: an edit of the student's losses must not train teachers again.
        own = F.cross_entropy(logits, batch.labels, reduction="none")
        if batch.other is None:
            return own
        labels, share = batch.other
        return share * own + (1 - share) * F.cross_entropy(logits, labels, reduction="none")


class RecordedTraining(Training):
    """A training whose state includes what was recorded of epochs that are not whole yet.

    Args:
        recorder: of its task.
        epoch_images: samples in an epoch.
        others: as `Training` takes them.
    """

    def __init__(self, recorder: TrajectoryRecorder, epoch_images: int, *others: Any) -> None:
        super().__init__(*others)
        self._recorder, self._epoch_images = recorder, epoch_images

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that `restore` needs; whole epochs are on disk when it returns.

        Raises:
            TrainingError: a weight is no longer a finite number.
        """
        tensors, facts = super().state()
        self._recorder.sync()
        return tensors | {WAITING + n: torch.from_numpy(v) for n, v in self._recorder.waiting.items()}, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Puts back what `state` gave, unless an epoch that was stored before is lost: then it starts again."""
        waiting = {n.removeprefix(WAITING): v.numpy() for n, v in tensors.items() if n.startswith(WAITING)}
        images = min(facts["iteration"] * self.recipe.batch_size, self.budget.num_images)
        if self._recorder.resume(waiting, images // self._epoch_images):
            super().restore({n: v for n, v in tensors.items() if not n.startswith(WAITING)}, facts)
        else:
            announce("an epoch that was recorded before is lost: the training starts again from its beginning")


def scratch_seed(fitting_seed: int, seed: int) -> int:
    """Of the teacher's first weights: others than those of a student of the same network and seed, for each seed."""
    return int(digest_json({"scratch": fitting_seed, "seed": seed})[:8], 16)


def record_trajectory(teacher: str, seed: int, knobs: TrajectoryKnobs, dataset_path: Path, out_path: Path) -> None:
    """Writes the trajectory and its record; after a kill, goes on from the last checkpoint.

    Raises:
        TeacherError: a logit does not fit the precision, or the stored error is over budget.
        ParamsError: the precision does not fit the number of classes.
        TrainingError: the loss is no longer a finite number, or much too large.
        BusyError: another process records the same trajectory.
        Interrupted: SIGTERM or Ctrl-C came; the same call goes on where it was.
    """
    dataset = open_dataset(dataset_path)
    shared = SharedLessons(seed, knobs.views, dataset, prepare_device())
    header = _header(teacher, knobs, shared)
    code, describe = digest_json(_makers()), partial(_describe, seed, knobs, dataset)
    if _is_whole(out_path, header):
        announce(f"{out_path}: is there already, made from the same by the same; only its record is written anew")
        adopt_soft_labels(out_path, header, code, describe)
        Checkpoints(out_path, code).clear()
        return
    with create_soft_labels(out_path, header, code, describe) as writer:
        fitting = _learn(
            f"trajectory {teacher} seed {seed}", seed, knobs, shared, TrajectoryRecorder(writer, header), out_path
        )
    fitting.finish()


def build_scratch(seed: int, knobs: TrajectoryKnobs, dataset: Dataset) -> nn.Module:
    """The teacher that learns beside students of this seed, before its first iteration.

    Raises:
        NetworkError: unknown model.
    """
    first = scratch_seed(knobs.fitting.seed, seed)
    network = build_network(knobs.network.model, dataset.num_classes, dataset.channels, first)
    return resize_images(network, knobs.network.image_size)


def _learn(
    title: str, seed: int, knobs: TrajectoryKnobs, shared: SharedLessons, recorder: TrajectoryRecorder, out_path: Path
) -> Fitting:
    """Trains the teacher to its end; the recorder then has every epoch."""
    network = build_scratch(seed, knobs, shared.dataset)
    network.to(shared.batches.device).to(memory_format=torch.channels_last)
    num_samples = len(shared.sample_ids)
    budget = Budget(round(knobs.fitting.epochs) * num_samples, knobs.fitting.learning_rate)
    noise_seed = scratch_seed(knobs.fitting.seed, seed)
    training = RecordedTraining(recorder, num_samples, network, knobs.recipe, budget, noise_seed)
    fitting = Fitting(title, training, out_path, _record(seed, knobs, shared.dataset), num_samples)
    fitting.run(ScratchLessons(shared, knobs.recipe, recorder))
    return fitting


def _makers() -> list[object]:
    """What besides its inputs decides what a file holds."""
    return [code_digest("record_trajectory"), library_versions()]


def _is_whole(out_path: Path, header: Header) -> bool:
    """Whether the very file that is to be made lies there already, as after a kill at the last moment."""
    try:
        record = read_record(record_path(out_path), "code", "versions", "digest")
        labels = open_soft_labels(out_path)
    except EdpipeError:
        return False
    is_same = labels.header.facts() == header.facts() and record["digest"] == labels.digest
    return is_same and [record["code"], record["versions"]] == _makers()


def _teacher_digest(knobs: TrajectoryKnobs) -> str:
    """Of how the teacher learns: it has no weights yet when the file is begun."""
    return digest_json({"network": knobs.network, "fitting": knobs.fitting, "recipe": knobs.recipe})


def _header(teacher: str, knobs: TrajectoryKnobs, shared: SharedLessons) -> Header:
    dataset, ids = shared.dataset, shared.sample_ids
    try:
        make_precision(knobs.storage, dataset.num_classes)
    except ValueError as error:
        raise ParamsError(f"soft_labels.{dataset.name}.storage: {error}") from error
    provenance = Provenance(
        teacher=teacher,
        subset=ALL_CLASSES,
        teacher_digest=_teacher_digest(knobs),
        dataset_digest=dataset.digest,
        partition_digest="",
        view_spec=shared.batches.spec.canonical(),
        pixel_canary=shared.batches.canary(ids),
    )
    class_ids = np.arange(dataset.num_classes, dtype=np.int32)
    labels = dataset.labels[ids]
    header = Header(provenance, knobs.storage, ViewRange(0, 1), ids, dataset.sample_keys[ids], labels, class_ids)
    stream = stream_text(shared.seed, knobs.recipe.batch_size, knobs.views.choice)
    return trajectory_header(header, stream, round(knobs.fitting.epochs))


def _record(seed: int, knobs: TrajectoryKnobs, dataset: Dataset) -> dict[str, Any]:
    """What is known before training; all that decides its result is in it."""
    return make_record("record_trajectory", vars(knobs), {"dataset": dataset.digest}, seed=seed)


def _describe(seed: int, knobs: TrajectoryKnobs, dataset: Dataset, path: Path) -> dict[str, Any]:
    """The record of the file at `path`."""
    # Read back through the reader: what was written is what a student will be given.
    labels = open_soft_labels(path)
    top1 = (labels.seal.agreement.sum(axis=1) / len(labels.sample_ids)).tolist()
    announce(f"{path}: top1 on the views it learnt from: {top1[0]:.4f} in its first epoch, {top1[-1]:.4f} in its last")
    statistics = {name: value if np.isfinite(value) else None for name, value in labels.seal.statistics.items()}
    return _record(seed, knobs, dataset) | {
        "teacher_digest": labels.provenance.teacher_digest,
        "digest": labels.digest,
        "num_samples": len(labels.sample_ids),
        "num_epochs": labels.views.num_views,
        "images_seen": labels.num_forwards,
        "top1_by_epoch": top1,
        "size_bytes": path.stat().st_size,
        **statistics,
    }
