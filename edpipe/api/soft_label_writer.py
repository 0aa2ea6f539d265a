"""Stores the soft labels that a teacher of one's own gives, as the pipeline stores those of its teachers."""

import os
from collections.abc import Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from edpipe.api.soft_label_plan import SoftLabelPlan, knobs_of, lies_whole, name_teacher, view_batches
from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import EdpipeError, VerificationError
from edpipe.soft_labels.file.reader import SoftLabels
from edpipe.soft_labels.file.store import open_store
from edpipe.soft_labels.file.writer import adopt_soft_labels, create_soft_labels
from edpipe.soft_labels.verification import compare_outputs
from edpipe.storage.atomic import remove_file
from edpipe.storage.records import write_record
from edpipe.views.pixels import normalise
from edpipe.views.spec import ViewRange

VERIFIED_ROWS = 1000
"""(image, view) pairs about which the teacher is asked a second time."""
_SEED = 0

Asking = Generator[Tensor, None, Float32[np.ndarray, "row class"]]
"""Yields batches of images, and returns what `write` was given for them."""


class SoftLabelWriter:
    """Stores the logits of any teacher, so that `SoftLabelDataset` reads them.

        with edpipe.SoftLabelWriter("labels/mine/all.json", "photos.h5", "params.yaml", teacher="mine",
                                    weights=teacher.state_dict()) as writer:
            for images in writer:
                writer.write(teacher(images))

    Each `images` must be answered by one `write` before the next is taken. All views of all training samples come,
    view by view; then about 1000 (image, view) pairs of these come again, in other batches. What the teacher gives for
    them is compared with what was stored: this finds a teacher in training mode, logits in another order, and images
    that were changed on the way. Only then the index is written, without which nobody reads the files.

    Finished blocks of 4,096 rows survive a crash or a kill: the same call goes on with the others. If a loop ends
    early, without an error, the rest waits for the next call likewise.

    Args:
        store: index to be written, such as artifacts/soft_labels/<dataset>/<teacher>/<subset>.json. The files go into
            the folder beside it, <subset>/views_<first>-<last>.h5.
        dataset: the packed dataset.
        soft_labels: which views, and how logits are stored: an entry of `soft_labels:` in params.yaml as a mapping with
            `space`, `views` and `storage`, or the path of a params.yaml, from which the dataset's entry is taken.
        teacher: name of the teacher; it stands in the files.
        weights: the teacher's state_dict, or a text that changes whenever the teacher does, such as the digest of its
            weights file. Soft labels of other weights are not mixed with these.
        subset: a subset of `partition`, for a teacher of some classes; "all": of all classes.
        partition: a partition file of the dataset, if subset is not "all".
        mean: of each channel, 0 to 1, by which the teacher's images are normalised. None: the dataset's.
        std: likewise.
        batch_size: images in a batch.
        device: where the batches are.

    Raises:
        edpipe.EdpipeError: a knob, the dataset or the partition is wrong.
        ValueError: batch_size is below 1.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        dataset: str | os.PathLike[str],
        soft_labels: Mapping[str, Any] | str | os.PathLike[str],
        *,
        teacher: str,
        weights: Mapping[str, Tensor] | str,
        subset: str = "all",
        partition: str | os.PathLike[str] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        opened = open_dataset(Path(dataset))
        name = name_teacher(teacher, weights, opened, subset, None if partition is None else Path(partition))
        given = soft_labels if isinstance(soft_labels, Mapping) else Path(soft_labels)
        knobs = knobs_of(given, opened, len(name.class_ids))
        batches = view_batches(opened, knobs, name, torch.device(device))
        self._plan = SoftLabelPlan(_index(store), batches, knobs, name)
        self._mean, self._std, self._batch_size = mean or opened.mean, std or opened.std, batch_size
        self._asking: Iterator[Tensor] | None = None
        self._num_waiting = 0
        self._given: Float32[np.ndarray, "row class"] | None = None
        self.is_complete = False
        """Whether all is stored and compared, and the index written."""

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The class of each column that `write` wants, as numbered in the dataset; ascending."""
        return self._plan.class_ids

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of `class_ids`."""
        return tuple(self._plan.batches.dataset.class_names[number] for number in self.class_ids)

    def __enter__(self) -> "SoftLabelWriter":
        self._asking, self._num_waiting, self._given = self._run(), 0, None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self._asking, Generator):
            self._asking.close()  # what is finished waits for the next call, and others may write
        self._asking = None

    def __iter__(self) -> Iterator[Tensor]:
        """The batches that are still to be answered: float32 of shape (image, channel, height, width), normalised.

        Raises:
            ValueError: outside of `with`.
            edpipe.EdpipeError: the disk fails, another process writes the same file, a file of other soft labels is in
                the way, a logit is not finite, the certified error is over `storage.max_kl`, or the teacher gives other
                logits than before.
        """
        if self._asking is None:
            raise ValueError("SoftLabelWriter must be used in a `with` block")
        return self._asking

    def write(self, logits: Float[Tensor, "image class"]) -> None:
        """What the teacher gives for the latest batch; columns as in `class_ids`, on any device.

        Raises:
            ValueError: no batch waits for its logits, or they have another shape.
        """
        wanted = self._num_waiting, len(self.class_ids)
        if not self._num_waiting:
            raise ValueError("write: no batch waits for its logits; call it once for each batch of the writer")
        if tuple(logits.shape) != wanted:
            raise ValueError(f"write: logits must have shape {wanted} (image, class), got {tuple(logits.shape)}")
        self._given, self._num_waiting = logits.detach().float().cpu().numpy(), 0

    def _run(self) -> Iterator[Tensor]:
        for views in self._plan.ranges:
            yield from self._fill(views)
        yield from self._verify()
        self.is_complete = True

    def _fill(self, views: ViewRange) -> Iterator[Tensor]:
        """Every missing block of one file."""
        path, header, code = self._plan.path_of(views), self._plan.header(views), self._plan.code
        describe = partial(self._plan.describe, views)
        if lies_whole(path, header):
            adopt_soft_labels(path, header, code, describe)
            return
        with create_soft_labels(path, header, code, describe) as writer:
            for block in writer.missing:
                ids = header.sample_ids[block.start : block.stop]
                writer.write(block, (yield from self._ask(ids, np.full(len(ids), block.view))))

    def _verify(self) -> Iterator[Tensor]:
        """Asks about rows drawn from each file again, then writes the index."""
        remove_file(self._plan.index)
        store = open_store([self._plan.path_of(views) for views in self._plan.ranges])
        share, num_rows = -(-VERIFIED_ROWS // len(store.files)), 0
        for labels in store.files:
            num_rows += yield from self._compare(labels, share)
        write_record(self._plan.index, self._plan.index_record(store, num_rows, _SEED))

    def _compare(self, labels: SoftLabels, num_rows: int) -> Generator[Tensor, None, int]:
        """How many rows were compared.

        Raises:
            VerificationError: naming a row that is not what the teacher gives now.
        """
        rng = np.random.default_rng((_SEED, labels.views.first))
        drawn = rng.choice(labels.num_forwards, min(num_rows, labels.num_forwards), replace=False)
        views, rows = np.divmod(np.sort(drawn), len(labels.sample_ids))
        ids, views = labels.sample_ids[rows], views + labels.views.first
        fidelity, is_bad = compare_outputs(labels, (yield from self._ask(ids, views)), {}, ids, views)
        if fidelity.num_bad_rows:
            first = int(np.flatnonzero(is_bad)[0])
            raise VerificationError(
                f"{labels.path}: for sample {ids[first]}, view {views[first]} the teacher gives other logits than "
                f"before ({fidelity.say()}); put it into evaluation mode and give logits in the order of the images, "
                f"then delete {labels.path.parent} and write again"
            )
        return fidelity.num_rows

    def _ask(self, ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]) -> Asking:
        """Yields the images of these rows, batch by batch."""
        found = []
        for start in range(0, len(ids), self._batch_size):
            rows = slice(start, start + self._batch_size)
            images = normalise(self._plan.batches.views(ids[rows], views[rows]), self._mean, self._std)
            self._num_waiting, self._given = len(images), None
            yield images
            if self._given is None:
                raise ValueError("SoftLabelWriter: the latest batch was not answered; call write(logits) for each")
            found.append(self._given)
        return np.concatenate(found)


def _index(store: str | os.PathLike[str]) -> Path:
    """Raises:
    EdpipeError: the path is not one of an index.
    """
    if Path(store).suffix != ".json":
        raise EdpipeError(f"{store}: must end in .json, such as artifacts/soft_labels/photos/mine/all.json")
    return Path(store)
