"""Asks a teacher about the test images of the classes it knows, once for all students that are compared with it."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.results.measures.metrics import expected_calibration_error, top_k_hits
from edpipe.results.measures.predictions import PlainImages, plain_logits
from edpipe.results.measures.teacher_evaluation import TeacherEvaluation, write_teacher_evaluation
from edpipe.runtime.progress import announce
from edpipe.soft_labels.teacher_outputs import Teacher, TeacherFiles, load_teacher
from edpipe.storage.job import Job, NoKnobs
from edpipe.storage.records import make_record


def run(job: Job[NoKnobs]) -> None:
    """Runs a job of this step."""
    evaluate_teacher(TeacherFiles.of_job(job.arguments, job.inputs), job.outputs[0])


def evaluate_teacher(files: TeacherFiles, out_path: Path) -> None:
    """Writes the class that the teacher names on each of these images, its top1 and its calibration error.

    Raises:
        CorruptFileError: a file is damaged.
        MismatchError: the teacher was made from another dataset or partition than the one at hand.
    """
    dataset = open_dataset(files.dataset_path)
    teacher = load_teacher(files, dataset)
    sample_ids = dataset.sample_ids("test", teacher.class_ids)
    inputs = {"dataset": dataset.digest, "partition": teacher.partition_digest, "teacher": teacher.digest}
    predictions = _predictions(teacher, dataset, sample_ids)
    evaluation = TeacherEvaluation(files.teacher, files.subset, teacher.class_ids, **predictions, inputs=inputs)
    write_teacher_evaluation(out_path, evaluation, make_record("evaluate_teacher", {}, inputs))
    summary = "no test image" if evaluation.top1 is None else f"top1 {evaluation.top1:.4f} on {len(sample_ids)} images"
    announce(f"{out_path}: {summary} of its {len(teacher.class_ids)} classes")


def _predictions(teacher: Teacher, dataset: Dataset, sample_ids: Int64[np.ndarray, " sample"]) -> dict[str, Any]:
    """What is measured; no image, no shares."""
    if len(sample_ids) == 0:
        return {"predicted_class_ids": (), "top1": None, "ece": None}
    images = PlainImages(dataset, teacher.mean, teacher.std)
    logits = plain_logits(teacher.network, teacher.recipe, images, sample_ids)
    known = np.array(teacher.class_ids, dtype=np.int64)
    labels = np.searchsorted(known, dataset.labels[sample_ids]).astype(np.int64)
    return {
        "predicted_class_ids": tuple(known[logits.argmax(axis=1)].tolist()),
        "top1": top_k_hits(logits, labels, 1).top1,
        "ece": expected_calibration_error(logits, labels),
    }
