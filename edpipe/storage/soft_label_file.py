"""The soft-label file: one teacher's logits on every view of one subset's training samples (design: docs/formats.md).

An ordinary HDF5 file whose large datasets are contiguous and uncompressed, so that they are read through mmap at their
offset: plain NumPy speed, safe to fork, no h5py in the hot path. Logits are stored before temperature.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt64

from edpipe.certify import dequantise, kl_bound, quantise_uint8
from edpipe.errors import CorruptFileError, MismatchError, TeacherError
from edpipe.storage.hdf5 import fixed_text, plain_attribute, write_hdf5_atomically
from edpipe.storage.records import digest_bytes

FORMAT = "edpipe-soft-labels"
FORMAT_VERSION = 1
BLOCK_ROWS = 4096
"""Rows of one view that share a digest."""
CERTIFIED_TEMPERATURE = 4.0
"""The temperature at which the error bound is written; it scales with 1/temperature²."""
PRECISIONS = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
# h5py types every lookup in a file as one of three kinds; files are Any here, what is read is typed where it is kept.
_MENDING = "dump it again with `snakemake --force {path}`"


@dataclass(frozen=True)
class Provenance:
    """What a soft-label file was made from; a reader that expects something else refuses the file."""

    teacher: str
    subset: str
    teacher_digest: str
    dataset_digest: str
    partition_digest: str
    """Empty for a teacher of all classes."""
    view_spec: str
    pixel_canary: str
    precision: str


@dataclass(frozen=True)
class SoftLabels:
    """An opened, verified file; holds arrays, no handles."""

    path: Path
    provenance: Provenance
    digest: str
    """Of the header, which holds the digests of all rows: equal digests, equal content."""
    sample_ids: Int64[np.ndarray, " sample"]
    class_ids: Int32[np.ndarray, " class"]
    num_views: int
    max_error_range: float
    """Largest difference, within a row, between the errors of two stored logits."""
    _logits: np.ndarray
    _scale: np.ndarray | None
    _zero: np.ndarray | None
    _row_of: Int64[np.ndarray, " id"]

    @property
    def num_forwards(self) -> int:
        """Teacher forward passes that the file saves whoever reads it."""
        return len(self.sample_ids) * self.num_views

    def kl_bound(self, temperature: float) -> float:
        """Certified largest KL(teacher ‖ stored) of any row, nats."""
        return float(kl_bound(np.array([self.max_error_range], dtype=np.float32), temperature)[0])

    def logits(
        self, sample_ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
    ) -> Float32[np.ndarray, "row class"]:
        """The teacher's logits on the given view of each sample; classes as in `class_ids`.

        Raises:
            MismatchError: a sample is not in the file.
        """
        inside = (sample_ids >= 0) & (sample_ids < len(self._row_of))
        rows = np.where(inside, self._row_of[np.where(inside, sample_ids, 0)], -1)
        if (rows < 0).any():
            missing = int(sample_ids[rows < 0][0])
            raise MismatchError(f"{self.path}: holds no soft labels of sample {missing}; {_mend(self.path)}")
        stored = self._logits[views, rows]
        if self._scale is None or self._zero is None:
            return stored.astype(np.float32)
        return dequantise(stored, self._scale[views, rows], self._zero[views, rows])


class SoftLabelWriter:
    """Fills a file view by view, block by block; use through `create_soft_labels`."""

    def __init__(self, file: Any, provenance: Provenance, labels: Int32[np.ndarray, " sample"]) -> None:
        self._file = file
        self._precision, self._teacher = provenance.precision, provenance.teacher
        self._local = np.searchsorted(file["class_id"][:], labels)
        self.max_abs_error = 0.0
        self.max_error_range = 0.0

    def write(self, view: int, start: int, logits: Float32[np.ndarray, "row class"]) -> None:
        """Stores one whole block: rows `start` … of one view.

        Raises:
            TeacherError: a logit is not a finite number.
        """
        if not np.isfinite(logits).all():
            row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise TeacherError(
                f"{self._teacher}: gives a logit that is not finite for sample "
                f"{int(self._file['sample_id'][start + row])}, view {view}; train or fetch the teacher again"
            )
        rows = slice(start, start + len(logits))
        stored, parts = self._encode(logits)
        if not np.isfinite(stored).all():
            raise TeacherError(
                f"{self._teacher}: a logit of {np.abs(logits).max():.3g} does not fit {self._precision}; "
                "use precision: float32"
            )
        for name, values in parts.items():
            self._file[name][view, rows] = values
        self._note_error(stored - logits)
        block = start // BLOCK_ROWS
        self._file["block_digest"][view, block] = _block_digest(parts)
        self._file["agreement"][view, block] = _agreement(parts["logits"], self._local[rows])

    def _encode(self, logits: Float32[np.ndarray, "row class"]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        if self._precision != "uint8":
            with np.errstate(over="ignore"):
                stored = logits.astype(PRECISIONS[self._precision])
            return stored.astype(np.float32), {"logits": stored}
        try:
            codes, scale, zero = quantise_uint8(logits)
        except ValueError as error:
            raise TeacherError(f"{self._teacher}: {error}; use precision: float32") from error
        return dequantise(codes, scale, zero), {"logits": codes, "scale": scale, "zero": zero}

    def _note_error(self, error: Float32[np.ndarray, "row class"]) -> None:
        self.max_abs_error = max(self.max_abs_error, float(np.abs(error).max()))
        self.max_error_range = max(self.max_error_range, float((error.max(axis=1) - error.min(axis=1)).max()))


@contextmanager
def create_soft_labels(
    path: Path,
    provenance: Provenance,
    sample_ids: Int64[np.ndarray, " sample"],
    sample_keys: UInt64[np.ndarray, " sample"],
    labels: Int32[np.ndarray, " sample"],
    class_ids: Int32[np.ndarray, " class"],
    num_views: int,
    max_kl: float,
) -> Iterator[SoftLabelWriter]:
    """A writer whose file becomes `path` when the block ends well, and never otherwise.

    Raises:
        TeacherError: the certified error at temperature 4 is larger than `max_kl` nats.
    """
    with write_hdf5_atomically(path) as file:
        _allocate(file, provenance, sample_ids, sample_keys, labels, class_ids, num_views)
        writer = SoftLabelWriter(file, provenance, labels)
        yield writer
        _seal(file, path, writer, max_kl)


def _allocate(
    file: Any,
    provenance: Provenance,
    sample_ids: np.ndarray,
    sample_keys: np.ndarray,
    labels: np.ndarray,
    class_ids: np.ndarray,
    num_views: int,
) -> None:
    file.attrs["format"] = fixed_text(FORMAT)
    file.attrs["format_version"] = FORMAT_VERSION
    for name, value in asdict(provenance).items():
        file.attrs[name] = fixed_text(value)
    columns = {"sample_id": sample_ids, "sample_key": sample_keys, "label": labels, "class_id": class_ids}
    for name, values in columns.items():
        file.create_dataset(name, data=values)
    shape = (num_views, len(sample_ids))
    file.create_dataset("logits", shape=(*shape, len(class_ids)), dtype=PRECISIONS[provenance.precision])
    if provenance.precision == "uint8":
        file.create_dataset("scale", shape=shape, dtype=np.float16)
        file.create_dataset("zero", shape=shape, dtype=np.float16)
    blocks = (num_views, -(-len(sample_ids) // BLOCK_ROWS))
    file.create_dataset("block_digest", shape=blocks, dtype=np.uint64)
    file.create_dataset("agreement", shape=blocks, dtype=np.int32)


def _seal(file: Any, path: Path, writer: SoftLabelWriter, max_kl: float) -> None:
    bound = float(kl_bound(np.array([writer.max_error_range], dtype=np.float32), CERTIFIED_TEMPERATURE)[0])
    if bound > max_kl:
        raise TeacherError(
            f"{path}: storing these logits may cost {bound:.3g} nats of KL at temperature {CERTIFIED_TEMPERATURE:g}, "
            f"soft_labels allows max_kl {max_kl:g}; choose a finer precision or a larger max_kl"
        )
    file.attrs["max_abs_error"] = writer.max_abs_error
    file.attrs["max_error_range"] = writer.max_error_range
    file.attrs["kl_bound"] = bound
    file.attrs["header_digest"] = fixed_text(_header_digest(file))


def _block_digest(parts: dict[str, np.ndarray]) -> np.uint64:
    joined = b"".join(np.ascontiguousarray(parts[name]).tobytes() for name in sorted(parts))
    return np.uint64(int(digest_bytes(joined), 16))


def _agreement(stored: np.ndarray, local_class_ids: Int64[np.ndarray, " row"]) -> int:
    """In how many rows the teacher names the label; codes of a row keep the order of its logits."""
    return int((stored.argmax(axis=1) == local_class_ids).sum())


def _header_digest(file: Any) -> str:
    """Covers every attribute and every small dataset; the large ones have their block digests."""
    attributes = {k: plain_attribute(v) for k, v in file.attrs.items() if k != "header_digest"}
    small = [
        file[n][:].tobytes() for n in ("sample_id", "sample_key", "label", "class_id", "block_digest", "agreement")
    ]
    return digest_bytes(json.dumps(attributes, sort_keys=True).encode() + b"".join(small))


def _mend(path: Path) -> str:
    return _MENDING.format(path=path)


def read_provenance(path: Path) -> Provenance:
    """What the file says it was made from, with its header checked but not its rows.

    Raises:
        CorruptFileError: not a whole soft-label file of this version.
    """
    with _opened(path) as file:
        return _provenance(file)


def open_soft_labels(
    path: Path, expected: Provenance | None = None, sample_keys: UInt64[np.ndarray, " id"] | None = None
) -> SoftLabels:
    """The file, after every digest in it has been checked.

    Args:
        path: of the file.
        expected: what it must have been made from; its precision is not compared. None: anything.
        sample_keys: content keys of all the dataset's samples, to be compared with those in the file.

    Raises:
        CorruptFileError: foreign, truncated, altered or half-written.
        MismatchError: made from another teacher, dataset, partition or views, or of other images.
    """
    with _opened(path) as file:
        provenance = _provenance(file)
        _check_expected(path, provenance, expected)
        labels = _labels(path, file, provenance)
    _check_keys(path, labels, sample_keys)
    return labels


def _labels(path: Path, file: Any, provenance: Provenance) -> SoftLabels:
    _check_shapes(path, file, provenance)
    arrays = {name: _mapped(path, file, name) for name in ("logits", "scale", "zero") if name in file}
    _check_blocks(path, file, arrays)
    sample_ids = file["sample_id"][:]
    row_of = np.full(int(sample_ids.max()) + 1, -1, dtype=np.int64)
    row_of[sample_ids] = np.arange(len(sample_ids))
    return SoftLabels(
        path=path,
        provenance=provenance,
        digest=plain_attribute(file.attrs["header_digest"]),
        sample_ids=sample_ids,
        class_ids=file["class_id"][:],
        num_views=file["logits"].shape[0],
        max_error_range=float(file.attrs["max_error_range"]),
        _logits=arrays["logits"],
        _scale=arrays.get("scale"),
        _zero=arrays.get("zero"),
        _row_of=row_of,
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with h5py.File(path, "r") as file:
            _check_header(path, file)
            yield file
    except FileNotFoundError as error:
        raise CorruptFileError(f"{path}: no such file; {_mend(path)}") from error
    except (OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFileError(f"{path}: not a whole soft-label file ({error}); {_mend(path)}") from error


def _check_header(path: Path, file: Any) -> None:
    if plain_attribute(file.attrs.get("format")) != FORMAT:
        raise CorruptFileError(
            f"{path}: an HDF5 file, but not one of soft labels (no format '{FORMAT}'); {_mend(path)}"
        )
    version = file.attrs.get("format_version")
    if version != FORMAT_VERSION:
        raise CorruptFileError(
            f"{path}: has format version {version}, this edpipe reads {FORMAT_VERSION}; {_mend(path)}"
        )
    if plain_attribute(file.attrs.get("header_digest")) != _header_digest(file):
        raise CorruptFileError(f"{path}: its header does not have the digest that was written; {_mend(path)}")


def _provenance(file: Any) -> Provenance:
    return Provenance(**{name: plain_attribute(file.attrs[name]) for name in Provenance.__dataclass_fields__})


def _check_expected(path: Path, found: Provenance, expected: Provenance | None) -> None:
    for name in Provenance.__dataclass_fields__ if expected else ():
        stored, wanted = getattr(found, name), getattr(expected, name)
        if stored != wanted and name != "precision":
            what = name.replace("_", " ")
            raise MismatchError(f"{path}: was made with {what} {stored!r}, asked for is {wanted!r}; {_mend(path)}")


def _check_keys(path: Path, labels: SoftLabels, sample_keys: UInt64[np.ndarray, " id"] | None) -> None:
    if sample_keys is None:
        return
    with _opened(path) as file:
        stored = file["sample_key"][:]
    if labels.sample_ids.max() >= len(sample_keys) or (stored != sample_keys[labels.sample_ids]).any():
        raise MismatchError(f"{path}: its images are not those of the dataset (content keys differ); {_mend(path)}")


def _check_shapes(path: Path, file: Any, provenance: Provenance) -> None:
    """Digests cover bytes; what the bytes mean is checked here."""
    views, samples, classes = len(file["block_digest"]), len(file["sample_id"]), len(file["class_id"])
    wanted = {"logits": ((views, samples, classes), np.dtype(PRECISIONS[provenance.precision]))}
    if provenance.precision == "uint8":
        wanted |= dict.fromkeys(("scale", "zero"), ((views, samples), np.dtype(np.float16)))
    for name, kind in wanted.items():
        if (file[name].shape, file[name].dtype) != kind:
            raise CorruptFileError(
                f"{path}: '{name}' does not have the shape and type it was written with; {_mend(path)}"
            )


def _mapped(path: Path, file: Any, name: str) -> np.ndarray:
    dataset = file[name]
    offset = dataset.id.get_offset()
    if offset is None or offset + dataset.nbytes > path.stat().st_size:
        raise CorruptFileError(f"{path}: dataset '{name}' is cut off; {_mend(path)}")
    return np.memmap(path, mode="r", dtype=dataset.dtype, shape=dataset.shape, offset=offset)


def _check_blocks(path: Path, file: Any, arrays: dict[str, np.ndarray]) -> None:
    digests, agreement = file["block_digest"][:], file["agreement"][:]
    local = np.searchsorted(file["class_id"][:], file["label"][:])
    for view, block in np.ndindex(digests.shape):
        rows = slice(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
        parts = {name: array[view, rows] for name, array in arrays.items()}
        if _block_digest(parts) != digests[view, block]:
            raise CorruptFileError(f"{path}: view {view}, rows from {rows.start}: altered since written; {_mend(path)}")
        if _agreement(parts["logits"], local[rows]) != agreement[view, block]:
            raise CorruptFileError(f"{path}: view {view}, rows from {rows.start}: labels do not fit; {_mend(path)}")
