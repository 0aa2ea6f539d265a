"""Stores one teacher's logits on some views of its subset's training samples."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.errors import EdpipeError, ParamsError, TeacherError
from edpipe.params.soft_labels import StorageKnobs, ViewSpace, every_view
from edpipe.runtime.device import prepare_device
from edpipe.runtime.progress import Tick, announce, show_progress
from edpipe.soft_labels.encoding.precisions import CERTIFIED_TEMPERATURE, Parts, make_precision
from edpipe.soft_labels.file.format import Header
from edpipe.soft_labels.file.reader import SoftLabels, open_soft_labels, read_header
from edpipe.soft_labels.file.writer import Block, SoftLabelWriter, adopt_soft_labels, create_soft_labels
from edpipe.soft_labels.teacher_outputs import Teacher, TeacherFiles, TeacherForward, load_teacher, teacher_forward
from edpipe.storage.digests import digest_json
from edpipe.storage.records import code_digest, library_versions, make_record, read_record, record_path
from edpipe.views.batches import ViewBatches
from edpipe.views.spec import ViewRange, ViewSpec

_WAITING_BLOCKS = 1
"""Blocks that are being stored while the teacher is at the next: a kill costs these and that one."""


@dataclass(frozen=True)
class DumpKnobs:
    """What a dump is told by params.yaml."""

    space: ViewSpace
    storage: StorageKnobs
    min_top1: float


def dump_soft_labels(files: TeacherFiles, knobs: DumpKnobs, views: ViewRange, out_path: Path) -> None:
    """Writes the soft-label file of these views and its record; after a kill, goes on where it was.

    Raises:
        TeacherError: the teacher's top1 is under its gate, a logit is not finite, or the stored error is over budget.
        MismatchError: the teacher was made from another dataset or partition than the one at hand.
        ParamsError: the precision does not fit the number of classes.
        BusyError: another process dumps the same file.
    """
    dataset = open_dataset(files.dataset_path)
    teacher = load_teacher(files, dataset)
    _check_gate(teacher, knobs.min_top1)
    batches = _batches(dataset, teacher, knobs.space, views)
    with teacher_forward(teacher, batches, knobs.storage.attention, knobs.storage.hint) as forward_pass:
        header = _header(dataset, teacher, batches, knobs.storage, views, forward_pass)
        code, describe = digest_json(_makers()), partial(_describe, knobs, teacher)
        if _is_whole(out_path, header):
            announce(f"{out_path}: is there already, made from the same by the same; only its record is written anew")
            adopt_soft_labels(out_path, header, code, describe)
        else:
            with create_soft_labels(out_path, header, code, describe) as writer:
                _announce_kept_blocks(out_path, writer)
                fill(forward_pass, header, writer)
    labels = read_header(out_path)
    announce(f"{out_path}: {labels.num_forwards:,} rows, {_announce_fidelity(labels)}")


def _makers() -> list[object]:
    """What besides its inputs decides what a file holds: blocks that others have made are not mixed with new ones."""
    return [code_digest("dump_soft_labels"), library_versions()]


def _is_whole(out_path: Path, header: Header) -> bool:
    """Whether the very file that is to be made lies there already, as after a kill at the last moment."""
    try:
        record = read_record(record_path(out_path), "code", "versions", "digest")
        labels = open_soft_labels(out_path)
    except EdpipeError:
        return False
    is_same = labels.header.facts() == header.facts() and record["digest"] == labels.digest
    return is_same and [record["code"], record["versions"]] == _makers()


def _check_gate(teacher: Teacher, min_top1: float) -> None:
    if teacher.top1 < min_top1:
        raise TeacherError(
            f"{teacher.files.weights_path}: top1 {teacher.top1:.4f} on its {teacher.top1_split} images is under "
            f"teachers.{teacher.files.teacher}.min_top1 {min_top1:g}; train it longer, or lower min_top1"
        )


def _batches(dataset: Dataset, teacher: Teacher, space: ViewSpace, views: ViewRange) -> ViewBatches:
    # How many views there are in all is not known here and changes none of them.
    spec = ViewSpec.from_knobs(every_view(space), dataset.image_size)
    pool = dataset.sample_ids("train", teacher.class_ids)
    return ViewBatches(dataset, spec, prepare_device(), (pool,))


def _header(
    dataset: Dataset,
    teacher: Teacher,
    batches: ViewBatches,
    storage: StorageKnobs,
    views: ViewRange,
    forward_pass: TeacherForward,
) -> Header:
    ids = dataset.sample_ids("train", teacher.class_ids)
    try:
        make_precision(storage, len(teacher.class_ids))
    except ValueError as error:
        raise ParamsError(f"soft_labels.{dataset.name}.storage: {error}") from error
    features = forward_pass.outputs(ids[:1], np.array([views.first]))[1]
    return Header(
        provenance=teacher.provenance(batches, views),
        storage=storage,
        views=views,
        sample_ids=ids,
        sample_keys=dataset.sample_keys[ids],
        labels=dataset.labels[ids],
        class_ids=np.array(teacher.class_ids, dtype=np.int32),
        features={name: values.shape[1:] for name, values in features.items()},
    )


def _announce_kept_blocks(out_path: Path, writer: SoftLabelWriter) -> None:
    if writer.num_kept:
        announce(f"{out_path}: {writer.num_kept} blocks were finished before, {len(writer.missing)} are left")
    if writer.num_damaged:
        announce(f"{out_path}: {writer.num_damaged} blocks are damaged and are made again")


def fill(forward_pass: TeacherForward, header: Header, writer: SoftLabelWriter) -> None:
    """Every missing block goes through the teacher once; it is stored while the teacher is at the next."""
    blocks, done = writer.missing, 0
    title = f"soft labels {header.provenance.teacher}/{header.provenance.subset} views {header.views}"
    total = sum(block.stop - block.start for block in blocks)
    with ThreadPoolExecutor(1) as pool, show_progress(title, total) as show:
        waiting: deque[Future[None]] = deque()
        for block in blocks:
            ids = header.sample_ids[block.start : block.stop]
            logits, features = forward_pass.outputs(ids, np.full(len(ids), block.view))
            while len(waiting) >= _WAITING_BLOCKS:
                waiting.popleft().result()
            waiting.append(pool.submit(_store, writer, block, logits, features))
            done += len(ids)
            show(Tick(done, f"view {block.view}"))
        for future in waiting:
            future.result()


def _store(writer: SoftLabelWriter, block: Block, logits: np.ndarray, features: Parts) -> None:
    writer.write(block, logits, features)


def _describe(knobs: DumpKnobs, teacher: Teacher, path: Path) -> dict[str, Any]:
    """The record of the file at `path`."""
    # Read back through the reader: what was written is what a student will be given.
    labels = open_soft_labels(path)
    inputs = {
        "dataset": teacher.dataset_digest,
        "partition": teacher.partition_digest,
        "teacher": {"digest": teacher.digest, "top1": teacher.top1},
    }
    return make_record(
        "dump_soft_labels",
        {"space": knobs.space, "storage": knobs.storage, "min_top1": knobs.min_top1},
        inputs,
        views=str(labels.views),
        digest=labels.digest,
        num_samples=len(labels.sample_ids),
        teacher_forwards=labels.num_forwards,
        size_bytes=path.stat().st_size,
        **_fidelity(labels),
    )


def _fidelity(labels: SoftLabels) -> dict[str, float | None]:
    """Measured and certified errors; none of an estimate."""
    return {name: value if np.isfinite(value) else None for name, value in labels.seal.statistics.items()}


def _announce_fidelity(labels: SoftLabels) -> str:
    if labels.precision.temperature is not None:
        return f"an unbiased estimate at temperature {labels.precision.temperature:g}"
    return (
        f"KL error at temperature {CERTIFIED_TEMPERATURE:g}: mean {labels.seal.statistics['measured_mean_kl']:.2g}, "
        f"certified under {labels.seal.statistics['kl_bound']:.2g} nats"
    )
