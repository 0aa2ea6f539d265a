"""Opens the students that an evaluation measures, and checks that they and their teachers belong together."""

from collections.abc import Mapping
from pathlib import Path

from edpipe.datasets.dataset_file import Dataset
from edpipe.datasets.partition import Partition
from edpipe.errors import MismatchError, remake
from edpipe.models.students.student import Student, student_weights
from edpipe.models.zoo.build import build_network
from edpipe.params.plans.plan import knobs_as_now
from edpipe.results.measures.student import StageStudent
from edpipe.results.measures.teacher_evaluation import TeacherEvaluation
from edpipe.storage.weights import read_weights


def load_student(path: Path, dataset: Dataset, partition: Partition) -> StageStudent:
    """The student of one stage, after its record was compared with the dataset and the partition.

    Raises:
        CorruptFileError: its weights or its record are damaged.
        MismatchError: it was trained on another dataset or partition.
    """
    weights, record = read_weights(path)
    found = {name: record["inputs"][name] for name in ("dataset", "partition")}
    if found != {"dataset": dataset.digest, "partition": partition.digest}:
        raise MismatchError(f"{path}: was taught from another dataset or partition ({found}); run its stages again")
    knobs = knobs_as_now(record["knobs"])
    plan, model = knobs["plan"], knobs["student"]
    student = Student(
        build_network(model["model"], dataset.num_classes, dataset.channels, 0),
        plan["blocks"],
        plan["num_blocks"],
        len(record["known_class_ids"]),
        model["reference"],
        side := plan["budget"]["image_size"] or dataset.image_size,
        dataset.channels,
        0,
    )
    student.load(student_weights(weights))
    return StageStudent(student, record, side)


def check_chain(paths: tuple[Path, ...], stages: list[StageStudent], seed: int) -> None:
    """That all stages are of this seed, and each grew from the one before it.

    Raises:
        MismatchError: one is not.
    """
    before = ""
    for path, stage in zip(paths, stages, strict=True):
        if stage.record["seed"] != seed:
            raise MismatchError(
                f"{path}: was trained with seed {stage.record['seed']}, not {seed}; run its stages again"
            )
        if stage.record["inputs"]["previous"] != before:
            raise MismatchError(f"{path}: did not grow from the stage before it that is at hand; run the stages again")
        before = stage.record["weights_digest"]


def check_measured_on(teachers: Mapping[Path, TeacherEvaluation], dataset: Dataset, partition: Partition) -> None:
    """That the teachers were measured on this dataset and partition.

    Raises:
        MismatchError: one was not.
    """
    present = {"dataset": dataset.digest, "partition": partition.digest}
    for path, teacher in teachers.items():
        for name, digest in present.items():
            found = teacher.inputs[name]
            if found != digest and (found or name == "dataset"):  # a teacher of all classes has no partition
                raise MismatchError(
                    f"{path}: this teacher was measured on {name} {found!r}, at hand is {digest!r}; {remake(path)}"
                )


def check_taught_by(
    teachers: Mapping[Path, TeacherEvaluation], student_paths: tuple[Path, ...], stages: list[StageStudent]
) -> None:
    """That the measured teachers are those of the stages, with the same weights.

    Raises:
        MismatchError: a teacher is missing, has other weights, or is no stage's.
    """
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
            f"stages again if the teacher is another one now, else {remake(path, act='measure it')}"
        )
