"""Images without augmentation, to measure a student on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from edpipe.api.indexed_batch import IndexedBatch, epochs_and_positions
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise


class HeldOutImages(TorchDataset[tuple[Tensor, ...]]):
    """(normalised image, label) of each sample of one split; see `SoftLabelDataset.held_out`.

    Args:
        batches: of the dataset.
        split: train, val or test.
        class_ids: samples of other classes are left out; labels are positions among these.
    """

    def __init__(self, batches: ViewBatches, split: str, class_ids: Sequence[int]) -> None:
        self._batches, self._class_ids = batches, np.array(class_ids, dtype=np.int64)
        self.sample_ids = batches.dataset.sample_ids(split, class_ids)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[Any]) -> IndexedBatch:
        _, positions = epochs_and_positions(indices, 0, len(self))
        ids, dataset = self.sample_ids[positions], self._batches.dataset
        images = normalise(self._batches.plain(ids), dataset.mean, dataset.std)
        return IndexedBatch((images, torch.from_numpy(np.searchsorted(self._class_ids, dataset.labels[ids]))))
