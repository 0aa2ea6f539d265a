"""Measures the student of every stage of one seed, the last one also against its teachers.

The test split is read here and by evaluate_teacher, and by no other step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from edpipe.agreement import agreement
from edpipe.errors import MismatchError
from edpipe.forgetting import backward_transfer, forgetting
from edpipe.metrics import Hits, expected_calibration_error, top_k_hits
from edpipe.models.macs import count_macs, count_parameters
from edpipe.models.student import Student, student_weights
from edpipe.models.zoo import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.partition import Partition
from edpipe.plain_images import PlainImages, plain_logits
from edpipe.progress import announce
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.partition_file import read_partition
from edpipe.storage.records import make_record, write_record
from edpipe.storage.teacher_evaluation import TeacherEvaluation, read_teacher_evaluation
from edpipe.storage.weights import read_weights

Shares = dict[str, float | None]
"""By the name of what images are of, 0 to 1; None: there are no such images."""


@dataclass(frozen=True)
class EvaluationFiles:
    """What an evaluation reads."""

    dataset: Path
    partition: Path
    students: tuple[Path, ...]
    """Weights after each stage, in order; their records lie beside them."""
    teachers: tuple[Path, ...]
    """Evaluations of the teachers whose soft labels some stage learnt from, each once."""


@dataclass(frozen=True)
class StageStudent:
    """A loaded student and the record of the stage that made it."""

    student: Student
    record: dict[str, Any]

    @property
    def known_class_ids(self) -> np.ndarray:
        """Classes of the student's outputs, in order."""
        return np.array(self.record["known_class_ids"], dtype=np.int64)


@dataclass(frozen=True)
class Answers:
    """What a student says of the images of one split whose classes it knows."""

    logits: Float32[np.ndarray, "sample class"]
    truth: Int64[np.ndarray, " sample"]
    """Class id of each image."""
    known: Int64[np.ndarray, " class"]
    """Class ids of the columns."""

    def hits(self, class_ids: Sequence[int], k: int = 1) -> Hits:
        """Of the images of these classes: those whose class is among the first k of all that the student knows."""
        rows = np.isin(self.truth, class_ids)
        return top_k_hits(self.logits[rows], self.labels[rows], k)

    @cached_property
    def labels(self) -> Int64[np.ndarray, " sample"]:
        """The true classes, numbered as the columns."""
        return np.searchsorted(self.known, self.truth).astype(np.int64)


def evaluate(seed: int, files: EvaluationFiles, out_path: Path) -> None:
    """Writes metrics of one seed: the last student on all classes, and every stage's student on every subset.

    Raises:
        CorruptFileError: a file is damaged.
        MismatchError: a student that was taught from another dataset or partition, or not from the one before; teachers
            that are not those whose soft labels the stages learnt from.
    """
    dataset = open_dataset(files.dataset)
    partition = read_partition(files.partition, dataset)
    stages = [_load(path, dataset, partition) for path in files.students]
    _check_chain(files.students, stages, seed)
    teachers = {path: read_teacher_evaluation(path) for path in files.teachers}
    _check_measured_on(teachers, dataset, partition)
    _check_taught_by(teachers, files.students, stages)
    facts: dict[str, Any] = {"seed": seed} | _measured(stages, list(teachers.values()), dataset, partition)
    facts |= {"data": _data_facts(dataset, partition), "setup": _setup(stages)}
    announce(f"{out_path}: top1 {facts['metrics']['top1']:.4f}, {len(stages)} stages")
    inputs: dict[str, object] = {"dataset": dataset.digest, "partition": partition.digest}
    inputs["students"] = [stage.record["weights_digest"] for stage in stages]
    inputs["teacher_evaluations"] = [teacher.digest for teacher in teachers.values()]
    write_record(out_path, make_record("evaluate", {}, inputs, **facts))


