"""Soft labels that are spoilt, or of something else, are refused: each case in its own class and words."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from soft_label_examples import (
    CLASSES,
    IDS,
    KEYS,
    LABELS,
    PROVENANCE,
    STORAGE,
    craft,
    draw,
    make_header,
    parts_of,
    path_of,
    seal_of,
    small_blocks,
    write,
    write_image,
)

import edpipe.soft_labels.file.format as format_
from edpipe.errors import (
    AlteredHeaderError,
    AlteredRowsError,
    BusyError,
    CorruptFileError,
    EdpipeError,
    ForeignFileError,
    IncompleteStoreError,
    LabelAgreementError,
    MismatchError,
    MissingFileError,
    MissingRowsError,
    OtherClassesError,
    OtherDatasetError,
    OtherImagesError,
    OtherPartitionError,
    OtherTeacherError,
    OtherVersionError,
    OtherViewsError,
    OverwriteError,
    PixelDriftError,
    StaleJournalError,
    TruncatedFileError,
    UnverifiedError,
)
from edpipe.soft_labels.file.format import USER_BLOCK_BYTES, render_user_block, user_block
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.store import check_verified, open_store
from edpipe.soft_labels.file.writer import create_soft_labels
from edpipe.storage.hdf5 import fixed_text, hdf5_image
from edpipe.storage.journal import Journal
from edpipe.storage.records import write_record
from edpipe.views.spec import ViewRange

AGAIN = "; dump it again with `snakemake --force {path}`"
ALL_AGAIN = "; dump the files again with `snakemake`"
BOTH_AGAIN = "; dump both again with `snakemake --force …/0/primary/views_0-2.h5 {path}`"
HEADER = "{path}: its header is not the one that was written" + AGAIN
ROWS = "{path}: view 1, rows from 3: altered since written" + AGAIN


@dataclass(frozen=True)
class Attempt:
    """What is tried, and the path that the refusal must name first."""

    path: Path
    run: Callable[[], object]


@dataclass(frozen=True)
class Case:
    """How soft labels are spoilt, and what is said: `…` stands for anything, `{path}` and `{folder}` for paths."""

    name: str
    spoil: Callable[[Path], Attempt]
    error: type[EdpipeError]
    said: str
    is_corruption: bool = True
    """Or a swap: a file, set or expectation of something else. False: a question that no file answers."""


# --- ways to spoil -------------------------------------------------------------------------------------------------


def plainly(path: Path) -> Attempt:
    """Opened against everything that can be expected of it."""
    return Attempt(path, lambda: open_soft_labels(path, PROVENANCE, KEYS, CLASSES))


def bytes_changed(change: Callable[[bytes], bytes], precision: str = "uint8") -> Callable[[Path], Attempt]:
    def spoil(folder: Path) -> Attempt:
        path = write(path_of(folder), make_header(precision, with_maps=True))
        path.write_bytes(change(path.read_bytes()))
        return plainly(path)

    return spoil


def flipped(place: Callable[[bytes], int]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        spoilt = bytearray(data)
        spoilt[place(data)] ^= 4
        return bytes(spoilt)

    return change


def bit_flip_in(column: str, place: tuple[int, ...], precision: str = "uint8") -> Callable[[Path], Attempt]:
    """In the last byte of one number of a column."""

    def spoil(folder: Path) -> Attempt:
        path = write(path_of(folder), make_header(precision, with_maps=True, with_hint=True))
        with h5py.File(path) as file:
            stored = file[column]
            offset = stored.id.get_offset() + stored.dtype.itemsize * (np.ravel_multi_index(place, stored.shape) + 1)
        path.write_bytes(flipped(lambda _: int(offset) - 1)(path.read_bytes()))
        return plainly(path)

    return spoil


def instead(make: Callable[[Path], Any]) -> Callable[[Path], Attempt]:
    """Something else lies where the file should."""

    def spoil(folder: Path) -> Attempt:
        path = path_of(folder)
        path.parent.mkdir(parents=True)
        make(path)
        return plainly(path)

    return spoil


def foreign_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["logits"] = np.zeros(3)


def first_version(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "edpipe-soft-labels", "format_version": 1, "header_digest": "0" * 16})
        file.attrs.update({"teacher": "old", "subset": "primary", "precision": "float32"})
        file["logits"] = draw(make_header())


def half_written(path: Path) -> None:
    with suppress(RuntimeError), create_soft_labels(path, make_header(), "code") as writer:
        writer.write(writer.missing[0], draw(make_header())[0, :3])
        raise RuntimeError
    partial = next(path.parent.parent.glob(".resume/*/partial.h5"))
    shutil.copy(partial, path)


def header_text(**changes: Any) -> Callable[[bytes], bytes]:
    """Another user block before the same bytes."""

    def change(data: bytes) -> bytes:
        head = json.loads(data[:USER_BLOCK_BYTES]) | changes
        return json.dumps(head).encode().ljust(USER_BLOCK_BYTES) + data[USER_BLOCK_BYTES:]

    return change


def crafted(precision: str = "uint8", **changes: Any) -> Callable[[Path], Attempt]:
    """Rows of the usual header under one with changes; every digest is valid."""

    def spoil(folder: Path) -> Attempt:
        usual = make_header(precision)
        parts = parts_of(usual)
        return plainly(craft(path_of(folder), replace(usual, **changes), parts, seal_of(usual, parts)))

    return spoil


def laid_out(
    change: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], Any], precision: str = "uint8"
) -> Callable[[Path], Attempt]:
    """Attributes, small and large columns changed before a user block vouches for them."""

    def spoil(folder: Path) -> Attempt:
        header = make_header(precision)
        parts = parts_of(header)
        seal = seal_of(header, parts)
        columns = (header.sample_ids, header.sample_keys, header.labels, header.class_ids)
        small = dict(zip(format_.SMALL_COLUMNS, (*columns, seal.block_digest, seal.agreement), strict=True))
        attributes = format_._attributes(header, seal)
        large = {name: (values.shape, values.dtype) for name, values in parts.items()}
        change(attributes, small, large)
        image = hdf5_image(USER_BLOCK_BYTES, attributes, small, large)
        parts["extra"] = np.zeros(100, np.uint8)
        return plainly(write_image(path_of(folder), image.with_bytes(0, user_block(image)), parts))

    return spoil


def uncovered_end(data: bytes) -> bytes:
    """A user block that vouches for all but the end of the file, and is what it must be."""
    head = json.loads(data[:USER_BLOCK_BYTES])
    extents = tuple((start, stop) for start, stop in head["extents"][:-1])
    sha256 = hashlib.sha256(b"".join(data[a:b] for a, b in extents)).hexdigest()
    return render_user_block(len(data), extents, sha256) + data[USER_BLOCK_BYTES:]


def permuted_rows(with_digests: bool) -> Callable[[Path], Attempt]:
    """Rows of one view moved on by one sample."""

    def spoil(folder: Path) -> Attempt:
        header = make_header("float32")
        parts = parts_of(header)
        seal = seal_of(header, parts)
        parts["logits"][1] = np.roll(parts["logits"][1], 1, axis=0)
        digests = seal_of(header, parts).block_digest if with_digests else seal.block_digest
        return plainly(craft(path_of(folder), header, parts, replace(seal, block_digest=digests)))

    return spoil


def expecting(**changes: str) -> Callable[[Path], Attempt]:
    """The file is sound, and of something else than this."""

    def spoil(folder: Path) -> Attempt:
        path = write(path_of(folder), make_header())
        return Attempt(path, lambda: open_soft_labels(path, replace(PROVENANCE, **changes), KEYS, CLASSES))

    return spoil


def of_classes(class_ids: list[int]) -> Callable[[Path], Attempt]:
    def spoil(folder: Path) -> Attempt:
        path = write(path_of(folder), make_header())
        forward_pass = np.array(class_ids, dtype=np.int32)
        return Attempt(path, lambda: open_soft_labels(path, PROVENANCE, KEYS, forward_pass))

    return spoil


def of_keys(keys: np.ndarray) -> Callable[[Path], Attempt]:
    def spoil(folder: Path) -> Attempt:
        path = write(path_of(folder), make_header())
        return Attempt(path, lambda: open_soft_labels(path, PROVENANCE, keys, CLASSES))

    return spoil


def other_keys() -> np.ndarray:
    keys = KEYS.copy()
    keys[9] += np.uint64(1)
    return keys


def set_of(*files: tuple[str, int, int], blame: int, **changes: Any) -> Callable[[Path], Attempt]:
    """A store of files (precision, first view, stop), of which the blamed one is named; changes are the last one's."""

    def spoil(folder: Path) -> Attempt:
        headers = [make_header(precision, ViewRange(first, stop)) for precision, first, stop in files]
        headers[-1] = replace(headers[-1], **changes)
        paths = [write(path_of(folder / str(n), header.views), header) for n, header in enumerate(headers)]
        return Attempt(paths[blame], lambda: open_store(paths[::-1], lambda views: PROVENANCE, None, None))

    return spoil


