"""Writes a soft-label file block by block, so that no kill costs a finished block.

Until it is whole the file lies in a hidden folder beside its own, `.resume/`, named after the target and a key of all
that it is made from, next to a journal of its finished blocks. Blocks are written in any order; the same call after a
kill is told which are left. Only the whole, sealed file gets its name.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Float64

from edpipe.errors import BusyError, TeacherError
from edpipe.soft_labels.encoding.precisions import CERTIFIED_TEMPERATURE, Column, Parts
from edpipe.soft_labels.encoding.quantisation import kl_bound
from edpipe.soft_labels.encoding.softmax import row_kl
from edpipe.soft_labels.file.format import BLOCK_ROWS, HINT, Header, Seal, block_digest, count_agreement, lay_out
from edpipe.soft_labels.file.reader import read_header
from edpipe.storage.atomic import sync_to_disk
from edpipe.storage.digests import digest_bytes
from edpipe.storage.hdf5 import Image
from edpipe.storage.journalled_blocks import JOURNAL, JournalledBlocks, open_journalled_blocks, write_all
from edpipe.storage.records import record_path, write_record
from edpipe.storage.unfinished import blocks_folder, disk_errors, lock, remove_folder

PARTIAL = "partial.h5"
WHAT = "these soft labels"
_ENTRY = {"view", "block", "digest", "agreement", "abs_error", "error_range", "kl_sum", "kl_max"}


@dataclass(frozen=True)
class Block:
    """Rows `start` … `stop`-1 of one view; `view` counts from 0 over all views, not only those of this file."""

    view: int
    index: int
    start: int
    stop: int


class SoftLabelWriter:
    """Stores blocks; use through `create_soft_labels`."""

    def __init__(self, target: Path, header: Header, image: Image, blocks: JournalledBlocks) -> None:
        self._target, self._header, self._image, self._blocks = target, header, image, blocks
        self._precision, self._columns, self._local = header.precision, header.columns(), header.local_labels
        self._done = {}
        self.num_damaged = 0
        """Blocks that the journal calls finished but whose bytes are others: to be made again."""
        for entry in blocks.entries:
            self._take_over(entry)
        self.num_kept = len(self._done)
        """Blocks that an earlier process has finished."""

    @property
    def missing(self) -> list[Block]:
        """What is still to be written, view by view."""
        views, blocks = self._header.views, range(self._header.num_blocks)
        return [self._block(v, b) for v in range(views.first, views.stop) for b in blocks if (v, b) not in self._done]

    def _block(self, view: int, index: int) -> Block:
        start = index * BLOCK_ROWS
        return Block(view, index, start, min(start + BLOCK_ROWS, len(self._header.sample_ids)))

    def write(self, block: Block, logits: Float32[np.ndarray, "row class"], features: Parts | None = None) -> None:
        """Stores one whole block: its logits, and each column that the header has beside them.

        Raises:
            TeacherError: a number is not finite, does not fit the precision, or the certified error is over the budget.
            OverwriteError: the disk fails.
        """
        parts = self._encode(block, logits)
        entry = {"view": block.view, "block": block.index, **self._measure(logits, parts)}
        entry["agreement"] = count_agreement(self._precision, parts, self._local[block.start : block.stop])
        for name in self._header.features:
            parts[name] = self._as_float16(block, name, (features or {})[name])
        entry["digest"] = int(block_digest(parts))
        pieces = ((self._place(name, block), _bytes_of(values)) for name, values in parts.items())
        self._blocks.finish(pieces, entry)
        self._done[block.view, block.index] = entry
        # Now, not after hours; the block is kept, so that a larger budget goes on from here.
        _check_budget(self._target, _certified(entry["error_range"]), self._header.storage.max_kl)

    def _encode(self, block: Block, logits: Float32[np.ndarray, "row class"]) -> dict[str, np.ndarray]:
        self._check_finite(block, logits)
        ids = self._header.sample_ids[block.start : block.stop]
        try:
            return dict(self._precision.encode(logits, ids, block.view))
        except ValueError as error:
            raise TeacherError(f"{self._name}: {error}; use precision: float32") from error

    @property
    def _name(self) -> str:
        return f"{self._header.provenance.teacher}/{self._header.provenance.subset}"

    def _check_finite(self, block: Block, logits: Float32[np.ndarray, "row class"]) -> None:
        is_finite = np.isfinite(logits).all(axis=1)
        if not is_finite.all():
            sample = self._header.sample_ids[block.start + int(np.flatnonzero(~is_finite)[0])]
            raise TeacherError(
                f"{self._name}: gives a logit that is not finite for sample {sample}, view {block.view}; "
                "train or fetch the teacher again"
            )

    def _as_float16(
        self, block: Block, name: str, values: Float32[np.ndarray, "row ..."]
    ) -> Float16[np.ndarray, "row ..."]:
        with np.errstate(over="ignore"):
            stored = values.astype(np.float16)
        is_sound = np.isfinite(stored.reshape(len(stored), -1)).all(axis=1)
        if not is_sound.all():
            row = int(np.flatnonzero(~is_sound)[0])
            helps = "remove storage.hint" if name == HINT else "set storage.attention: false"
            raise TeacherError(
                f"{self._name}: gives {name} up to {np.abs(values[row]).max():.3g} for sample "
                f"{self._header.sample_ids[block.start + row]}, view {block.view}; float16 holds finite numbers up to "
                f"{np.finfo(np.float16).max:,.0f}; train the teacher again, or {helps}"
            )
        return stored

    def _measure(self, logits: Float32[np.ndarray, "row class"], parts: Parts) -> dict[str, float]:
        """What storing costs: of samples drawn from the teacher no error can be certified."""
        if self._precision.temperature is not None:
            return dict.fromkeys(("abs_error", "error_range", "kl_sum", "kl_max"), np.inf)
        stored = self._precision.decode(parts)
        kl: Float64[np.ndarray, " row"] = row_kl(logits, stored, CERTIFIED_TEMPERATURE)
        error = stored.astype(np.float64) - logits
        return {
            "abs_error": float(np.abs(error).max()),
            "error_range": float((error.max(axis=1) - error.min(axis=1)).max()),
            "kl_sum": float(kl.sum()),
            "kl_max": float(kl.max()),
        }

    def _place(self, name: str, block: Block) -> int:
        row = (block.view - self._header.views.first) * len(self._header.sample_ids) + block.start
        return self._image.large[name][0] + row * self._columns[name].row_bytes

    def _take_over(self, entry: dict) -> None:
        """Counts a block of the journal as finished if its bytes are those that the journal vouches for."""
        views = self._header.views
        is_ours = set(entry) == _ENTRY and views.first <= entry["view"] < views.stop
        if not (is_ours and 0 <= entry["block"] < self._header.num_blocks):
            return
        block = self._block(entry["view"], entry["block"])
        if int(block_digest(self._read(block))) != entry["digest"]:
            self.num_damaged += 1
            return
        self._done[block.view, block.index] = entry

    def _read(self, block: Block) -> Parts:
        parts = {}
        for name, column in self._columns.items():
            rows = block.stop - block.start
            data = self._blocks.read(self._place(name, block), rows * column.row_bytes)
            parts[name] = _as_rows(data, rows, column)
        return parts

    def sync(self) -> None:
        """Waits until all blocks are on disk."""
        self._blocks.sync()

    def seal(self, target: Path) -> Seal:
        """What goes into the file once every block is there.

        Raises:
            TeacherError: the certified error is over the budget.
        """
        assert not self.missing, "every block is written before the file is sealed"
        entries = [self._done[key] for key in sorted(self._done)]
        shape = (self._header.views.num_views, self._header.num_blocks)
        error_range = max(entry["error_range"] for entry in entries)
        bound = _certified(error_range)
        _check_budget(target, bound, self._header.storage.max_kl)
        num_rows = self._header.views.num_views * len(self._header.sample_ids)
        return Seal(
            block_digest=np.array([entry["digest"] for entry in entries], dtype=np.uint64).reshape(shape),
            agreement=np.array([entry["agreement"] for entry in entries], dtype=np.int32).reshape(shape),
            statistics={
                "max_abs_error": max(entry["abs_error"] for entry in entries),
                "max_error_range": error_range,
                "kl_bound": bound,
                "measured_mean_kl": sum(entry["kl_sum"] for entry in entries) / num_rows,
                "measured_max_kl": max(entry["kl_max"] for entry in entries),
            },
        )


def _certified(error_range: float) -> float:
    """Largest KL at temperature 4 that errors of this range allow, nats."""
    return float(kl_bound(np.array([error_range]), CERTIFIED_TEMPERATURE)[0])


def _check_budget(target: Path, bound: float, max_kl: float | None) -> None:
    if max_kl is not None and bound > max_kl:
        raise TeacherError(
            f"{target}: storing these logits may cost {bound:.3g} nats of KL at temperature "
            f"{CERTIFIED_TEMPERATURE:g}, storage.max_kl allows {max_kl:g}; choose a finer precision or a larger max_kl"
        )


def _bytes_of(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values).data.cast("B")


def _as_rows(data: bytes, rows: int, column: Column) -> np.ndarray:
    data = data.ljust(rows * column.row_bytes, b"\0")
    return np.frombuffer(data, dtype=column.dtype).reshape(rows, *column.shape)


@contextmanager
def create_soft_labels(
    target: Path, header: Header, code: str, describe: Callable[[Path], dict[str, Any]] | None = None
) -> Iterator[SoftLabelWriter]:
    """A writer whose file becomes `target` when the block ends well; else what is finished waits for the next call.

    Args:
        target: of the file.
        header: what it is about.
        code: digest of the code that makes it: blocks that other code has made are not taken over.
        describe: gives the contents of its record; it is shown the whole file before that gets its name, so that a kill
            while it is read costs no block. None: no record.

    Raises:
        TeacherError: the certified error at temperature 4 is over `storage.max_kl`.
        BusyError: another process is writing the same file.
        StaleJournalError: what is left of an interrupted dump belongs to another one.
        OverwriteError: the file cannot be written.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    prepare = partial(_take_back_if_named, target)
    with open_journalled_blocks(target, _key(header, code), PARTIAL, WHAT, prepare) as blocks:
        with disk_errors(target):
            image = lay_out(header, None)
            _reserve_space(blocks.descriptor, image.size)
            writer = SoftLabelWriter(target, header, image, blocks)
        yield writer
        with disk_errors(target):
            _seal(target, header, writer, blocks)
            _publish(target, blocks.folder, describe)


