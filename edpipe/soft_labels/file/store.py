"""All soft labels of one teacher and subset: files over ranges of views, read as one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt64

from edpipe.errors import IncompleteStoreError, MissingRowsError, UnverifiedError, remake
from edpipe.soft_labels.encoding.precisions import Precision
from edpipe.soft_labels.file.checks import check_provenance
from edpipe.soft_labels.file.format import HintShape, Provenance
from edpipe.soft_labels.file.reader import SoftLabels, open_soft_labels
from edpipe.storage.records import read_record
from edpipe.views.spec import ViewRange


@dataclass(frozen=True)
class SoftLabelStore:
    """Opened, verified files that together hold views 0 … num_views-1."""

    files: tuple[SoftLabels, ...]

    @property
    def num_views(self) -> int:
        """Of each sample."""
        return self.files[-1].views.stop

    @property
    def sample_ids(self) -> Int64[np.ndarray, " sample"]:
        """Ascending."""
        return self.files[0].sample_ids

    @property
    def class_ids(self) -> Int32[np.ndarray, " class"]:
        """Which class each logit is of."""
        return self.files[0].class_ids

    @property
    def provenance(self) -> Provenance:
        """What they were made from; the pixel canary is the first file's."""
        return self.files[0].provenance

    @property
    def precision(self) -> Precision:
        """How rows are stored."""
        return self.files[0].precision

    @property
    def hint_shape(self) -> HintShape | None:
        """What stored hints are; None where none are."""
        return self.files[0].header.hint_shape

    @property
    def digests(self) -> list[str]:
        """Of each file, in order."""
        return [file.digest for file in self.files]

    @property
    def num_forwards(self) -> int:
        """Teacher forward passes that the files save whoever reads them."""
        return sum(file.num_forwards for file in self.files)

    @property
    def num_bytes(self) -> int:
        """Of the rows of logits."""
        return sum(file.parts[name].nbytes for file in self.files for name in self.precision.columns())

    def kl_bound(self, temperature: float) -> float:
        """Certified largest KL(teacher ‖ stored) of any row, nats."""
        return max(file.kl_bound(temperature) for file in self.files)

    def logits(
        self, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Float32[np.ndarray, "row class"]:
        """The teacher's logits on the given view of each sample; classes as in `class_ids`.

        Raises:
            MissingRowsError: a sample or a view is not in the files.
        """
        return self._spread(lambda file, ids, some: file.logits(ids, some), sample_ids, views)

    def positions(
        self, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Int64[np.ndarray, " row"]:
        """Where each (sample, view) lies if all files' views and samples are taken as one axis.

        Raises:
            MissingRowsError: a sample or a view is not in the files.
        """
        if len(views) and not 0 <= views.min() <= views.max() < self.num_views:
            missing = views[(views < 0) | (views >= self.num_views)][0]
            raise MissingRowsError(
                f"{self.files[0].path.parent}: holds no soft labels of view {missing}, it has {self.num_views} views; "
                "raise views.number"
            )
        return views * len(self.sample_ids) + self.files[0].rows(sample_ids)

    def attention(
        self, level: int, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Float32[np.ndarray, "row height width"]:
        """The teacher's attention map of one level (from 1) on the given view of each sample.

        Raises:
            MissingRowsError: a sample or a view is not in the files, or they have no such maps.
        """
        return self._spread(lambda file, ids, some: file.attention(level, ids, some), sample_ids, views)

    def hint(
        self, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Float32[np.ndarray, "row channel height width"]:
        """The teacher's features of the stage that `hint_shape` names, on the given view of each sample.

        Raises:
            MissingRowsError: a sample or a view is not in the files, or they have no hints.
        """
        return self._spread(lambda file, ids, some: file.hint(ids, some), sample_ids, views)

    def _spread(
        self,
        read: Callable[[SoftLabels, np.ndarray, np.ndarray], np.ndarray],
        sample_ids: np.ndarray,
        views: np.ndarray,
    ) -> np.ndarray:
        """Each row from the file that holds its view."""
        if len(self.files) == 1 or len(views) == 0:
            return read(self.files[0], sample_ids, views)
        self.positions(sample_ids, views)  # refuses what no file has
        holders = np.searchsorted([file.views.stop for file in self.files[:-1]], views, side="right")
        found: np.ndarray | None = None
        for holder in np.unique(holders):
            rows = np.flatnonzero(holders == holder)
            values = read(self.files[holder], sample_ids[rows], views[rows])
            if found is None:
                found = np.empty((len(views), *values.shape[1:]), dtype=values.dtype)
            found[rows] = values
        assert found is not None, "there is at least one row"
        return found


def open_store(
    paths: Sequence[Path],
    expected: Callable[[ViewRange], Provenance] | None = None,
    sample_keys: UInt64[np.ndarray, " id"] | None = None,
    class_ids: Int32[np.ndarray, " class"] | None = None,
) -> SoftLabelStore:
    """The files as one store, after every byte of each has been checked.

    Args:
        paths: of the files, in any order.
        expected: what the file of these views must have been made from. None: anything.
        sample_keys: content keys of all the dataset's samples, to be compared with those in the files.
        class_ids: what the columns must be.

    Raises:
        CorruptFileError, MismatchError: as `open_soft_labels` does for each file.
        IncompleteStoreError: a view is missing or there twice, or files do not belong together.
    """
    files = [open_soft_labels(path, None, sample_keys, class_ids) for path in paths]
    files.sort(key=lambda file: file.views.first)
    if expected is not None:
        for file in files:
            check_provenance(file.path, file.provenance, expected(file.views))
    _check_complete(files)
    return SoftLabelStore(tuple(files))


def _check_complete(files: Sequence[SoftLabels]) -> None:
    if not files:
        raise IncompleteStoreError("soft labels: no file of them is given; dump them with `snakemake`")
    stop, first = 0, files[0]
    for file in files:
        if file.views.first != stop:
            what = "is missing" if file.views.first > stop else "is in two files"
            raise IncompleteStoreError(
                f"{file.path}: view {min(stop, file.views.first)} {what}; dump the files again with `snakemake`"
            )
        stop = file.views.stop
        if not _have_same_header(file, first):
            raise IncompleteStoreError(
                f"{file.path}: has another precision, provenance, samples or classes than {first.path}; "
                f"{remake(first.path, file.path, act='dump both again')}"
            )


def _have_same_header(one: SoftLabels, other: SoftLabels) -> bool:
    """Whether two files hold views of the same teacher and samples, stored alike; canaries are of each file's views."""
    return (
        one.header.storage == other.header.storage
        and one.header.features == other.header.features
        and replace(one.provenance, pixel_canary="") == replace(other.provenance, pixel_canary="")
        and np.array_equal(one.sample_ids, other.sample_ids)
        and np.array_equal(one.class_ids, other.class_ids)
    )


def check_verified(store: SoftLabelStore, index_path: Path) -> None:
    """That the files are those which were compared with the teacher.

    Raises:
        CorruptFileError: the index is missing or unreadable.
        UnverifiedError: the index speaks of other files.
    """
    inputs = read_record(index_path, "inputs")["inputs"]
    verified = inputs.get("soft_labels") if isinstance(inputs, dict) else None
    if verified != store.digests:
        raise UnverifiedError(
            f"{index_path}: speaks of soft labels {verified}, at hand are {store.digests}; "
            f"{remake(index_path, act='verify them')}"
        )