def index_of(contents: object) -> Callable[[Path], Attempt]:
    """The store is sound; its index is not: None: there is none."""

    def spoil(folder: Path) -> Attempt:
        store = open_store([write(path_of(folder), make_header())])
        index = folder / "primary.json"
        if isinstance(contents, str):
            index.write_text(contents)
        elif contents is not None:
            write_record(index, contents)
        return Attempt(index, lambda: check_verified(store, index))

    return spoil


def journal_of(make: Callable[[Path], Any]) -> Callable[[Path], Attempt]:
    """A dump was interrupted; its journal became another."""

    def spoil(folder: Path) -> Attempt:
        path, header = path_of(folder), make_header()
        with pytest.raises(RuntimeError), create_soft_labels(path, header, "code"):
            raise RuntimeError
        journal = next(folder.glob(".resume/*/journal"))
        journal.unlink()
        make(journal)
        return Attempt(journal, lambda: write(path, header))

    return spoil


def of_another_dump(path: Path) -> None:
    Journal(path, "another key").close()


def being_written(folder: Path) -> Attempt:
    path, header = path_of(folder), make_header()

    def run() -> None:
        with create_soft_labels(path, header, "code"):
            write(path, header)

    with pytest.raises(RuntimeError), create_soft_labels(path, header, "code"):
        raise RuntimeError
    return Attempt(next(folder.glob(".resume/*")), run)


