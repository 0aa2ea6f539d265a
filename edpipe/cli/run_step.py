"""A step as a command: finds the job that the arguments name, opens its files, runs it, and records what that took."""

from collections.abc import Callable
from pathlib import Path

from edpipe.errors import EdpipeError
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.pipeline.jobs import data, graph, paths, resources, students, teachers
from edpipe.pipeline.jobs.job import Job
from edpipe.pipeline.state.cost_ledger import costs_recorded, parts_of
from edpipe.runtime.threads import by_default
from edpipe.runtime.torchrun import is_to_be_shared, run_together
from edpipe.views.spec import ViewRange


def _begin() -> Params:
    """The checked params; under DVC also that its lists fit them."""
    params = load_params()
    from edpipe.pipeline.dvc.lists import check_when_under_dvc

    check_when_under_dvc(params)
    return params


def _only(paths: tuple[Path, ...]) -> Path | None:
    return paths[0] if paths else None


def _booked(make: Callable[..., Job], run: Callable[[Job], None]) -> Callable[..., None]:
    """A step as a command: finds the job that the words name, runs it, and notes what that took."""

    def command(**words: str | int) -> None:
        job = make(params := _begin(), **words)
        with by_default(resources.threads_of(params, job) if job.step in resources.NETWORK_STEPS else None):
            if job.step in resources.TRAINING_STEPS and is_to_be_shared():
                run_together(job.command.split()[1:])
                return
            with costs_recorded(job):
                run(job)

    return command


def _pack_dataset(job: Job) -> None:
    from edpipe.steps.pack_dataset import pack_dataset

    dataset, knobs = str(job.arguments["dataset"]), job.knobs["dataset"]
    pack_dataset(dataset, knobs, paths.raw_path(dataset, knobs.root), job.outputs[0])  # type: ignore[attr-defined, arg-type]


def _partition_dataset(job: Job) -> None:
    from edpipe.steps.partition_dataset import partition_dataset

    partition_dataset(job.inputs["dataset"][0], job.knobs["partition"], job.outputs[0])  # type: ignore[arg-type]


def _partition_by_confusion(job: Job) -> None:
    from edpipe.steps.partition_by_confusion import ConfusionFiles, partition_by_confusion

    paths, knobs = job.inputs, job.knobs
    files = ConfusionFiles(paths["indexes"][0], paths["soft_labels"], paths["teachers"][0], knobs["space"])  # type: ignore[arg-type]
    partition_by_confusion(paths["dataset"][0], knobs["partition"], files, job.outputs[0])  # type: ignore[arg-type]


def _partition_by(step: str) -> Callable[..., Job]:
    def make(params: Params, dataset: str, partition: str) -> Job:
        job = data.partition_dataset(params, dataset, partition)
        if job.step != step:
            raise EdpipeError(
                f"partitions.{partition}.confusion: this partition is made by `edpipe {job.step}`, not {step}"
            )
        return job

    return make


def _teacher_by(step: str) -> Callable[..., Job]:
    def make(params: Params, dataset: str, teacher: str, subset: str) -> Job:
        job = teachers.make_teacher(params, dataset, teacher, subset)
        if job.step != step:
            raise EdpipeError(
                f"teachers.{teacher}.network.source: this teacher is made by `edpipe {job.step}`, not {step}"
            )
        return job

    return make


def _make_teacher(job: Job) -> None:
    from edpipe.models.zoo.names import check_model_name
    from edpipe.training.teacher import open_teacher_setup

    network = job.knobs["network"]
    check_model_name(network.model)  # type: ignore[attr-defined]
    words = job.arguments
    setup = open_teacher_setup(
        f"teacher {words['teacher']}/{words['subset']}",
        job.inputs["dataset"][0],
        _only(job.inputs["partition"]),
        str(words["subset"]),
        job.knobs["augment"],  # type: ignore[arg-type]
        job.knobs["fitting"],  # type: ignore[arg-type]
        job.knobs["recipe"],  # type: ignore[arg-type]
    )
    if job.step == "train_teacher":
        from edpipe.steps.train_teacher import train_teacher

        train_teacher(setup, network, job.outputs[0])  # type: ignore[arg-type]
    else:
        from edpipe.steps.fetch_teacher import fetch_teacher

        student = _only(job.inputs.get("student", ()))
        fetch_teacher(setup, network, job.outputs[0], paths.WEIGHTS, student)  # type: ignore[arg-type]


def _dump_soft_labels(job: Job) -> None:
    from edpipe.soft_labels.teacher_outputs import TeacherFiles
    from edpipe.steps.dump_soft_labels import DumpKnobs, dump_soft_labels

    files = TeacherFiles.of_job(job.arguments, job.inputs)
    views = ViewRange.parse(str(job.arguments["views"]))
    dump_soft_labels(files, DumpKnobs(**job.knobs), views, job.outputs[0])  # type: ignore[arg-type]


def _verify_soft_labels(job: Job) -> None:
    from edpipe.soft_labels.teacher_outputs import TeacherFiles
    from edpipe.steps.verify_soft_labels import verify_soft_labels

    files = TeacherFiles.of_job(job.arguments, job.inputs)
    labels = tuple(path for path in job.inputs["soft_labels"] if path.suffix == ".h5")
    verify_soft_labels(files, labels, job.knobs["views"], job.outputs[0])  # type: ignore[arg-type]


