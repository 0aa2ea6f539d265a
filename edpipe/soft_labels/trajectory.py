"""A teacher's logits while it learns, in the soft-label format: epochs stand where views stand otherwise.

A teacher that learns beside a student gets no gradient from it. Training it first and storing what it said of each
sample in each epoch therefore serves any number of students that see the samples in the same order and views.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int64

from edpipe.params.soft_labels import StorageKnobs
from edpipe.soft_labels.file.format import BLOCK_ROWS, Header
from edpipe.soft_labels.file.writer import Block, SoftLabelWriter
from edpipe.views.axes import SampleIds
from edpipe.views.spec import ViewRange


def trajectory_storage(storage: StorageKnobs) -> StorageKnobs:
    """How a trajectory is stored where views are stored so: its logits likewise, with nothing beside them."""
    return storage.model_copy(update={"attention": False, "hint": None})


def trajectory_header(header: Header, stream: str, num_epochs: int) -> Header:
    """The header of a trajectory over so many epochs, from that of the same teacher's views."""
    return replace(
        header,
        provenance=replace(header.provenance, stream=stream),
        storage=trajectory_storage(header.storage),
        views=ViewRange(0, num_epochs),
        features={},
    )


class TrajectoryRecorder:
    """Takes batches in the order of training, which may run across the ends of epochs, and stores whole epochs.

    Args:
        writer: of the file, whose views are epochs.
        header: of the file.
    """

    def __init__(self, writer: SoftLabelWriter, header: Header) -> None:
        self._writer, self._header = writer, header
        self._waiting: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def record(
        self,
        epochs: Int64[np.ndarray, " sample"],
        sample_ids: SampleIds,
        logits: Float32[np.ndarray, "sample class"],
    ) -> None:
        """What the teacher said of each sample in its epoch.

        Raises:
            ValueError: a sample is not in the file, or was recorded in this epoch before.
            TeacherError: a logit is not finite, or does not fit the precision.
        """
        rows = np.searchsorted(self._header.sample_ids, sample_ids)
        if not np.array_equal(self._header.sample_ids.take(rows, mode="clip"), sample_ids):
            raise ValueError(f"samples {sample_ids[:8].tolist()} … are not all in the trajectory")
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            self._take(int(epoch), rows[chosen], logits[chosen])

    @property
    def waiting(self) -> dict[str, np.ndarray]:
        """What belongs to epochs that are not whole yet, for `resume`; not copies."""
        found: dict[str, np.ndarray] = {}
        for epoch, (logits, is_there) in self._waiting.items():
            found |= {f"{epoch}.logits": logits, f"{epoch}.is_there": is_there}
        return found

    def sync(self) -> None:
        """Waits until all whole epochs are on disk."""
        self._writer.sync()

    def resume(self, waiting: Mapping[str, np.ndarray], num_epochs: int) -> bool:
        """Puts back what was `waiting` after so many whole epochs; False, and nothing done, if one of them is lost."""
        if any(block.view < num_epochs for block in self._writer.missing):
            return False
        epochs = {int(name.partition(".")[0]) for name in waiting}
        self._waiting = {
            epoch: (waiting[f"{epoch}.logits"].copy(), waiting[f"{epoch}.is_there"].copy()) for epoch in sorted(epochs)
        }
        return True

    def _take(self, epoch: int, rows: Int64[np.ndarray, " row"], logits: Float32[np.ndarray, "row class"]) -> None:
        if epoch not in self._waiting:
            shape = (len(self._header.sample_ids), logits.shape[1])
            self._waiting[epoch] = np.zeros(shape, np.float32), np.zeros(shape[0], bool)
        stored, is_there = self._waiting[epoch]
        if is_there[rows].any() or len(np.unique(rows)) != len(rows):
            raise ValueError(f"a sample is recorded twice in epoch {epoch}")
        stored[rows], is_there[rows] = logits, True
        if is_there.all():
            self._store(epoch, self._waiting.pop(epoch)[0])

    def _store(self, epoch: int, logits: Float32[np.ndarray, "sample class"]) -> None:
        for index, start in enumerate(range(0, len(logits), BLOCK_ROWS)):
            part = logits[start : start + BLOCK_ROWS]
            self._writer.write(Block(epoch, index, start, start + len(part)), part)
