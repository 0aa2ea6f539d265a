"""The pipeline's own order of samples, as a batch sampler of torch."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler

from edpipe.params.stage import StageKnobs
from edpipe.training.sample_stream import SampleStream
from edpipe.training.schedule import batch_positions, num_images, num_iterations


class PipelineOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, position) pairs, as a stage of all classes sees them; see `SoftLabelDataset.sampler`."""

    def __init__(
        self, seed: int, sample_ids: Int64[np.ndarray, " sample"], batch_size: int, budget: StageKnobs, start: int
    ) -> None:
        self._seed, self._sample_ids, self._batch_size, self._start = seed, sample_ids, batch_size, start
        self._total = num_images(budget, len(sample_ids))
        count = num_iterations(self._total, batch_size)
        if not 0 <= start <= count:
            raise ValueError(f"start must be a batch from 0 to {count}, got {start}")
        self._numbers = range(start, count)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        stream = SampleStream(self._seed, (self._sample_ids,), "mixed")
        for number in self._numbers:
            epochs, ids = stream.slice(*batch_positions(number, self._batch_size, self._total))
            positions = np.searchsorted(self._sample_ids, ids)
            yield list(zip(epochs.tolist(), positions.tolist(), strict=True))
