"""The endless stream of samples that a training sees, its seed, and one text for equal streams."""

from threading import Lock
from typing import Literal

import numpy as np
from jaxtyping import Int64

from edpipe.params.base import canonical_json
from edpipe.views.axes import SampleIds
from edpipe.views.sampling import sample_order


def stage_seed(seed: int, number: int) -> int:
    """Of sample order and view choice: another for each stage, so that no stage repeats the one before."""
    return (seed << 8) + number


def stream_text(seed: int, batch_size: int, choice: str) -> str:
    """One text for equal streams: who replays a trajectory must see the same samples and views in the same batches.

    Args:
        seed: of the stage, from `stage_seed`.
        batch_size: images in one iteration.
        choice: how views follow each other, `StudentViews.choice`.
    """
    return canonical_json({"seed": seed, "batch_size": batch_size, "choice": choice})


_NUM_CACHED_EPOCHS = 2


class SampleStream:
    """The endless stream of (epoch, sample id) that training sees; a pure function of (seed, position).

    Args:
        seed: of the order.
        subset_ids: samples of each taught subset, in the order they are taught; disjoint.
        mixing: mixed: every epoch shuffles all samples together; sequential: one subset after the other, each shuffled.

    Raises:
        ValueError: no sample at all, or one that is in two subsets.
    """

    def __init__(
        self, seed: int, subset_ids: tuple[Int64[np.ndarray, "..."], ...], subset_order: Literal["mixed", "sequential"]
    ) -> None:
        together = np.concatenate(subset_ids) if subset_ids else np.empty(0, dtype=np.int64)
        if len(together) == 0:
            raise ValueError("a stream needs at least 1 sample, got none")
        if len(np.unique(together)) != len(together):
            raise ValueError("a sample is in more than one of the taught subsets")
        self._seed = seed
        self._groups = (together,) if subset_order == "mixed" else subset_ids
        self._orders: dict[int, SampleIds] = {}
        self._lock = Lock()  # batches are made in several threads
        self.num_samples = len(together)

    def slice(self, start: int, stop: int) -> tuple[Int64[np.ndarray, " sample"], SampleIds]:
        """(epochs, sample ids) at positions start … stop-1.

        Raises:
            ValueError: not 0 <= start <= stop.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"positions must satisfy 0 <= start <= stop, got {start} and {stop}")
        positions = np.arange(start, stop, dtype=np.int64)
        epochs, sample_ids = positions // self.num_samples, np.empty_like(positions)
        for epoch in range(start // self.num_samples, -(-stop // self.num_samples)):
            first = epoch * self.num_samples
            low, high = max(start, first), min(stop, first + self.num_samples)
            sample_ids[low - start : high - start] = self._order(epoch)[low - first : high - first]
        return epochs, sample_ids

    def _order(self, epoch: int) -> Int64[np.ndarray, "..."]:
        """All samples in the order of one epoch; the last two epochs asked for are kept."""
        with self._lock:
            if epoch not in self._orders:
                while len(self._orders) >= _NUM_CACHED_EPOCHS:
                    self._orders.pop(next(iter(self._orders)))
                self._orders[epoch] = np.concatenate([sample_order(self._seed, epoch, ids) for ids in self._groups])
            return self._orders[epoch]
