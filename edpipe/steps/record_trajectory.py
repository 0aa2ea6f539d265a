"""Trains one teacher on what students of a seed see, and stores what it says of each sample in each epoch.

The teacher's logits are those that its own loss was computed of: in training mode, before the update, on the very
batch. It gets no gradient from any student, so that learning first and being replayed equals learning beside them.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.errors import EdpipeError, ParamsError
from edpipe.params.partition import ALL_CLASSES
from edpipe.runtime.device import prepare_device
from edpipe.runtime.progress import announce
from edpipe.soft_labels.encoding.precisions import make_precision
from edpipe.soft_labels.file.format import Header, Provenance
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.writer import adopt_soft_labels, create_soft_labels
from edpipe.soft_labels.trajectory import TrajectoryRecorder, trajectory_header
from edpipe.storage.digests import digest_json
from edpipe.storage.records import code_digest, library_versions, make_record, read_record, record_path
from edpipe.training.checkpoint import Checkpoints
from edpipe.training.loop import Budget
from edpipe.training.resumable import ResumableTraining
from edpipe.training.sample_stream import stream_text
from edpipe.training.scratch_teacher import (
    RecordedTraining,
    ScratchTeacherTask,
    SharedBatches,
    TrajectoryKnobs,
    build_scratch,
    scratch_seed,
)
from edpipe.views.spec import ViewRange


def record_trajectory(teacher: str, seed: int, knobs: TrajectoryKnobs, dataset_path: Path, out_path: Path) -> None:
    """Writes the trajectory and its record; after a kill, goes on from the last checkpoint.

    Raises:
        TeacherError: a logit does not fit the precision, or the stored error is over budget.
        ParamsError: the precision does not fit the number of classes.
        TrainingError: the loss is no longer a finite number, or much too large.
        BusyError: another process records the same trajectory.
        Interrupted: SIGTERM or Ctrl-C came; the same call goes on where it was.
    """
    dataset = open_dataset(dataset_path)
    shared = SharedBatches(seed, knobs.views, dataset, prepare_device())
    header = _header(teacher, knobs, shared)
    code, describe = digest_json(_makers()), partial(_describe, seed, knobs, dataset)
    if _is_whole(out_path, header):
        announce(f"{out_path}: is there already, made from the same by the same; only its record is written anew")
        adopt_soft_labels(out_path, header, code, describe)
        Checkpoints(out_path, code).clear()
        return
    with create_soft_labels(out_path, header, code, describe) as writer:
        fitting = _learn(
            f"trajectory {teacher} seed {seed}", seed, knobs, shared, TrajectoryRecorder(writer, header), out_path
        )
    fitting.finish()


def _learn(
    title: str, seed: int, knobs: TrajectoryKnobs, shared: SharedBatches, recorder: TrajectoryRecorder, out_path: Path
) -> ResumableTraining:
    """Trains the teacher to its end; the recorder then has every epoch."""
    network = build_scratch(seed, knobs, shared.dataset)
    network.to(shared.batches.device).to(memory_format=torch.channels_last)
    num_samples = len(shared.sample_ids)
    budget = Budget(round(knobs.fitting.epochs) * num_samples, knobs.fitting.learning_rate)
    noise_seed = scratch_seed(knobs.fitting.seed, seed)
    training = RecordedTraining(recorder, num_samples, network, knobs.recipe, budget, noise_seed)
    fitting = ResumableTraining(title, training, out_path, _record(seed, knobs, shared.dataset), num_samples)
    fitting.run(ScratchTeacherTask(shared, knobs.recipe, recorder))
    return fitting


def _makers() -> list[object]:
    """What besides its inputs decides what a file holds."""
    return [code_digest("record_trajectory"), library_versions()]


def _is_whole(out_path: Path, header: Header) -> bool:
    """Whether the very file that is to be made lies there already, as after a kill at the last moment."""
    try:
        record = read_record(record_path(out_path), "code", "versions", "digest")
        labels = open_soft_labels(out_path)
    except EdpipeError:
        return False
    is_same = labels.header.facts() == header.facts() and record["digest"] == labels.digest
    return is_same and [record["code"], record["versions"]] == _makers()


def _teacher_digest(knobs: TrajectoryKnobs) -> str:
    """Of how the teacher learns: it has no weights yet when the file is begun."""
    return digest_json({"network": knobs.network, "fitting": knobs.fitting, "recipe": knobs.recipe})


def _header(teacher: str, knobs: TrajectoryKnobs, shared: SharedBatches) -> Header:
    dataset, ids = shared.dataset, shared.sample_ids
    try:
        make_precision(knobs.storage, dataset.num_classes)
    except ValueError as error:
        raise ParamsError(f"soft_labels.{dataset.name}.storage: {error}") from error
    provenance = Provenance(
        teacher=teacher,
        subset=ALL_CLASSES,
        teacher_digest=_teacher_digest(knobs),
        dataset_digest=dataset.digest,
        partition_digest="",
        view_spec=shared.batches.spec.canonical(),
        pixel_canary=shared.batches.canary(ids),
    )
    class_ids = np.arange(dataset.num_classes, dtype=np.int32)
    labels = dataset.labels[ids]
    header = Header(provenance, knobs.storage, ViewRange(0, 1), ids, dataset.sample_keys[ids], labels, class_ids)
    stream = stream_text(shared.seed, knobs.recipe.batch_size, knobs.views.choice)
    return trajectory_header(header, stream, round(knobs.fitting.epochs))


def _record(seed: int, knobs: TrajectoryKnobs, dataset: Dataset) -> dict[str, Any]:
    """What is known before training; all that decides its result is in it."""
    return make_record("record_trajectory", vars(knobs), {"dataset": dataset.digest}, seed=seed)


def _describe(seed: int, knobs: TrajectoryKnobs, dataset: Dataset, path: Path) -> dict[str, Any]:
    """The record of the file at `path`."""
    # Read back through the reader: what was written is what a student will be given.
    labels = open_soft_labels(path)
    top1 = (labels.seal.agreement.sum(axis=1) / len(labels.sample_ids)).tolist()
    announce(f"{path}: top1 on the views it learnt from: {top1[0]:.4f} in its first epoch, {top1[-1]:.4f} in its last")
    statistics = {name: value if np.isfinite(value) else None for name, value in labels.seal.statistics.items()}
    return _record(seed, knobs, dataset) | {
        "teacher_digest": labels.provenance.teacher_digest,
        "digest": labels.digest,
        "num_samples": len(labels.sample_ids),
        "num_epochs": labels.views.num_views,
        "images_seen": labels.num_forwards,
        "top1_by_epoch": top1,
        "size_bytes": path.stat().st_size,
        **statistics,
    }
