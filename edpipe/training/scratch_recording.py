"""Trains the scratch teacher to its end while its logits are recorded, and the header of the file that holds them."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from edpipe.errors import ParamsError
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.teacher import TrajectoryKnobs
from edpipe.soft_labels.encoding.precisions import make_precision
from edpipe.soft_labels.file.format import Header, Provenance
from edpipe.soft_labels.trajectory import TrajectoryRecorder, trajectory_header
from edpipe.storage.digests import digest_json
from edpipe.training.curves.validation import validation_of
from edpipe.training.loop import Budget
from edpipe.training.resumable import ResumableTraining
from edpipe.training.sample_stream import stream_text
from edpipe.training.scratch_teacher import (
    RecordedTraining,
    ScratchTeacherTask,
    SharedBatches,
    build_scratch,
    scratch_seed,
)
from edpipe.views.spec import ViewRange


def train_and_record(
    title: str,
    seed: int,
    knobs: TrajectoryKnobs,
    shared: SharedBatches,
    recorder: TrajectoryRecorder,
    facts: object,
    out_path: Path,
) -> ResumableTraining:
    """Trains the teacher to its end; the recorder then has every epoch.

    Args:
        title: what people are shown.
        seed: of the students.
        knobs: of the recording.
        shared: the samples and views that students of this seed see.
        recorder: of the logits.
        facts: all that decides the result; a checkpoint made under others does not fit.
        out_path: of the trajectory.
    """
    num_samples = len(shared.sample_ids)
    training = RecordedTraining(recorder, num_samples, *scratch_start(seed, knobs, shared))
    dataset = shared.dataset
    every_class = range(dataset.num_classes)
    validate = validation_of(shared.batches, every_class, dataset.mean, dataset.std, knobs.recipe)
    fitting = ResumableTraining(title, training, out_path, facts, num_samples, validate)
    fitting.run(ScratchTeacherTask(shared, knobs.recipe, recorder))
    return fitting


def scratch_start(
    seed: int, knobs: TrajectoryKnobs, shared: SharedBatches
) -> tuple[nn.Module, RecipeKnobs, Budget, int]:
    """What the teacher's training starts from, as `Training` takes it: network, recipe, budget, seed of its noise."""
    network = build_scratch(seed, knobs, shared.dataset)
    network.to(shared.batches.device).to(memory_format=torch.channels_last)
    budget = Budget(round(knobs.fitting.epochs) * len(shared.sample_ids), knobs.fitting.learning_rate)
    return network, knobs.recipe, budget, scratch_seed(knobs.fitting.seed, seed)


def _teacher_digest(knobs: TrajectoryKnobs) -> str:
    """Of how the teacher learns: it has no weights yet when the file is begun."""
    return digest_json({"network": knobs.network, "fitting": knobs.fitting, "recipe": knobs.recipe})


def recording_header(teacher: str, knobs: TrajectoryKnobs, shared: SharedBatches) -> Header:
    """What the trajectory's file holds, before the first epoch.

    Raises:
        ParamsError: the precision does not fit the number of classes.
    """
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
