"""What a soft-label file must pass before its rows are used; each failure has its own error class and remedy."""

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt64

from edpipe.errors import (
    AlteredHeaderError,
    AlteredRowsError,
    EdpipeError,
    ForeignFileError,
    LabelAgreementError,
    MismatchError,
    MissingFileError,
    OtherClassesError,
    OtherDatasetError,
    OtherImagesError,
    OtherPartitionError,
    OtherTeacherError,
    OtherVersionError,
    OtherViewsError,
    PixelDriftError,
    TruncatedFileError,
    remake,
)
from edpipe.soft_labels.encoding.precisions import Parts
from edpipe.soft_labels.file.format import (
    BLOCK_ROWS,
    FORMAT,
    FORMAT_VERSION,
    HINT,
    USER_BLOCK_BYTES,
    Extents,
    Header,
    Provenance,
    Seal,
    block_digest,
    count_agreement,
    render_user_block,
)
from edpipe.storage.mapped_pages import HELD_BYTES, watch

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BEGINNING = f'{{"format": "{FORMAT}"'.encode()
_MOST_SAMPLES = 2**30
"""Ids are rows of a dataset; the reader has a table of so many."""
_REFUSALS: dict[str, type[MismatchError]] = {
    "teacher": OtherTeacherError,
    "subset": OtherPartitionError,
    "teacher_digest": OtherTeacherError,
    "dataset_digest": OtherDatasetError,
    "partition_digest": OtherPartitionError,
    "view_spec": OtherViewsError,
    "pixel_canary": PixelDriftError,
    "stream": OtherViewsError,
}


def remedy(path: Path) -> str:
    """What helps against a file that cannot be used."""
    return remake(path, act="dump it again")