def folder_in_the_way(folder: Path) -> Attempt:
    path = path_of(folder)
    path.mkdir(parents=True)
    return Attempt(path, lambda: write(path, make_header()))


def asked_for(question: Callable[[Any], object], is_store: bool = False) -> Callable[[Path], Attempt]:
    def spoil(folder: Path) -> Attempt:
        path = write(path_of(folder), make_header())
        soft_labels = open_store([path]) if is_store else open_soft_labels(path)
        return Attempt(path.parent if is_store else path, lambda: question(soft_labels))

    return spoil


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


OTHER_SEED = PROVENANCE.view_spec.replace('"seed":7', '"seed":8')
RESIZED = PROVENANCE.view_spec.replace("pad_crop", "resized_crop")

# --- the table -----------------------------------------------------------------------------------------------------

CASES = [
    Case(
        "missing file", instead(lambda p: None), MissingFileError, "{path}: no such file; get it with `dvc pull`, or "
        "dump it again with `snakemake --force {path}`",
    ),
    Case(
        "a folder in its place", instead(Path.mkdir), ForeignFileError,
        "{path}: is a folder; remove it, then dump it again with `snakemake --force {path}`",
    ),
    Case("empty file", instead(Path.touch), TruncatedFileError, "{path}: is empty" + AGAIN),
    Case(
        "text file", instead(lambda p: p.write_text("no HDF5 at all\n" * 999)), ForeignFileError,
        "{path}: not one of soft labels of this edpipe" + AGAIN,
    ),
    Case(
        "foreign HDF5", instead(foreign_hdf5), ForeignFileError,
        "{path}: an HDF5 file, but not one of soft labels of this edpipe" + AGAIN,
    ),
    Case(
        "JSON of another format", bytes_changed(header_text(format="another\nformat")), ForeignFileError,
        r"{path}: is of format 'another\nformat', not 'edpipe-soft-labels'" + AGAIN,
    ),
    Case(
        "other format version", bytes_changed(header_text(format_version=3)), OtherVersionError,
        "{path}: has format version 3, this edpipe reads 2" + AGAIN,
    ),
    Case(
        "truncated", bytes_changed(lambda data: data[:-1]), TruncatedFileError,
        "{path}: has 14079 bytes, 14080 were written" + AGAIN,
    ),
    Case("bit flip in an attribute", bytes_changed(flipped(lambda data: data.index(b"aaaaaaaa"))), AlteredHeaderError,
         HEADER),
    Case(
        "bit flip in the padding of the user block", bytes_changed(flipped(lambda _: USER_BLOCK_BYTES - 7)),
        AlteredHeaderError, "{path}: its user block is not the one that was written" + AGAIN,
    ),
    Case("bit flip in rows", bit_flip_in("logits", (1, 3, 0)), AlteredRowsError, ROWS),
    Case(
        "rows permuted, digests made anew", permuted_rows(with_digests=True), LabelAgreementError,
        "{path}: view 1, rows from 0: the teacher names the label of 0 rows, of 3 when they were dumped: labels and "
        "rows do not belong together" + AGAIN,
    ),
    Case(
        "other teacher", expecting(teacher="new"), OtherTeacherError,
        "{path}: was made with teacher 'old', asked for is 'new'" + AGAIN,
    ),
    Case(
        "other weights of the same teacher", expecting(teacher_digest="e" * 16), OtherTeacherError,
        "{path}: was made with teacher digest 'aaaaaaaaaaaaaaaa', asked for is 'eeeeeeeeeeeeeeee'" + AGAIN,
    ),
    Case(
        "other dataset of the same shape", expecting(dataset_digest="e" * 16), OtherDatasetError,
        "{path}: was made with dataset digest 'bbbbbbbbbbbbbbbb', asked for is 'eeeeeeeeeeeeeeee'" + AGAIN,
    ),
    Case(
        "other partition", expecting(partition_digest=""), OtherPartitionError,
        "{path}: was made with partition digest 'cccccccccccccccc', asked for is ''" + AGAIN,
    ),
    Case(
        "other subset", expecting(subset="middle"), OtherPartitionError,
        "{path}: was made with subset 'primary', asked for is 'middle'" + AGAIN,
    ),
    Case(
        "other view seed", expecting(view_spec=OTHER_SEED), OtherViewsError,
        f"{{path}}: was made with view spec '{PROVENANCE.view_spec}', asked for is '{OTHER_SEED}'" + AGAIN,
    ),
    Case(
        "other augmentation", expecting(view_spec=RESIZED), OtherViewsError,
        f"{{path}}: was made with view spec '{PROVENANCE.view_spec}', asked for is '{RESIZED}'" + AGAIN,
    ),
    Case(
        "rows of a trajectory", expecting(stream="{}"), OtherViewsError,
        "{path}: was made with stream '', asked for is '{}'" + AGAIN,
    ),
    Case(
        "drifted pixels", expecting(pixel_canary="e" * 16), PixelDriftError,
        "{path}: was made with pixel canary 'dddddddddddddddd', asked for is 'eeeeeeeeeeeeeeee'" + AGAIN,
    ),
    Case(
        "other content keys", of_keys(other_keys()), OtherImagesError,
        "{path}: its images are not those of the dataset (content keys differ)" + AGAIN,
    ),
    Case(
        "other class order", of_classes([4, 2, 7, 8, 11]), OtherClassesError,
        "{path}: its columns are classes [2, 4, 7, 8, 11], asked for are [4, 2, 7, 8, 11] (5 and 5 in all)" + AGAIN,
    ),
    Case(
        "a column is missing", laid_out(lambda attributes, small, large: large.pop("scale")), AlteredHeaderError,
        "{path}: not a whole soft-label file (…scale…)" + AGAIN,
    ),
    Case(
        "a column of another type",
        laid_out(lambda attributes, small, large: large.update(logits=((3, 7, 5), np.dtype(">f4"))), "float32"),
        AlteredHeaderError,
        "{path}: 'logits' is not the contiguous array (3, 7, 5) of float32 that its header speaks of" + AGAIN,
    ),
    Case(
        "bytes that are neither header nor rows",
        laid_out(lambda attributes, small, large: large.update(extra=((100,), np.dtype(np.uint8)))),
        AlteredHeaderError, "{path}: bytes … to … are neither header nor rows" + AGAIN,
    ),
    Case(
        "blocks of another size",
        laid_out(lambda attributes, small, large: small.update(block_digest=small["block_digest"][:, :2],
                                                               agreement=small["agreement"][:, :2])),
        AlteredHeaderError, "{path}: 'block_digest' has shape (3, 2) of uint64, not (3, 3) of uint64" + AGAIN,
    ),
    Case(
        "samples not ascending", crafted(sample_ids=IDS[::-1].copy()), AlteredHeaderError,
        "{path}: samples or classes are not ascending, or a label is no class of it" + AGAIN,
    ),
    Case("half a shard set", set_of(("uint8", 3, 5), blame=0), IncompleteStoreError,
         "{path}: view 0 is missing" + ALL_AGAIN),
    Case(
        "a view in two files", set_of(("uint8", 0, 3), ("uint8", 2, 4), blame=1), IncompleteStoreError,
        "{path}: view 2 is in two files" + ALL_AGAIN,
    ),
    Case(
        "files of two precisions", set_of(("uint8", 0, 3), ("uint4", 3, 4), blame=1), IncompleteStoreError,
        "{path}: has another precision, provenance, samples or classes than …/0/primary/views_0-2.h5" + BOTH_AGAIN,
    ),
    Case(
        "index of other files", index_of({"inputs": {"soft_labels": ["f" * 16]}}), UnverifiedError,
        "{path}: speaks of soft labels ['ffffffffffffffff'], at hand are ['…']; "
        "verify them with `snakemake --force {path}`",
    ),
    Case(
        "missing index", index_of(None), CorruptFileError,
        "{path}: not a readable record ([Errno 2] No such file or directory: '{path}'); "
        "make it again with `snakemake --force {path}`",
    ),
    Case(
        "index without inputs", index_of({}), CorruptFileError,
        "{path}: the record lacks 'inputs'; make it again with `snakemake --force {path}`",
    ),
    Case(
        "stale journal", journal_of(of_another_dump), StaleJournalError,
        "{path}: belongs to another dump, or is no journal; remove the folder {folder} and start again",
    ),
    Case(
        "two dumps at a time", being_written, BusyError,
        "{path}: another process is writing these soft labels; wait for it", False,
    ),
    Case(
        "a folder where the file should be written", folder_in_the_way, OverwriteError,
        "{path}: cannot be written: …; finished blocks stay in …", False,
    ),
    Case(
        "sample that is not there", asked_for(lambda labels: labels.logits(ids(4), ids(0))), MissingRowsError,
        "{path}: holds no soft labels of sample 4" + AGAIN, False,
    ),
    Case(
        "view that is not there", asked_for(lambda labels: labels.logits(ids(3), ids(3))), MissingRowsError,
        "{path}: holds no soft labels of view 3, it has 0-2" + AGAIN, False,
    ),
    Case(
        "view that no file has", asked_for(lambda store: store.positions(ids(3), ids(3)), True), MissingRowsError,
        "{path}: holds no soft labels of view 3, it has 3 views; raise views.number", False,
    ),
    Case(
        "maps that are not there", asked_for(lambda labels: labels.attention(1, ids(3), ids(0))), MissingRowsError,
        "{path}: holds no attention/1; dump it with storage.attention: true", False,
    ),
    Case(
        "hints that are not there", asked_for(lambda labels: labels.hint(ids(3), ids(0))), MissingRowsError,
        "{path}: holds no hint; dump it with storage.hint.feature_stage", False,
    ),
]  # fmt: skip

