"""Stores one teacher's logits on every view of its subset's training samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edpipe.batches import ViewBatches
from edpipe.device import prepare_device
from edpipe.errors import MismatchError, TeacherError
from edpipe.models.zoo import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import SoftLabelKnobs
from edpipe.pixels import normalise
from edpipe.progress import Tick, announce, show_progress
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.partition_file import read_partition
from edpipe.storage.records import make_record, record_path, write_record
from edpipe.storage.soft_label_file import BLOCK_ROWS, Provenance, SoftLabelWriter, create_soft_labels, open_soft_labels
from edpipe.storage.weights import read_weights
from edpipe.training import forward
from edpipe.views import ViewSpec

DUMP_BATCH = 256


@dataclass(frozen=True)
class TeacherFiles:
    """Where one teacher's inputs lie, and what it is called."""

    teacher: str
    subset: str
    dataset_path: Path
    partition_path: Path | None
    weights_path: Path


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher, ready to be asked."""

    network: nn.Module
    class_ids: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: RecipeKnobs
    digest: str
    partition_digest: str
    top1: float


def dump_soft_labels(files: TeacherFiles, knobs: SoftLabelKnobs, min_top1: float, out_path: Path) -> None:
    """Writes the soft-label file and its record.

    Raises:
        TeacherError: the teacher's top1 is under its gate, a logit is not finite, or the stored error is over budget.
        MismatchError: the teacher was made from another dataset or partition than the one at hand.
    """
    dataset = open_dataset(files.dataset_path)
    teacher = load_teacher(files, dataset, min_top1)
    batches = ViewBatches(dataset, ViewSpec.from_knobs(knobs.views, dataset.image_size), prepare_device())
    sample_ids = dataset.sample_ids("train", teacher.class_ids)
    provenance = Provenance(
        teacher=files.teacher,
        subset=files.subset,
        teacher_digest=teacher.digest,
        dataset_digest=dataset.digest,
        partition_digest=teacher.partition_digest,
        view_spec=batches.spec.canonical(),
        pixel_canary=batches.canary(sample_ids),
        precision=knobs.precision,
    )
    columns = (sample_ids, dataset.sample_keys[sample_ids], dataset.labels[sample_ids])
    class_ids = np.array(teacher.class_ids, dtype=np.int32)
    record_path(out_path).unlink(missing_ok=True)
    with create_soft_labels(out_path, provenance, *columns, class_ids, batches.spec.num_views, knobs.max_kl) as writer:
        _ask(teacher, batches, sample_ids, writer, f"soft labels {files.teacher}/{files.subset}")
    _record(out_path, knobs, min_top1, teacher)


def load_teacher(files: TeacherFiles, dataset: Dataset, min_top1: float) -> Teacher:
    """The teacher, after its record has been held against the dataset, the partition and the gate."""
    weights, record = read_weights(files.weights_path)
    partition_digest = read_partition(files.partition_path, dataset).digest if files.partition_path else ""
    _check_inputs(files, record, {"dataset": dataset.digest, "partition": partition_digest})
    if record["top1"] < min_top1:
        raise TeacherError(
            f"{files.weights_path}: top1 {record['top1']:.4f} on its {record['top1_split']} images is under "
            f"teachers.{files.teacher}.min_top1 {min_top1:g}; train it longer, or lower min_top1"
        )
    network = build_network(record["knobs"]["network"]["model"], len(record["class_ids"]), dataset.channels, 0)
    network.load_state_dict(weights)
    return Teacher(
        network=network,
        class_ids=tuple(record["class_ids"]),
        mean=tuple(record["mean"]),
        std=tuple(record["std"]),
        recipe=RecipeKnobs.model_validate(record["knobs"]["recipe"]),
        digest=record["weights_digest"],
        partition_digest=partition_digest,
        top1=record["top1"],
    )


def _check_inputs(files: TeacherFiles, record: dict[str, Any], present: dict[str, str]) -> None:
    for name, digest in present.items():
        if record["inputs"][name] != digest:
            raise MismatchError(
                f"{files.weights_path}: this teacher was made from {name} {record['inputs'][name]!r}, at hand is "
                f"{digest!r}; make it again with `snakemake --force {files.weights_path}`"
            )


def _ask(teacher: Teacher, batches: ViewBatches, sample_ids: np.ndarray, writer: SoftLabelWriter, title: str) -> None:
    """Every view of every sample goes through the teacher once, a block at a time."""
    teacher.network.to(batches.device).to(memory_format=torch.channels_last).eval()
    num_views, done = batches.spec.num_views, 0
    with torch.inference_mode(), show_progress(title, num_views * len(sample_ids)) as show:
        for view in range(num_views):
            for start in range(0, len(sample_ids), BLOCK_ROWS):
                ids = sample_ids[start : start + BLOCK_ROWS]
                writer.write(view, start, _logits(teacher, batches, ids, view))
                done += len(ids)
                show(Tick(done, f"view {view + 1} of {num_views}"))


def _logits(teacher: Teacher, batches: ViewBatches, sample_ids: np.ndarray, view: int) -> np.ndarray:
    parts = []
    for ids in np.split(sample_ids, range(DUMP_BATCH, len(sample_ids), DUMP_BATCH)):
        images = normalise(batches.views(ids, np.full(len(ids), view)), teacher.mean, teacher.std)
        parts.append(forward(teacher.network, images, teacher.recipe).cpu().numpy())
    return np.concatenate(parts)


def _record(out_path: Path, knobs: SoftLabelKnobs, min_top1: float, teacher: Teacher) -> None:
    # Read back through the reader: what was written is what a student will be given.
    labels = open_soft_labels(out_path)
    found = labels.provenance
    inputs = {
        "dataset": found.dataset_digest,
        "partition": found.partition_digest,
        "teacher": {"digest": teacher.digest, "top1": teacher.top1},
    }
    record = make_record(
        "dump_soft_labels",
        {"soft_labels": knobs, "min_top1": min_top1},
        inputs,
        num_samples=len(labels.sample_ids),
        num_views=labels.num_views,
        teacher_forwards=labels.num_forwards,
        max_error_range=labels.max_error_range,
        kl_bound_at_temperature_4=labels.kl_bound(4.0),
        size_bytes=out_path.stat().st_size,
    )
    write_record(record_path(out_path), record)
    announce(
        f"{out_path}: {labels.num_forwards:,} rows, KL error at temperature 4 under {labels.kl_bound(4.0):.2g} nats"
    )
