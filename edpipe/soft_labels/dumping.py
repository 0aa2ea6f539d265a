"""What a dump does: the header of its file, and every missing block through the teacher."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from edpipe.datasets.dataset_file import Dataset
from edpipe.errors import ParamsError
from edpipe.params.soft_labels import StorageKnobs, ViewSpace, every_view
from edpipe.runtime.device import prepare_device
from edpipe.runtime.progress import Tick, show_progress
from edpipe.soft_labels.encoding.precisions import Parts, make_precision
from edpipe.soft_labels.file.format import Header
from edpipe.soft_labels.file.writer import Block, SoftLabelWriter
from edpipe.soft_labels.teacher_outputs import Teacher, TeacherForward
from edpipe.views.batches import ViewBatches
from edpipe.views.spec import ViewRange, ViewSpec

_WAITING_BLOCKS = 1
"""Blocks that are being stored while the teacher is at the next: a kill costs these and that one."""


def dump_batches(dataset: Dataset, teacher: Teacher, space: ViewSpace, views: ViewRange) -> ViewBatches:
    """The views of the teacher's training samples, on the device."""
    # How many views there are in all is not known here and changes none of them.
    spec = ViewSpec.from_knobs(every_view(space), dataset.image_size)
    pool = dataset.sample_ids("train", teacher.class_ids)
    return ViewBatches(dataset, spec, prepare_device(), (pool,))


def dump_header(
    dataset: Dataset,
    teacher: Teacher,
    batches: ViewBatches,
    storage: StorageKnobs,
    views: ViewRange,
    forward_pass: TeacherForward,
) -> Header:
    """What the file holds, before its first row.

    Raises:
        ParamsError: the precision does not fit the number of classes.
    """
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


def fill(forward_pass: TeacherForward, header: Header, writer: SoftLabelWriter) -> None:
    """Every missing block goes through the teacher once; it is stored while the teacher is at the next.

    A dump that was killed resumes here: `writer.missing` are the blocks that its journal does not list.
    """
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