VARIANTS = [
    Case("bit flip in a scale", bit_flip_in("scale", (1, 3)), AlteredRowsError, ROWS),
    Case("bit flip in a zero", bit_flip_in("zero", (1, 5)), AlteredRowsError, ROWS),
    Case("bit flip in an attention map", bit_flip_in("attention/2", (1, 3, 1, 2)), AlteredRowsError, ROWS),
    Case("bit flip in a hint", bit_flip_in("hint", (1, 3, 2, 3, 1)), AlteredRowsError, ROWS),
    Case("bit flip in an index", bit_flip_in("index", (1, 3, 1), "top_k"), AlteredRowsError, ROWS),
    Case("bit flip in a remainder", bit_flip_in("remainder", (1, 3), "top_k"), AlteredRowsError, ROWS),
    Case("bit flip in a draw", bit_flip_in("index", (1, 4, 5), "sampled"), AlteredRowsError, ROWS),
    *(Case(f"bit flip in {name}", bit_flip_in(name, (2,)), AlteredHeaderError, HEADER)
      for name in ("sample_id", "sample_key", "label", "class_id")),
    *(Case(f"bit flip in {name}", bit_flip_in(name, (2, 1)), AlteredHeaderError, HEADER)
      for name in ("block_digest", "agreement")),
    Case("bit flip in the digest of the user block", bytes_changed(
        lambda data: flipped(lambda _: data.index(b'"sha256": "') + 20)(data)), AlteredHeaderError, HEADER),
    Case("user block without extents", bytes_changed(header_text(extents=None)), AlteredHeaderError, HEADER),
    Case("user block with an extent past the end", bytes_changed(header_text(extents=[[4096, 2**60]])),
         AlteredHeaderError, HEADER),
    Case("user block with an extent of no number", bytes_changed(header_text(extents=[[4096, float("inf")]])),
         AlteredHeaderError, HEADER),
    Case("user block with a digest of no text", bytes_changed(header_text(sha256=None)), AlteredHeaderError, HEADER),
    Case("user block written in other words", bytes_changed(
        lambda data: data[:USER_BLOCK_BYTES].replace(b'", "', b'","').ljust(USER_BLOCK_BYTES)
        + data[USER_BLOCK_BYTES:]), AlteredHeaderError,
         "{path}: its user block is not the one that was written" + AGAIN),
    Case("user block that is a list", bytes_changed(lambda data: b"[1, 2]".ljust(4096) + data[4096:]), ForeignFileError,
         "{path}: not one of soft labels of this edpipe" + AGAIN),
    Case("user block of nested lists", bytes_changed(lambda data: b"[" * 4096 + data[4096:]), ForeignFileError,
         "{path}: not one of soft labels of this edpipe" + AGAIN),
    Case("version with a line break", bytes_changed(header_text(format_version="1\n")), OtherVersionError,
         r"{path}: has format version '1\n', this edpipe reads 2" + AGAIN),
    Case("longer than written", bytes_changed(lambda data: data + b"\0"), TruncatedFileError,
         "{path}: has 14081 bytes, 14080 were written" + AGAIN),
    Case("cut in its header", bytes_changed(lambda data: data[:5000]), TruncatedFileError,
         "{path}: has 5000 bytes, 14080 were written" + AGAIN),
    Case("cut in its user block", bytes_changed(lambda data: data[:40]), AlteredHeaderError,
         "{path}: its user block is not the one that was written" + AGAIN),
    Case("bit flip in the padding of the user block that leaves it JSON", bytes_changed(
        lambda data: data[:4000] + b"\n" + data[4001:]), AlteredHeaderError,
         "{path}: its user block is not the one that was written" + AGAIN),
    Case("half-written", instead(half_written), ForeignFileError,
         "{path}: not one of soft labels of this edpipe" + AGAIN),
    Case("of the first format version", instead(first_version), ForeignFileError,
         "{path}: an HDF5 file, but not one of soft labels of this edpipe" + AGAIN),
    Case("rows permuted", permuted_rows(with_digests=False), AlteredRowsError,
         "{path}: view 1, rows from 0: altered since written" + AGAIN),
    Case("labels permuted, digests made anew", crafted(labels=np.roll(LABELS, 1)), LabelAgreementError,
         "{path}: view 0, rows from 0: the teacher names the label of … rows, of … when they were dumped: labels and "
         "rows do not belong together" + AGAIN),
    Case("classes not ascending", crafted(class_ids=CLASSES[::-1].copy()), AlteredHeaderError,
         "{path}: samples or classes are not ascending, or a label is no class of it" + AGAIN),
    Case("a label is no class", crafted(labels=LABELS + np.int32(1)), AlteredHeaderError,
         "{path}: samples or classes are not ascending, or a label is no class of it" + AGAIN),
    Case("other number of classes", of_classes([2, 4, 7, 8, 11, 12]), OtherClassesError,
         "{path}: its columns are classes [2, 4, 7, 8, 11], asked for are [2, 4, 7, 8, 11, 12] (5 and 6 in all)"
         + AGAIN),
    Case("smaller dataset", of_keys(KEYS[:10]), OtherImagesError,
         "{path}: its images are not those of the dataset (content keys differ)" + AGAIN),
    Case("an attribute is missing", laid_out(lambda attributes, small, large: attributes.pop("teacher")),
         AlteredHeaderError, "{path}: not a whole soft-label file (…teacher…)" + AGAIN),
    Case("an unknown precision",
         laid_out(lambda attributes, small, large: attributes.update(storage=fixed_text('{"precision": "uint2"}'))),
         AlteredHeaderError, "{path}: not a whole soft-label file (…)" + AGAIN),
    Case("storage that is no JSON",
         laid_out(lambda attributes, small, large: attributes.update(storage=fixed_text("{"))),
         AlteredHeaderError, "{path}: not a whole soft-label file (…)" + AGAIN),
    Case("an end that nothing vouches for", bytes_changed(uncovered_end), AlteredHeaderError,
         "{path}: bytes … to 14080 are neither header nor rows" + AGAIN),
    Case("a view between files is missing", set_of(("uint8", 0, 2), ("uint8", 3, 4), blame=1), IncompleteStoreError,
         "{path}: view 2 is missing" + ALL_AGAIN),
    Case("files of other samples", set_of(("uint8", 0, 3), ("uint8", 3, 4), blame=1, sample_ids=IDS + 1),
         IncompleteStoreError,
         "{path}: has another precision, provenance, samples or classes than …/0/primary/views_0-2.h5" + BOTH_AGAIN),
    Case("files of other classes", set_of(("uint8", 0, 3), ("uint8", 3, 4), blame=1, class_ids=CLASSES + np.int32(1),
                                          labels=LABELS + np.int32(1)), IncompleteStoreError,
         "{path}: has another precision, provenance, samples or classes than …/0/primary/views_0-2.h5" + BOTH_AGAIN),
    Case("one file of another teacher", set_of(("uint8", 0, 3), ("uint8", 3, 4), blame=1,
                                               provenance=replace(PROVENANCE, teacher_digest="e" * 16)),
         OtherTeacherError,
         "{path}: was made with teacher digest 'eeeeeeeeeeeeeeee', asked for is 'aaaaaaaaaaaaaaaa'" + AGAIN),
    Case("garbled journal", journal_of(lambda p: p.write_bytes(b"\xff\0no journal\n")), StaleJournalError,
         "{path}: belongs to another dump, or is no journal; remove the folder {folder} and start again"),
    Case("index whose inputs are a list", index_of({"inputs": []}), UnverifiedError,
         "{path}: speaks of soft labels None, at hand are ['…']; verify them with `snakemake --force {path}`"),
    Case("index that is no JSON", index_of("{"), CorruptFileError,
         "{path}: not a readable record (…); make it again with `snakemake --force {path}`"),
]  # fmt: skip

