"""Reads one soft-label file (format: docs/soft_label_format.md): nothing of it is used before it is checked.

Rows are gathered through mmap at each column's offset: plain NumPy speed, safe to fork, no h5py in the hot path.
"""

import json
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt64

from edpipe.errors import AlteredHeaderError, MissingRowsError, UnverifiedError
from edpipe.params.soft_labels import StorageKnobs
from edpipe.soft_labels.encoding.precisions import Column, Parts, Precision
from edpipe.soft_labels.encoding.quantisation import kl_bound
from edpipe.soft_labels.file.checks import (
    check_content,
    check_features,
    check_head,
    check_provenance,
    check_rows,
    check_shapes,
    map_file,
    remedy,
)
from edpipe.soft_labels.file.format import (
    ATTENTION,
    HINT,
    SMALL_COLUMNS,
    STATISTICS,
    USER_BLOCK_BYTES,
    Extents,
    Header,
    Provenance,
    Seal,
    provenance_of,
)
from edpipe.storage.digests import DIGEST_LENGTH
from edpipe.storage.hdf5 import MappedFile, plain_attribute
from edpipe.storage.mapped_pages import gather_rows, let_go
from edpipe.views.spec import ViewRange


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """An opened, verified file; holds a mapping of it, no HDF5 handle."""

    path: Path
    digest: str
    """Of the header, which holds the digests of all rows: equal digests, equal content."""
    header: Header
    seal: Seal
    parts: Parts
    """The large columns, mapped: (view, sample, …)."""
    _row_of: Int64[np.ndarray, " id"]
    _mapped: mmap.mmap

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self.digest)  # another process maps the same pages instead of getting a copy

    @property
    def provenance(self) -> Provenance:
        """What it was made from."""
        return self.header.provenance

    @property
    def precision(self) -> Precision:
        """How rows are stored."""
        return self.header.precision

    @property
    def sample_ids(self) -> Int64[np.ndarray, " sample"]:
        """Ascending."""
        return self.header.sample_ids

    @property
    def class_ids(self) -> Int32[np.ndarray, " class"]:
        """Which class each logit is of."""
        return self.header.class_ids

    @property
    def views(self) -> ViewRange:
        """Which views it holds."""
        return self.header.views

    @property
    def num_forwards(self) -> int:
        """Teacher forward passes that the file saves whoever reads it."""
        return len(self.sample_ids) * self.views.num_views

    def kl_bound(self, temperature: float) -> float:
        """Certified largest KL(teacher ‖ stored) of any row, nats; infinite for sampled rows."""
        return float(kl_bound(np.array([self.seal.statistics["max_error_range"]]), temperature)[0])

    def rows(self, sample_ids: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
        """Where each sample lies within a view.

        Raises:
            MissingRowsError: a sample is not in the file.
        """
        rows = self._row_of.take(sample_ids, mode="clip")
        is_known = len(rows) == 0 or (
            rows.min() >= 0 and sample_ids.min() >= 0 and sample_ids.max() < len(self._row_of)
        )
        if not is_known:
            missing = sample_ids[~np.isin(sample_ids, self.sample_ids)][0]
            raise MissingRowsError(f"{self.path}: holds no soft labels of sample {missing}; {remedy(self.path)}")
        return rows

    def positions(
        self, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Int64[np.ndarray, " row"]:
        """Where each (sample, view) lies in the columns, views and samples taken as one axis.

        Raises:
            MissingRowsError: a sample or a view is not in the file.
        """
        offsets = views - self.views.first
        if len(views) and not 0 <= offsets.min() <= offsets.max() < self.views.num_views:
            missing = views[(offsets < 0) | (offsets >= self.views.num_views)][0]
            raise MissingRowsError(
                f"{self.path}: holds no soft labels of view {missing}, it has {self.views}; {remedy(self.path)}"
            )
        return offsets * len(self.sample_ids) + self.rows(sample_ids)

    def gather(self, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]) -> Parts:
        """The stored parts of each row's logits, in arrays of the caller's own.

        Raises:
            MissingRowsError: a sample or a view is not in the file.
        """
        columns = {name: self.flat(name) for name in self.precision.columns()}
        return gather_rows(self._mapped, columns, self.positions(sample_ids, views))

    def flat(self, name: str) -> np.ndarray:
        """A large column with views and samples as one axis; no copy."""
        column = self.parts[name]
        return column.reshape(-1, *column.shape[2:])

    def logits(
        self, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Float32[np.ndarray, "row class"]:
        """The teacher's logits on the given view of each sample; classes as in `class_ids`.

        Raises:
            MissingRowsError: a sample or a view is not in the file.
        """
        return self.precision.decode(self.gather(sample_ids, views))

    def attention(
        self, feature_stage: int, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Float32[np.ndarray, "row height width"]:
        """The teacher's attention map of one level (from 1) on the given view of each sample.

        Raises:
            MissingRowsError: a sample or a view is not in the file, or it has no such maps.
        """
        return self.features(f"{ATTENTION}{feature_stage}", sample_ids, views)

    def hint(
        self, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Float32[np.ndarray, "row channel height width"]:
        """The teacher's features of the stage that `header.hint_shape` names, on the given view of each sample.

        Raises:
            MissingRowsError: a sample or a view is not in the file, or it has no hints.
        """
        return self.features(HINT, sample_ids, views)

    def features(
        self, name: str, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Float32[np.ndarray, "row ..."]:
        """Rows of a column of `header.beside`.

        Raises:
            MissingRowsError: a sample or a view is not in the file, or it has no such column.
        """
        if name not in self.header.features:
            knob = "storage.hint.feature_stage" if name == HINT else "storage.attention: true"
            raise MissingRowsError(f"{self.path}: holds no {name}; dump it with {knob}")
        rows = gather_rows(self._mapped, {name: self.flat(name)}, self.positions(sample_ids, views))
        return rows[name].astype(np.float32)

    def let_go(self) -> None:
        """Pages that were read in order are this process's no longer; `gather` sees to its own."""
        let_go(self._mapped)


def open_soft_labels(
    path: Path,
    expected: Provenance | None = None,
    sample_keys: UInt64[np.ndarray, " id"] | None = None,
    class_ids: Int32[np.ndarray, " class"] | None = None,
) -> SoftLabels:
    """The file, after every byte of it has been checked against its digests.

    Args:
        path: of the file.
        expected: what it must have been made from. None: anything.
        sample_keys: content keys of all the dataset's samples, to be compared with those in the file.
        class_ids: what its columns must be.

    Raises:
        CorruptFileError: missing, foreign, truncated, altered or half-written; each has its own class.
        MismatchError: made from another teacher, dataset, partition or views, or of other images; likewise.
    """
    labels = read_header(path)
    if expected is not None:
        check_provenance(path, labels.provenance, expected)
    check_content(path, labels.header, sample_keys, class_ids)
    check_rows(path, labels.header, labels.seal, labels.parts, labels.let_go)
    if hasattr(mmap, "MADV_RANDOM"):
        labels._mapped.madvise(mmap.MADV_RANDOM)  # the check was the last reading in order
    return labels


def _reopen(path: Path, digest: str) -> SoftLabels:
    """The same file in another process; its rows have been checked in the first.

    Raises:
        UnverifiedError: another file lies at the path now.
    """
    labels = read_header(path)
    if labels.digest != digest:
        raise UnverifiedError(f"{path}: was {digest} when it was opened, is {labels.digest} now; start again")
    return labels


def read_header(path: Path) -> SoftLabels:
    """The file with its header checked, but not its rows.

    Raises:
        CorruptFileError: not a whole soft-label file of this version.
    """
    mapped = map_file(path)
    sha256, extents = check_head(path, mapped)
    with _opened(path, mapped) as file:
        attributes = {name: plain_attribute(value) for name, value in file.attrs.items()}
        small = {name: file[name][:] for name in SMALL_COLUMNS}
        header = _header(file, attributes, small)
        check_features(path, header)
        places = {name: _place(path, file[name], name, header, kind) for name, kind in header.columns().items()}
        seal = Seal(small["block_digest"], small["agreement"], {name: float(attributes[name]) for name in STATISTICS})
    check_shapes(path, header, seal)
    _check_extents(path, len(mapped), extents, places, header)
    row_of = np.full(int(header.sample_ids[-1]) + 1, -1, dtype=np.int64)
    row_of[header.sample_ids] = np.arange(len(header.sample_ids))
    columns = header.columns()
    parts = {n: _array(mapped, places[n], _shape(header, columns[n]), columns[n].dtype) for n in places}
    return SoftLabels(path, sha256[:DIGEST_LENGTH], header, seal, parts, row_of, mapped)


@contextmanager
def _opened(path: Path, mapped: mmap.mmap) -> Iterator[Any]:
    """The file in h5py. Its bytes are known to be those written, so that a failure means that they were written so."""
    try:
        with h5py.File(MappedFile(mapped), "r") as file:
            yield file
    except (OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        what = " ".join(str(error).split())
        raise AlteredHeaderError(f"{path}: not a whole soft-label file ({what}); {remedy(path)}") from error


def _header(file: Any, attributes: Mapping[str, Any], small: Mapping[str, np.ndarray]) -> Header:
    storage = StorageKnobs.model_validate(json.loads(attributes["storage"]) | {"max_kl": None})
    levels = len(file["attention"]) if "attention" in file else 0
    names = [f"{ATTENTION}{feature_stage}" for feature_stage in range(1, levels + 1)] + [HINT] * bool(storage.hint)
    first = int(attributes["first_view"])
    return Header(
        provenance=provenance_of(attributes),
        storage=storage,
        views=ViewRange(first, first + int(attributes["num_views"])),
        sample_ids=small["sample_id"],
        sample_keys=small["sample_key"],
        labels=small["label"],
        class_ids=small["class_id"],
        features={name: file[name].shape[2:] for name in names},
    )


def _shape(header: Header, column: Column) -> tuple[int, ...]:
    return (header.views.num_views, len(header.sample_ids), *column.shape)


def _place(path: Path, dataset: Any, name: str, header: Header, column: Column) -> int:
    """Where a large column starts in the file."""
    found, wanted = (dataset.shape, dataset.dtype), (_shape(header, column), column.dtype)
    offset = dataset.id.get_offset()
    if found != wanted or offset is None:
        raise AlteredHeaderError(
            f"{path}: '{name}' is not the contiguous array {wanted[0]} of {wanted[1]} that its header speaks of; "
            f"{remedy(path)}"
        )
    return offset


def _check_extents(path: Path, num_bytes: int, extents: Extents, places: Mapping[str, int], header: Header) -> None:
    """What the header's digest does not cover is rows, and nothing else."""
    covered = USER_BLOCK_BYTES
    taken = list(extents)
    for name, column in header.columns().items():
        size = int(np.prod(_shape(header, column), dtype=np.int64)) * column.dtype.itemsize
        taken.append((places[name], places[name] + size))
    taken.append((num_bytes, num_bytes))
    for start, stop in sorted(taken):
        if start != covered:
            raise AlteredHeaderError(f"{path}: bytes {covered} to {start} are neither header nor rows; {remedy(path)}")
        covered = stop


def _array(mapped: mmap.mmap, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(mapped, dtype=dtype, count=count, offset=offset).reshape(shape)