def _load(path: Path, dataset: Dataset, partition: Partition) -> StageStudent:
    weights, record = read_weights(path)
    found = {name: record["inputs"][name] for name in ("dataset", "partition")}
    if found != {"dataset": dataset.digest, "partition": partition.digest}:
        raise MismatchError(f"{path}: was taught from another dataset or partition ({found}); run its stages again")
    plan, model = record["knobs"]["plan"], record["knobs"]["student"]
    student = Student(
        build_network(model["model"], dataset.num_classes, dataset.channels, 0),
        plan["number"],
        plan["num_stages"],
        len(record["known_class_ids"]),
        model["reference"],
        dataset.image_size,
        dataset.channels,
        0,
    )
    student.load(student_weights(weights))
    return StageStudent(student, record)


def _check_chain(paths: tuple[Path, ...], stages: list[StageStudent], seed: int) -> None:
    before = ""
    for path, stage in zip(paths, stages, strict=True):
        if stage.record["seed"] != seed:
            raise MismatchError(
                f"{path}: was trained with seed {stage.record['seed']}, not {seed}; run its stages again"
            )
        if stage.record["inputs"]["previous"] != before:
            raise MismatchError(f"{path}: did not grow from the stage before it that is at hand; run the stages again")
        before = stage.record["weights_digest"]


def _check_measured_on(teachers: Mapping[Path, TeacherEvaluation], dataset: Dataset, partition: Partition) -> None:
    present = {"dataset": dataset.digest, "partition": partition.digest}
    for path, teacher in teachers.items():
        for name, digest in present.items():
            found = teacher.inputs[name]
            if found != digest and (found or name == "dataset"):  # a teacher of all classes has no partition
                raise MismatchError(
                    f"{path}: this teacher was measured on {name} {found!r}, at hand is {digest!r}; make it again with "
                    f"`snakemake --force {path}`"
                )


def _check_taught_by(
    teachers: Mapping[Path, TeacherEvaluation], student_paths: tuple[Path, ...], stages: list[StageStudent]
) -> None:
    """That those who were measured are those who taught: each teacher of a stage, with the weights it taught with."""
    measured = {teacher.name: (path, teacher.inputs["teacher"]) for path, teacher in teachers.items()}
    waiting = {path for path, _ in measured.values()}
    for student_path, stage in zip(student_paths, stages, strict=True):
        for use in stage.record["inputs"]["soft_labels"]:
            name = f"{use['teacher']}/{use['subset']}"
            if name not in measured:
                told = ", ".join(measured) or "none"
                raise MismatchError(
                    f"{student_path}: learnt from teacher {name}, measured are: {told}; run its stages again"
                )
            path, digest = measured[name]
            _check_weights(path, digest, student_path, use["teacher_digest"])
            waiting.discard(path)
    for path in sorted(waiting):
        raise MismatchError(f"{path}: no stage learnt from this teacher; run the stages again")


def _check_weights(path: Path, measured: str, student_path: Path, learnt_from: str) -> None:
    if measured != learnt_from:
        raise MismatchError(
            f"{path}: teacher weights {measured} were measured, {student_path} learnt from {learnt_from}; run its "
            f"stages again if the teacher is another one now, else measure it with `snakemake --force {path}`"
        )


def _measured(
    stages: list[StageStudent], teachers: list[TeacherEvaluation], dataset: Dataset, partition: Partition
) -> dict[str, Any]:
    """All that is measured, of students and of teachers."""
    rows = [_top1_by_subset(_ask(stage, dataset, "test"), partition) for stage in stages[:-1]]
    last = _ask(stages[-1], dataset, "test")
    rows.append(_top1_by_subset(last, partition))
    metrics = _overall(last, dataset.num_classes) | _on_validation(stages[-1], dataset) | _forgetting(partition, rows)
    metrics["agreement"] = {teacher.name: _agreement(last, teacher) for teacher in teachers}
    return {
        "metrics": metrics,
        "teachers": {teacher.name: teacher.facts() for teacher in teachers},
        "stages": [_stage_facts(stage, row, dataset) for stage, row in zip(stages, rows, strict=True)],
    }


