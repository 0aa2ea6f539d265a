"""A teacher's verified soft labels as a torch dataset."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from edpipe.api.held_out import HeldOutImages
from edpipe.api.indexed_batch import IndexedBatch, collate, epochs_and_positions
from edpipe.api.pipeline_order import PipelineOrder
from edpipe.api.verified_store import open_verified_store
from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import OtherDatasetError
from edpipe.params.stage import StageKnobs
from edpipe.training.sample_stream import stage_seed
from edpipe.views.pixels import normalise
from edpipe.views.sampling import view_of

_SEEDS = 2**56
"""A seed leaves eight bits for the number of the stage."""


class SoftLabelDataset(TorchDataset[tuple[Tensor, ...]]):
    """A teacher's verified soft labels: each item is an augmented image, its label, and the teacher's logits for it.

    An item is (image, label, logits):

    - image: float32 of shape (channel, height, width), normalised by the dataset's mean and standard deviation. Its
      pixels are those that the teacher saw.
    - label: int64, the column of the sample's class among the logits; `class_ids[label]` is its number in the dataset.
    - logits: float32 of shape (class,), as stored; no temperature is applied.

    If the views are mixed (mixup, cutmix), an item has two more: the other image's label (int64), and the share of the
    own one (float32, 0 to 1). The loss against labels is then share · own + (1 - share) · other.

    `dataset[position]` is that sample in the epoch of `set_epoch`; `dataset[epoch, position]` in any epoch. Samples are
    the training samples of the teacher's classes. The view that a sample shows in an epoch depends on (seed, epoch,
    sample) alone; it is the one that a student of the pipeline with this seed sees, for methods of one stage.

    It works in workers of a DataLoader, forked or spawned, and can be pickled; each process maps the same files.

    Args:
        store: index of the soft labels, artifacts/soft_labels/<dataset>/<teacher>/<subset>.json. The files that it
            names lie in the folder beside it, <subset>/.
        dataset: the packed dataset, artifacts/datasets/<dataset>.h5.
        seed: of views and of sample order, 0 to 2**56 - 1.

    Raises:
        edpipe.EdpipeError: a file is missing or damaged, or was made from something else than the others. Every byte
            of the soft labels is read and compared with its digest; the pixels of a few views are compared with those
            that the teacher saw.
        ValueError: the seed is out of range.
    """

    def __init__(self, store: str | os.PathLike[str], dataset: str | os.PathLike[str], seed: int = 0) -> None:
        if not 0 <= seed < _SEEDS:
            raise ValueError(f"seed must be from 0 to 2**56 - 1, got {seed}")
        self._dataset = open_dataset(Path(dataset))
        self._digest = self._dataset.digest
        self._store = open_verified_store(Path(store), self._dataset)
        self._seed = stage_seed(seed, 1)
        # Shared, so that workers which live longer than an epoch follow `set_epoch`.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[Tensor, ...]:
        """One item.

        Raises:
            IndexError: there is no such sample or epoch.
            edpipe.EdpipeError: the image's bytes are not those that were packed.
        """
        return self.__getitems__([index])[0]  # type: ignore[list-item]

    def __getitems__(self, indices: Sequence[Any]) -> IndexedBatch:
        """Many items at once, as a DataLoader asks for them: about twenty times as fast as one at a time.

        Args:
            indices: all positions, or all (epoch, position) pairs.

        Raises:
            As `__getitem__`, and TypeError for indices of other kinds.
        """
        epochs, positions = epochs_and_positions(indices, int(self._epoch), len(self))
        ids = self.sample_ids[positions]
        views = view_of(self._seed, epochs, ids, self.num_views, self._store.choice)
        images = normalise(self._store.batches.views(ids, views), self.mean, self.std)
        logits = torch.from_numpy(self._store.labels.logits(ids, views))
        return IndexedBatch((images, self._columns(ids), logits, *self._other(ids, views)))

    def set_epoch(self, epoch: int) -> None:
        """Chooses the views of all items that are indexed by position alone; to be called before each epoch.

        Raises:
            ValueError: epoch is below 0.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or later, got {epoch}")
        self._epoch.fill_(epoch)

    def sampler(
        self, batch_size: int, *, epochs: int | float | None = None, images: int | None = None, start: int = 0
    ) -> PipelineOrder:
        """A batch sampler with the exact batches of the pipeline, for `DataLoader(..., batch_sampler=...)`.

        They are those of a method of one stage with this dataset's seed: epochs follow each other without a break, so
        that a batch may hold the end of one and the beginning of the next. `set_epoch` has no effect on them.

        Args:
            batch_size: samples of a batch, at least 2; a single sample left over at the end joins the last batch.
            epochs: how long, or
            images: how long, in samples; exactly one of both.
            start: batches to leave out at the beginning, to resume a training.

        Raises:
            ValueError: batch_size, the budget or start is out of range.
        """
        return PipelineOrder(self._seed, self.sample_ids, batch_size, _budget(epochs, images), start)

    def held_out(self, split: str = "test") -> TorchDataset[tuple[Tensor, ...]]:
        """(image, label) of each sample of a split, without augmentation, normalised as the items are.

        Only samples of the teacher's classes; labels are columns of the logits.

        Args:
            split: train, val or test.

        Raises:
            ValueError: no such split.
        """
        return HeldOutImages(self._store.batches, split, self.class_ids)

    @staticmethod
    def collate(items: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """For `DataLoader(..., collate_fn=...)`: a batch as tensors, without the copy that the default makes.

        Images then lie in memory in the channels_last format.
        """
        return collate(items)

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The class of each column of the logits, as numbered in the dataset; ascending."""
        return tuple(self._store.labels.class_ids.tolist())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of `class_ids`."""
        return tuple(self._dataset.class_names[number] for number in self.class_ids)

    @property
    def sample_ids(self) -> Int64[np.ndarray, " sample"]:
        """Row of each sample in the packed dataset, by position; ascending."""
        return self._store.labels.sample_ids

    @property
    def num_views(self) -> int:
        """Stored views of each sample."""
        return self._store.labels.num_views

    @property
    def temperature(self) -> float | None:
        """The one temperature that the logits serve, if they are sampled (precision: sampled); None: any."""
        return self._store.labels.precision.temperature

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel, 0 to 1; subtracted from pixels / 255."""
        return self._dataset.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Of each channel; the difference is divided by it."""
        return self._dataset.std

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()
        if self._dataset.digest != self._digest:
            raise OtherDatasetError(
                f"{self._dataset.path}: was {self._digest} when it was opened, is {self._dataset.digest} now; "
                "start again"
            )

    def _columns(self, ids: Int64[np.ndarray, " sample"]) -> Int64[Tensor, " sample"]:
        return torch.from_numpy(np.searchsorted(self._store.labels.class_ids, self._dataset.labels[ids]))

    def _other(
        self, ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> tuple[Int64[Tensor, " sample"], Float32[Tensor, " sample"]] | tuple[()]:
        """Of mixed views: label of the other image, and share of the own one."""
        if self._store.batches.spec.mixing is None:
            return ()
        mix = self._store.batches.mix(ids, views)
        return self._columns(mix.partner_ids), torch.from_numpy(mix.own_share)


def _budget(epochs: int | float | None, images: int | None) -> StageKnobs:
    """Of a budget only the length matters here.

    Raises:
        ValueError: not exactly one of both, or out of range.
    """
    try:
        return StageKnobs.model_validate({"epochs": epochs, "images": images, "learning_rate": 1.0})
    except ValidationError:
        raise ValueError(
            f"give epochs (above 0, up to 100,000) or images (2 to 10**12), not both; got epochs={epochs}, "
            f"images={images}"
        ) from None
