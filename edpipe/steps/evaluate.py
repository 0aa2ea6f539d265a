"""Measures the student of every stage of one seed, the last one also against its teachers.

The test split is read here and by evaluate_teacher, and by no other step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.datasets.partition import Partition
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import MismatchError
from edpipe.models.students.student import Student, student_weights
from edpipe.models.zoo.build import build_network
from edpipe.results.measures.student import StageStudent, data_facts, measure_stages, setup_facts
from edpipe.results.measures.teacher_evaluation import TeacherEvaluation, read_teacher_evaluation
from edpipe.runtime.progress import announce
from edpipe.storage.records import make_record, write_record
from edpipe.storage.weights import read_weights


@dataclass(frozen=True)
class EvaluationFiles:
    """What an evaluation reads."""

    dataset: Path
    partition: Path
    students: tuple[Path, ...]
    """Weights after each stage, in order; their records lie beside them."""
    teachers: tuple[Path, ...]
    """Evaluations of the teachers whose soft labels some stage learnt from, each once."""


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
    facts: dict[str, Any] = {"seed": seed} | measure_stages(stages, list(teachers.values()), dataset, partition)
    facts |= {"data": data_facts(dataset, partition), "setup": setup_facts(stages)}
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
                names = ", ".join(measured) or "none"
                raise MismatchError(
                    f"{student_path}: learnt from teacher {name}, measured are: {names}; run its stages again"
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
