"""A teacher's logits while it learns, in the soft-label format: epochs stand where views stand otherwise.

A teacher that learns beside a student gets no gradient from it. Training it first and storing what it said of each
sample in each epoch therefore serves any number of students that see the samples in the same order and views.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int64

from edpipe.params.base import canonical_json
from edpipe.shapes import SampleIds
from edpipe.storage.soft_label_format import BLOCK_ROWS, Header
from edpipe.storage.soft_label_writer import Block, SoftLabelWriter
from edpipe.views import ViewRange


def stream_text(seed: int, batch_size: int, choice: str) -> str:
    """One text for equal streams: who replays a trajectory must see the same samples and views in the same batches."""
    return canonical_json({"seed": seed, "batch_size": batch_size, "choice": choice})


def trajectory_header(header: Header, stream: str, num_epochs: int) -> Header:
    """The header of a trajectory over so many epochs, from that of the same teacher's views."""
    return replace(header, provenance=replace(header.provenance, stream=stream), views=ViewRange(0, num_epochs))


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