def _ask(stage: StageStudent, dataset: Dataset, split: str) -> Answers:
    """What the student says of the images of all classes; those of classes it does not know yet are left out."""
    known = stage.known_class_ids
    sample_ids = dataset.sample_ids(split, known.tolist())
    logits = np.empty((0, len(known)), dtype=np.float32)
    if len(sample_ids):
        recipe = RecipeKnobs.model_validate(stage.record["knobs"]["recipe"])
        logits = plain_logits(stage.student, recipe, PlainImages(dataset, dataset.mean, dataset.std), sample_ids)
    return Answers(logits, dataset.labels[sample_ids].astype(np.int64), known)


def _share(hits: Hits) -> float | None:
    return hits.top1 if hits.asked else None


def _top1_by_subset(answers: Answers, partition: Partition) -> Shares:
    return {subset: _share(answers.hits(partition.classes_of((subset,)))) for subset in partition.subsets}


def _overall(answers: Answers, num_classes: int) -> dict[str, Any]:
    everything = range(num_classes)
    return {
        "top1": answers.hits(everything).top1,
        "top5": answers.hits(everything, k=5).top1,
        "test_samples": len(answers.truth),
        "ece": expected_calibration_error(answers.logits, answers.labels),
        "top1_by_class": [_share(answers.hits((class_id,))) for class_id in everything],
    }


def _on_validation(stage: StageStudent, dataset: Dataset) -> dict[str, Any]:
    """Knobs are chosen by this number, so that the test split has no part in it."""
    hits = _ask(stage, dataset, "val").hits(range(dataset.num_classes))
    return {"val_top1": _share(hits), "val_samples": hits.asked}


def _agreement(answers: Answers, teacher: TeacherEvaluation) -> float | None:
    """Share of the teacher's test images on which the student, among the teacher's classes, names the same."""
    rows = np.isin(answers.truth, teacher.classes)
    return _share(agreement(answers.logits[rows], answers.known, teacher.predicted, teacher.classes))


def _forgetting(partition: Partition, rows: list[Shares]) -> dict[str, Any]:
    matrix = np.array([[row[subset] for subset in partition.subsets] for row in rows], dtype=np.float64)
    return {
        "forgetting": dict(zip(partition.subsets, forgetting(matrix), strict=True)),
        "backward_transfer": backward_transfer(matrix),
    }


def _data_facts(dataset: Dataset, partition: Partition) -> dict[str, Any]:
    """What a reader of the numbers must know of the data; lists, because the order of classes and subsets matters."""
    labels = dataset.labels[dataset.sample_ids("test")]
    return {
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        "test_samples_by_class": np.bincount(labels, minlength=dataset.num_classes).tolist(),
        "subsets": [{"name": s, "class_ids": list(partition.classes_of((s,)))} for s in partition.subsets],
    }


def _setup(stages: list[StageStudent]) -> dict[str, Any]:
    """What was trained, as the stages' records tell it."""
    knobs = [stage.record["knobs"] for stage in stages]
    return {name: knobs[-1][name] for name in ("student", "recipe", "views")} | {"stages": [k["plan"] for k in knobs]}


def _stage_facts(stage: StageStudent, top1_by_subset: Shares, dataset: Dataset) -> dict[str, Any]:
    record, plan = stage.record, stage.record["knobs"]["plan"]
    macs = count_macs(stage.student.cpu(), dataset.channels, dataset.image_size)
    return {
        "name": plan["name"],
        "number": plan["number"],
        "top1_by_subset": top1_by_subset,
        "images_seen": record["images_seen"],
        "taught_samples": record["taught_samples"],
        "images_with_teacher": record["images_seen"] if plan["teachers"] or plan.get("trajectory") else 0,
        "final_loss": record["final_loss"],
        "parameters": count_parameters(stage.student),
        "macs": macs,
        "training_macs": record["training_macs_per_image"] * record["images_seen"],
        "soft_labels": record["inputs"]["soft_labels"] + record["inputs"].get("trajectory", []),
        "weights_digest": record["weights_digest"],
        "code": record["code"],
        "versions": record["versions"],
    }