def map_file(path: Path) -> mmap.mmap:
    """The whole file, shared by all processes that map it; what is checked and what is read is this one mapping.

    Raises:
        CorruptFileError: by its class: missing, a folder, or empty.
        EdpipeError: it may not be read, or there is no address space left.
    """
    if path.is_dir():
        raise ForeignFileError(f"{path}: is a folder; remove it, then {remedy(path)}")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; get it with `dvc pull`, or {remedy(path)}")
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise TruncatedFileError(f"{path}: is empty; {remedy(path)}")
            return watch(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        helps = "raise `ulimit -v`, or close programs" if error.errno == errno.ENOMEM else "mend that, then try again"
        raise EdpipeError(f"{path}: cannot be mapped: {error.strerror or error}; {helps}") from error


def check_head(path: Path, mapped: mmap.mmap) -> tuple[str, Extents]:
    """The sha256 of all bytes that are not rows, after it was compared; and where these bytes lie.

    Raises:
        CorruptFileError: by its class: foreign, another version, truncated or altered.
    """
    size, block = len(mapped), mapped[:USER_BLOCK_BYTES]
    head = _parse_user_block(path, size, block)
    extents = _extents(path, size, head)
    state = hashlib.sha256()
    with memoryview(mapped) as view:
        for start, stop in extents:
            state.update(view[start:stop])
    if state.hexdigest() != head["sha256"]:
        raise AlteredHeaderError(f"{path}: its header is not the one that was written; {remedy(path)}")
    if block != render_user_block(size, extents, head["sha256"]):
        raise AlteredHeaderError(f"{path}: its user block is not the one that was written; {remedy(path)}")
    return head["sha256"], extents


def _parse_user_block(path: Path, size: int, block: bytes) -> dict[str, Any]:
    try:
        head = json.loads(block)
        is_ours = head["format"] == FORMAT
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if block.startswith(_BEGINNING):
            raise AlteredHeaderError(
                f"{path}: its user block is not the one that was written; {remedy(path)}"
            ) from error
        kind = "an HDF5 file, but not" if block.startswith(_HDF5_SIGNATURE) else "not"
        raise ForeignFileError(f"{path}: {kind} one of soft labels of this edpipe; {remedy(path)}") from error
    if not is_ours:
        raise ForeignFileError(f"{path}: is of format {head['format']!r}, not {FORMAT!r}; {remedy(path)}")
    if head.get("format_version") != FORMAT_VERSION:
        raise OtherVersionError(
            f"{path}: has format version {head.get('format_version')!r}, this edpipe reads {FORMAT_VERSION}; "
            f"{remedy(path)}"
        )
    if head.get("bytes") != size:
        raise TruncatedFileError(f"{path}: has {size} bytes, {head.get('bytes')!r} were written; {remedy(path)}")
    return head


def _extents(path: Path, size: int, head: dict[str, Any]) -> Extents:
    try:
        extents = tuple((int(start), int(stop)) for start, stop in head["extents"])
        if isinstance(head["sha256"], str) and all(USER_BLOCK_BYTES <= a <= b <= size for a, b in extents):
            return extents
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise AlteredHeaderError(f"{path}: its header is not the one that was written; {remedy(path)}")


def check_provenance(path: Path, found: Provenance, expected: Provenance) -> None:
    """That the file was made from what is expected.

    Raises:
        MismatchError: by its class: another teacher, dataset, partition, views, or drifted pixels.
    """
    for name, error in _REFUSALS.items():
        stored, wanted = getattr(found, name), getattr(expected, name)
        if stored != wanted:
            what = name.replace("_", " ")
            raise error(f"{path}: was made with {what} {stored!r}, asked for is {wanted!r}; {remedy(path)}")


def check_content(
    path: Path,
    header: Header,
    sample_keys: UInt64[np.ndarray, " id"] | None,
    class_ids: Int32[np.ndarray, " class"] | None,
) -> None:
    """That the file's samples are images of the dataset, and its columns the classes that are expected.

    Raises:
        OtherImagesError: content keys differ.
        OtherClassesError: other classes, or another order of them.
    """
    if class_ids is not None and not np.array_equal(header.class_ids, class_ids):
        raise OtherClassesError(
            f"{path}: its columns are classes {header.class_ids.tolist()[:8]}, asked for are {class_ids.tolist()[:8]}"
            f" ({len(header.class_ids)} and {len(class_ids)} in all); {remedy(path)}"
        )
    if sample_keys is None:
        return
    ids = header.sample_ids
    if ids.max() >= len(sample_keys) or (header.sample_keys != sample_keys[ids]).any():
        raise OtherImagesError(f"{path}: its images are not those of the dataset (content keys differ); {remedy(path)}")


def check_shapes(path: Path, header: Header, seal: Seal) -> None:
    """Digests cover bytes; that the small columns belong together is checked here.

    Raises:
        AlteredHeaderError: they do not.
    """
    blocks, samples = (header.views.num_views, header.num_blocks), len(header.sample_ids)
    kinds = {
        "sample_id": (header.sample_ids, np.int64, (samples,)),
        "sample_key": (header.sample_keys, np.uint64, (samples,)),
        "label": (header.labels, np.int32, (samples,)),
        "class_id": (header.class_ids, np.int32, (len(header.class_ids),)),
        "block_digest": (seal.block_digest, np.uint64, blocks),
        "agreement": (seal.agreement, np.int32, blocks),
    }
    for name, (values, dtype, shape) in kinds.items():
        if (values.dtype, values.shape) != (np.dtype(dtype), shape):
            raise AlteredHeaderError(
                f"{path}: '{name}' has shape {values.shape} of {values.dtype}, not {shape} of {np.dtype(dtype)}; "
                f"{remedy(path)}"
            )
    is_ascending = all((np.diff(ids) > 0).all() for ids in (header.sample_ids, header.class_ids))
    is_sound = samples > 0 and header.sample_ids[0] >= 0 and header.sample_ids[-1] < _MOST_SAMPLES and is_ascending
    if not (is_sound and np.isin(header.labels, header.class_ids).all()):
        raise AlteredHeaderError(
            f"{path}: samples or classes are not ascending, or a label is no class of it; {remedy(path)}"
        )


def check_features(path: Path, header: Header) -> None:
    """That a row of each column beside the logits is of the kind that its name says.

    Raises:
        AlteredHeaderError: it is not.
    """
    for name, shape in header.features.items():
        side = header.storage.hint.side if name == HINT and header.storage.hint else None
        is_sound = len(shape) == (3 if name == HINT else 2) and min(shape) > 0
        if not is_sound or (side is not None and max(shape[1:]) > side):
            most = "" if side is None else f" of side {side} at most"
            kind = f"(channel, height, width){most}" if name == HINT else "(height, width)"
            raise AlteredHeaderError(f"{path}: '{name}' has rows of shape {shape}, not {kind}; {remedy(path)}")


def check_rows(path: Path, header: Header, seal: Seal, parts: Parts, let_go: Callable[[], None]) -> None:
    """Every block against its digest, and against its labels.

    `let_go` gives back the pages read so far: called from time to time and at the end.

    Raises:
        AlteredRowsError: naming the block whose bytes are not those that were written.
        LabelAgreementError: naming the block in which the teacher names the label more or less often than it did.
    """
    local, precision, names = header.local_labels, header.precision, header.precision.columns()
    mapped_bytes = 0
    for view, block in np.ndindex(seal.block_digest.shape):
        rows = slice(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
        stored = {name: array[view, rows] for name, array in parts.items()}
        where = f"{path}: view {header.views.first + view}, rows from {rows.start}"
        if block_digest(stored) != seal.block_digest[view, block]:
            raise AlteredRowsError(f"{where}: altered since written; {remedy(path)}")
        found = count_agreement(precision, {name: stored[name] for name in names}, local[rows])
        if found != seal.agreement[view, block]:
            raise LabelAgreementError(
                f"{where}: the teacher names the label of {found} rows, of {seal.agreement[view, block]} when they "
                f"were dumped: labels and rows do not belong together; {remedy(path)}"
            )
        mapped_bytes += sum(array.nbytes for array in stored.values())
        if mapped_bytes >= HELD_BYTES:
            let_go()
            mapped_bytes = 0
    let_go()
