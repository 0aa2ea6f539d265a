"""Stores one teacher's logits on some views of its subset's training samples."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import TeacherError
from edpipe.params.soft_labels import DumpKnobs
from edpipe.runtime.progress import announce
from edpipe.soft_labels.dumping import dump_batches, dump_header, fill
from edpipe.soft_labels.encoding.precisions import CERTIFIED_TEMPERATURE
from edpipe.soft_labels.file.existing import is_whole
from edpipe.soft_labels.file.reader import SoftLabels, open_soft_labels, read_header
from edpipe.soft_labels.file.writer import SoftLabelWriter, adopt_soft_labels, create_soft_labels
from edpipe.soft_labels.teacher_outputs import Teacher, TeacherFiles, load_teacher, teacher_forward
from edpipe.storage.digests import digest_json
from edpipe.storage.job import Job
from edpipe.storage.records import code_of, library_versions, make_record
from edpipe.views.spec import ViewRange


def run(job: Job[DumpKnobs]) -> None:
    """Runs a job of this step."""
    files = TeacherFiles.of_job(job.arguments, job.inputs)
    dump_soft_labels(files, job.knobs, ViewRange.parse(str(job.arguments["views"])), job.outputs[0])


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
    batches = dump_batches(dataset, teacher, knobs.space, views)
    with teacher_forward(teacher, batches, knobs.storage.attention, knobs.storage.hint) as forward_pass:
        header = dump_header(dataset, teacher, batches, knobs.storage, views, forward_pass)
        code, describe_file = digest_json(_makers()), partial(describe, knobs, teacher)
        if is_whole(out_path, header, _makers()):
            announce(f"{out_path}: is there already, made from the same by the same; only its record is written anew")
            adopt_soft_labels(out_path, header, code, describe_file)
        else:
            with create_soft_labels(out_path, header, code, describe_file) as writer:
                _announce_kept_blocks(out_path, writer)
                fill(forward_pass, header, writer)
    labels = read_header(out_path)
    announce(f"{out_path}: {labels.num_forwards:,} rows, {_announce_fidelity(labels)}")


def _makers() -> list[object]:
    """What besides its inputs decides what a file holds: blocks that others have made are not mixed with new ones."""
    return [code_of("dump_soft_labels"), library_versions()]


def _check_gate(teacher: Teacher, min_top1: float) -> None:
    if teacher.top1 < min_top1:
        raise TeacherError(
            f"{teacher.files.weights_path}: top1 {teacher.top1:.4f} on its {teacher.top1_split} images is under "
            f"teachers.{teacher.files.teacher}.min_top1 {min_top1:g}; train it longer, or lower min_top1"
        )


def _announce_kept_blocks(out_path: Path, writer: SoftLabelWriter) -> None:
    if writer.num_kept:
        announce(f"{out_path}: {writer.num_kept} blocks were finished before, {len(writer.missing)} are left")
    if writer.num_damaged:
        announce(f"{out_path}: {writer.num_damaged} blocks are damaged and are made again")


def describe(knobs: DumpKnobs, teacher: Teacher, path: Path) -> dict[str, Any]:
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
        teacher=labels.provenance.teacher,
        subset=labels.provenance.subset,
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
