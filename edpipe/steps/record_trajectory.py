"""Trains one teacher on what students of a seed see, and stores what it says of each sample in each epoch.

The teacher's logits are those that its own loss was computed of: in training mode, before the update, on the very
batch. It gets no gradient from any student, so that learning first and being replayed equals learning beside them.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.models.zoo.names import check_model_name
from edpipe.params.teacher import TrajectoryKnobs
from edpipe.runtime.device import prepare_device
from edpipe.runtime.progress import announce
from edpipe.soft_labels.file.existing import is_whole
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.writer import adopt_soft_labels, create_soft_labels
from edpipe.soft_labels.trajectory import TrajectoryRecorder
from edpipe.storage.digests import digest_json
from edpipe.storage.job import Job
from edpipe.storage.records import code_of, library_versions, make_record
from edpipe.training.checkpoint import Checkpoints
from edpipe.training.scratch_recording import recording_header, train_and_record
from edpipe.training.scratch_teacher import (
    SharedBatches,
)


def run(job: Job[TrajectoryKnobs]) -> None:
    """Runs a job of this step."""
    check_model_name(job.knobs.network.model)
    teacher, seed = str(job.arguments["teacher"]), int(job.arguments["seed"])
    record_trajectory(teacher, seed, job.knobs, job.input("dataset"), job.outputs[0])


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
    header = recording_header(teacher, knobs, shared)
    code, describe_file = digest_json(_makers()), partial(describe, seed, knobs, dataset)
    if is_whole(out_path, header, _makers()):
        announce(f"{out_path}: is there already, made from the same by the same; only its record is written anew")
        adopt_soft_labels(out_path, header, code, describe_file)
        Checkpoints(out_path, code).clear()
        return
    with create_soft_labels(out_path, header, code, describe_file) as writer:
        title, facts = f"trajectory {teacher} seed {seed}", _record(seed, knobs, dataset)
        recorder = TrajectoryRecorder(writer, header)
        training = train_and_record(title, seed, knobs, shared, recorder, facts, out_path)
    training.finish()


def _makers() -> list[object]:
    """What besides its inputs decides what a file holds."""
    return [code_of("record_trajectory"), library_versions()]


def _record(seed: int, knobs: TrajectoryKnobs, dataset: Dataset) -> dict[str, Any]:
    """What is known before training; all that decides its result is in it."""
    return make_record("record_trajectory", vars(knobs), {"dataset": dataset.digest}, seed=seed)


def describe(seed: int, knobs: TrajectoryKnobs, dataset: Dataset, path: Path) -> dict[str, Any]:
    """The record of the file at `path`."""
    # Read back through the reader: what was written is what a student will be given.
    labels = open_soft_labels(path)
    top1 = (labels.seal.agreement.sum(axis=1) / len(labels.sample_ids)).tolist()
    announce(f"{path}: top1 on the views it learnt from: {top1[0]:.4f} in its first epoch, {top1[-1]:.4f} in its last")
    statistics = {name: value if np.isfinite(value) else None for name, value in labels.seal.statistics.items()}
    return _record(seed, knobs, dataset) | {
        "teacher": labels.provenance.teacher,
        "teacher_digest": labels.provenance.teacher_digest,
        "digest": labels.digest,
        "num_samples": len(labels.sample_ids),
        "num_epochs": labels.views.num_views,
        "images_seen": labels.num_forwards,
        "top1_by_epoch": top1,
        "size_bytes": path.stat().st_size,
        **statistics,
    }
