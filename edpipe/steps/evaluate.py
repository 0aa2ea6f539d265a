"""Measures the student of every stage of one seed, the last one also against its teachers.

The test split is read here and by evaluate_teacher, and by no other step.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.results.measures.evaluation_inputs import check_chain, check_measured_on, check_taught_by, load_student
from edpipe.results.measures.student import data_facts, measure_stages, setup_facts
from edpipe.results.measures.teacher_evaluation import read_teacher_evaluation
from edpipe.runtime.progress import announce
from edpipe.storage.job import Job, NoKnobs
from edpipe.storage.records import make_record, write_record


@dataclass(frozen=True)
class EvaluationFiles:
    """What an evaluation reads."""

    dataset: Path
    partition: Path
    students: tuple[Path, ...]
    """Weights after each stage, in order; their records lie beside them."""
    teachers: tuple[Path, ...]
    """Evaluations of the teachers whose soft labels some stage learnt from, each once."""


def run(job: Job[NoKnobs]) -> None:
    """Runs a job of this step."""
    students = tuple(path for path in job.inputs["students"] if path.suffix != ".json")
    files = EvaluationFiles(job.input("dataset"), job.input("partition"), students, job.inputs["teacher_evaluations"])
    evaluate(int(job.arguments["seed"]), files, job.outputs[0])


def evaluate(seed: int, files: EvaluationFiles, out_path: Path) -> None:
    """Writes metrics of one seed: the last student on all classes, and every stage's student on every subset.

    Raises:
        CorruptFileError: a file is damaged.
        MismatchError: a student that was taught from another dataset or partition, or not from the one before; teachers
            that are not those whose soft labels the stages learnt from.
    """
    dataset = open_dataset(files.dataset)
    partition = read_partition(files.partition, dataset)
    stages = [load_student(path, dataset, partition) for path in files.students]
    check_chain(files.students, stages, seed)
    teachers = {path: read_teacher_evaluation(path) for path in files.teachers}
    check_measured_on(teachers, dataset, partition)
    check_taught_by(teachers, files.students, stages)
    facts: dict[str, Any] = {"seed": seed} | measure_stages(stages, list(teachers.values()), dataset, partition)
    facts |= {"data": data_facts(dataset, partition), "setup": setup_facts(stages)}
    announce(f"{out_path}: top1 {facts['metrics']['top1']:.4f}, {len(stages)} stages")
    inputs: dict[str, object] = {"dataset": dataset.digest, "partition": partition.digest}
    inputs["students"] = [stage.record["weights_digest"] for stage in stages]
    inputs["teacher_evaluations"] = [teacher.digest for teacher in teachers.values()]
    write_record(out_path, make_record("evaluate", {}, inputs, **facts))