def _key(header: Header, code: str) -> str:
    return digest_bytes(f"{header.facts()} {code}".encode())


def adopt_soft_labels(target: Path, header: Header, code: str, describe: Callable[[Path], dict[str, Any]]) -> None:
    """Writes the record of a whole file that lies under its name already, and removes what was kept to resume it.

    Raises:
        TeacherError: the certified error at temperature 4 is over `storage.max_kl`.
        OverwriteError: the record cannot be written.
    """
    _check_budget(target, read_header(target).seal.statistics["kl_bound"], header.storage.max_kl)
    write_record(record_path(target), describe(target))
    folder = blocks_folder(target, _key(header, code))
    if folder.is_dir():
        with suppress(BusyError), disk_errors(target), lock(folder / "lock", WHAT):
            remove_folder(folder)


def _seal(target: Path, header: Header, writer: SoftLabelWriter, blocks: JournalledBlocks) -> None:
    """Adds all that is not rows."""
    image = lay_out(header, writer.seal(target))
    for offset, data in image.writes:
        write_all(blocks.descriptor, memoryview(data), offset)
    os.ftruncate(blocks.descriptor, image.size)
    blocks.sync()


def _publish(target: Path, folder: Path, describe: Callable[[Path], dict[str, Any]] | None) -> None:
    """Gives the whole file its name, writes its record and removes what was kept for another call."""
    record = describe(folder / PARTIAL) if describe else None
    record_path(target).unlink(missing_ok=True)  # that of another file must not stand beside this one
    os.replace(folder / PARTIAL, target)
    sync_to_disk(target.parent)
    if record is not None:
        write_record(record_path(target), record)
    remove_folder(folder)


def _take_back_if_named(target: Path, folder: Path) -> None:
    """After a kill between naming the file and removing the journal, the finished blocks lie under the file's name."""
    partial_path, journal_path = folder / PARTIAL, folder / JOURNAL
    if partial_path.exists() or not journal_path.exists():
        return
    # A link, hard or symbolic, may lead to the object of a cache, which is not ours to alter.
    if target.is_file() and not target.is_symlink() and target.lstat().st_nlink == 1:
        os.replace(target, partial_path)
    else:
        journal_path.unlink()


def _reserve_space(descriptor: int, size: int) -> None:
    """A full disk is known now, not after an hour."""
    reserve = getattr(os, "posix_fallocate", None)  # macOS has none
    if reserve:
        reserve(descriptor, 0, size)