def _evaluate_teacher(job: Job) -> None:
    from edpipe.soft_labels.teacher_outputs import TeacherFiles
    from edpipe.steps.evaluate_teacher import evaluate_teacher

    evaluate_teacher(TeacherFiles.of_job(job.arguments, job.inputs), job.outputs[0])


def _record_trajectory(job: Job) -> None:
    from edpipe.models.zoo.names import check_model_name
    from edpipe.steps.record_trajectory import record_trajectory
    from edpipe.training.scratch_teacher import TrajectoryKnobs

    knobs = TrajectoryKnobs(**job.knobs)  # type: ignore[arg-type]
    check_model_name(knobs.network.model)
    teacher, seed = str(job.arguments["teacher"]), int(job.arguments["seed"])
    record_trajectory(teacher, seed, knobs, job.inputs["dataset"][0], job.outputs[0])


def _run_stage(job: Job) -> None:
    from edpipe.models.zoo.names import check_model_name
    from edpipe.steps.run_stage import run_stage
    from edpipe.training.stage.batches import StageJobKnobs
    from edpipe.training.stage.inputs import StageFiles

    knobs = StageJobKnobs(**job.knobs)  # type: ignore[arg-type]
    check_model_name(knobs.student.model)
    paths = job.inputs
    files = StageFiles(
        paths["dataset"][0],
        paths["partition"][0],
        _only(paths["previous"]),
        paths["indexes"],
        paths["soft_labels"],
        paths["teachers"],
        job.outputs[0],
        _only(paths["trajectory"]),
    )
    experiment, seed, stage = job.arguments.values()
    run_stage(f"{experiment} seed {seed} {stage}", int(seed), knobs, files)


def _evaluate(job: Job) -> None:
    from edpipe.steps.evaluate import EvaluationFiles, evaluate

    paths = job.inputs
    students = tuple(path for path in paths["students"] if path.suffix != ".json")
    files = EvaluationFiles(paths["dataset"][0], paths["partition"][0], students, paths["teacher_evaluations"])
    evaluate(int(job.arguments["seed"]), files, job.outputs[0])


def _result(experiment: str) -> None:
    params = _begin()
    job = students.result(params, experiment)
    with costs_recorded(job):
        from edpipe.steps.result import result

        before = [other for other in graph.jobs_of(params, [experiment]) if other.step not in ("result", "report")]
        method, parts = str(job.knobs["method"]), parts_of(before, experiment)
        result(experiment, method, job.inputs["evaluations"], parts, *job.outputs)


def _report(job: Job) -> None:
    from edpipe.results.page.page import SampleImages
    from edpipe.steps.report import report

    paths = job.inputs
    report(paths["result"][0], job.outputs[0], SampleImages(paths["dataset"][0], paths["partition"][0]))


def _study(job: Job) -> None:
    from edpipe.steps.study import study

    study(str(job.arguments["study"]), job.knobs["study"], job.inputs["results"], *job.outputs)  # type: ignore[arg-type]


STEPS: dict[str, tuple[Callable, tuple[str, ...], str]] = {
    "pack_dataset": (_booked(data.pack_dataset, _pack_dataset), ("dataset",), "pack raw images into one file"),
    "partition_dataset": (
        _booked(_partition_by("partition_dataset"), _partition_dataset),
        ("dataset", "partition"),
        "deal the classes out to subsets",
    ),
    "partition_by_confusion": (
        _booked(_partition_by("partition_by_confusion"), _partition_by_confusion),
        ("dataset", "partition"),
        "deal the classes out by what a teacher confuses",
    ),
    "train_teacher": (
        _booked(_teacher_by("train_teacher"), _make_teacher),
        ("dataset", "teacher", "subset"),
        "train a teacher from scratch",
    ),
    "fetch_teacher": (
        _booked(_teacher_by("fetch_teacher"), _make_teacher),
        ("dataset", "teacher", "subset"),
        "fetch and fine-tune a teacher",
    ),
    "dump_soft_labels": (
        _booked(teachers.dump_soft_labels, _dump_soft_labels),
        ("dataset", "teacher", "subset", "views"),
        "store a teacher's logits on some views, such as 0-7",
    ),
    "verify_soft_labels": (
        _booked(teachers.verify_soft_labels, _verify_soft_labels),
        ("dataset", "teacher", "subset"),
        "hold stored logits against the teacher",
    ),
    "evaluate_teacher": (
        _booked(teachers.evaluate_teacher, _evaluate_teacher),
        ("dataset", "teacher", "subset"),
        "ask a teacher about the test images of its classes",
    ),
    "record_trajectory": (
        _booked(teachers.record_trajectory, _record_trajectory),
        ("dataset", "teacher", "seed"),
        "train a teacher beside a student's samples, and store what it says",
    ),
    "run_stage": (
        _booked(students.run_stage, _run_stage),
        ("experiment", "seed", "stage"),
        "train a student through one stage",
    ),
    "evaluate": (
        _booked(students.evaluate, _evaluate),
        ("experiment", "seed"),
        "measure every stage's student on the test split",
    ),
    "result": (_result, ("experiment",), "gather the seeds of an experiment"),
    "report": (_booked(students.report, _report), ("experiment",), "draw the page of an experiment"),
    "study": (_booked(students.study, _study), ("study",), "hold experiments against one of them"),
}
