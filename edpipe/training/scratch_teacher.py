"""The scratch teacher of Collaborative Teaching (arXiv 1907.09643): it trains on what students of a seed see, and its
logits are recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from edpipe.datasets.dataset_file import Dataset
from edpipe.models.forward import forward
from edpipe.models.resize import resize_images
from edpipe.models.zoo.build import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StudentViews
from edpipe.params.teacher import TrajectoryKnobs
from edpipe.runtime.progress import announce
from edpipe.soft_labels.trajectory import TrajectoryRecorder
from edpipe.storage.digests import digest_json
from edpipe.training.loop import Training
from edpipe.training.sample_stream import SampleStream, stage_seed
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.sampling import view_of
from edpipe.views.spec import ViewSpec

STAGE = 1
"""Students with a trajectory have this one stage."""
WAITING = "waiting."
"""Prefix of the tensors of epochs that are not whole yet in a checkpoint."""


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


class SharedBatches:
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


@runtime_checkable
class Recorder(Protocol):
    """Takes what the teacher says, in the order of training."""

    def record(
        self,
        epochs: Int64[np.ndarray, " sample"],
        sample_ids: Int64[np.ndarray, " sample"],
        logits: Float32[np.ndarray, "sample class"],
    ) -> None:
        """What it said of each sample in its epoch."""
        ...


class ScratchTeacherTask:
    """What the scratch teacher learns, and where what it says is recorded. The task of its training."""

    def __init__(self, shared: SharedBatches, recipe: RecipeKnobs, recorder: Recorder) -> None:
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
        # Not edpipe.losses.kd: an edit of the student's losses must not train teachers again.
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


def build_scratch(seed: int, knobs: TrajectoryKnobs, dataset: Dataset) -> nn.Module:
    """The teacher that learns beside students of this seed, before its first iteration.

    Raises:
        NetworkError: unknown model.
    """
    first = scratch_seed(knobs.fitting.seed, seed)
    network = build_network(knobs.network.model, dataset.num_classes, dataset.channels, first)
    return resize_images(network, knobs.network.image_size)