REMEDY = re.compile(r"(dump|get|remove|make|verify|raise|wait|finished blocks stay)\b[^;]*")


def refusal(case, folder):
    """What is said, and the attempt."""
    attempt = case.spoil(folder)
    with pytest.raises(case.error) as caught:
        attempt.run()
    assert type(caught.value) is case.error
    return str(caught.value), attempt


@pytest.fixture(autouse=True)
def _several_blocks():
    with small_blocks():
        yield


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *VARIANTS], ids=lambda case: case.name)
def test_it_is_refused_in_its_own_class_and_words(case, tmp_path):
    said, attempt = refusal(case, tmp_path)
    pattern = ".*".join(re.escape(part) for part in case.said.split("…"))
    for name, path in (("path", attempt.path), ("folder", attempt.path.parent)):
        pattern = pattern.replace(re.escape("{" + name + "}"), re.escape(str(path)))
    assert re.fullmatch(pattern, said), said


@pytest.mark.slow
def test_every_refusal_is_one_line_that_names_the_path_and_a_remedy_and_no_two_are_alike(tmp_path):
    assert sum(case.is_corruption for case in CASES) >= 24
    assert len({case.name for case in [*CASES, *VARIANTS]}) == len(CASES) + len(VARIANTS)
    plain = {}
    for number, case in enumerate(CASES):
        said, attempt = refusal(case, tmp_path / str(number))
        assert "\n" not in said
        assert said.startswith(f"{attempt.path}: ")
        assert REMEDY.fullmatch(said.rpartition("; ")[2]), said
        bare = re.sub(re.escape(str(tmp_path)) + r"[\w./-]*", "PATH", said)
        plain.setdefault(re.sub(r"\d+", "N", bare), []).append(case.name)
    assert [names for names in plain.values() if len(names) > 1] == []
    classes = {case.error for case in CASES if case.is_corruption}
    assert {c for c in classes if issubclass(c, CorruptFileError | MismatchError)} == classes
    assert len(classes) >= 15


@pytest.mark.parametrize("precision", STORAGE)
def test_what_is_not_spoilt_is_not_refused(tmp_path, precision):
    path = write(path_of(tmp_path), make_header(precision, with_maps=True))
    assert plainly(path).run().path == path
    crafted_path = crafted(precision)(tmp_path / "crafted").path
    assert plainly(crafted_path).run().path == crafted_path


def test_nothing_to_open_is_refused():
    with pytest.raises(IncompleteStoreError) as caught:
        open_store([])
    assert str(caught.value) == "soft labels: no file of them is given; dump them with `snakemake`"
