"""The command line: `edpipe STEP …` runs one step of the pipeline; the rest, in edpipe/tools.py, helps people.

Steps import torch only when they run, so that a wrong word costs no waiting.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edpipe import __version__, jobs, layout
from edpipe.errors import EdpipeError, LostProcessError
from edpipe.interruption import Interrupted, interruptible
from edpipe.jobs import Job
from edpipe.launch import is_to_be_shared, run_together
from edpipe.ledger import booked, parts_of
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.threads import by_default, is_main_process, is_started_by_torchrun
from edpipe.tools import TOOLS
from edpipe.views import ViewRange

EXIT_MENDABLE = 2
"""A mistake that the user can mend; a bug ends with Python's 1, Ctrl-C with 130, SIGTERM with 143."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. What a user can mend is one line on standard error."""
    options = vars(_parser().parse_args(arguments))
    run: Callable[..., None] = options.pop("run")
    try:
        with interruptible():
            run(**options)
    except EdpipeError as error:
        # Of several processes that train together, all fail alike, but for the loss of one of them.
        for line in str(error).splitlines() if is_main_process() or isinstance(error, LostProcessError) else ():
            print(f"edpipe: {line}", file=sys.stderr)
        return EXIT_MENDABLE
    except BrokenPipeError:
        return 0
    except Interrupted as interruption:
        if not is_started_by_torchrun():  # whoever started them says it once
            print("edpipe: interrupted; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return interruption.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edpipe", description="Education Distillation, as a pipeline of cached stages."
    )
    parser.add_argument("--version", action="version", version=f"edpipe {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (run, words, text) in STEPS.items():
        _add(commands, name, run, text, words)
    for name, (add, text) in TOOLS.items():
        add(commands.add_parser(name, help=text, description=text))
    return parser


def _add(commands: argparse._SubParsersAction, name: str, run: Callable, text: str, words: tuple[str, ...]) -> None:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    for word in words:
        command.add_argument(f"--{word}", required=True, type=int if word == "seed" else str)


def _begin() -> Params:
    """The checked params; under DVC also that its lists fit them."""
    params = load_params()
    from edpipe.tracked_jobs import check_when_under_dvc

    check_when_under_dvc(params)
    return params


def _only(paths: tuple[Path, ...]) -> Path | None:
    return paths[0] if paths else None


def _booked(make: Callable[..., Job], run: Callable[[Job], None]) -> Callable[..., None]:
    """A step as a command: finds the job that the words name, runs it, and notes what that took."""

    def command(**words: str | int) -> None:
        job = make(params := _begin(), **words)
        with by_default(jobs.threads_of(params, job) if job.step in jobs.NETWORK_STEPS else None):
            if job.step in jobs.TRAINING_STEPS and is_to_be_shared():
                run_together(job.command.split()[1:])
                return
            with booked(job):
                run(job)

    return command


def _pack_dataset(job: Job) -> None:
    from edpipe.steps.pack_dataset import pack_dataset

    dataset, knobs = str(job.arguments["dataset"]), job.knobs["dataset"]
    pack_dataset(dataset, knobs, layout.raw_path(dataset, knobs.root), job.outputs[0])  # type: ignore[attr-defined, arg-type]


def _partition_dataset(job: Job) -> None:
    from edpipe.steps.partition_dataset import partition_dataset

    partition_dataset(job.inputs["dataset"][0], job.knobs["partition"], job.outputs[0])  # type: ignore[arg-type]


def _partition_by_confusion(job: Job) -> None:
    from edpipe.steps.partition_by_confusion import Answers, partition_by_confusion

    paths, knobs = job.inputs, job.knobs
    answers = Answers(paths["indexes"][0], paths["soft_labels"], paths["teachers"][0], knobs["space"])  # type: ignore[arg-type]
    partition_by_confusion(paths["dataset"][0], knobs["partition"], answers, job.outputs[0])  # type: ignore[arg-type]


def _partition_by(step: str) -> Callable[..., Job]:
    def make(params: Params, dataset: str, partition: str) -> Job:
        job = jobs.partition_dataset(params, dataset, partition)
        if job.step != step:
            raise EdpipeError(
                f"partitions.{partition}.confusion: this partition is made by `edpipe {job.step}`, not {step}"
            )
        return job

    return make


def _teacher_by(step: str) -> Callable[..., Job]:
    def make(params: Params, dataset: str, teacher: str, subset: str) -> Job:
        job = jobs.make_teacher(params, dataset, teacher, subset)
        if job.step != step:
            raise EdpipeError(
                f"teachers.{teacher}.network.source: this teacher is made by `edpipe {job.step}`, not {step}"
            )
        return job

    return make


def _make_teacher(job: Job) -> None:
    from edpipe.models.names import check_model_name
    from edpipe.steps.teaching import open_course

    network = job.knobs["network"]
    check_model_name(network.model)  # type: ignore[attr-defined]
    words = job.arguments
    course = open_course(
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

        train_teacher(course, network, job.outputs[0])  # type: ignore[arg-type]
    else:
        from edpipe.steps.fetch_teacher import fetch_teacher

        student = _only(job.inputs.get("student", ()))
        fetch_teacher(course, network, job.outputs[0], layout.WEIGHTS, student)  # type: ignore[arg-type]


def _dump_soft_labels(job: Job) -> None:
    from edpipe.steps.asking import TeacherFiles
    from edpipe.steps.dump_soft_labels import DumpKnobs, dump_soft_labels

    files = TeacherFiles.of_job(job.arguments, job.inputs)
    views = ViewRange.parse(str(job.arguments["views"]))
    dump_soft_labels(files, DumpKnobs(**job.knobs), views, job.outputs[0])  # type: ignore[arg-type]


def _verify_soft_labels(job: Job) -> None:
    from edpipe.steps.asking import TeacherFiles
    from edpipe.steps.verify_soft_labels import verify_soft_labels

    files = TeacherFiles.of_job(job.arguments, job.inputs)
    labels = tuple(path for path in job.inputs["soft_labels"] if path.suffix == ".h5")
    verify_soft_labels(files, labels, job.knobs["views"], job.outputs[0])  # type: ignore[arg-type]


def _evaluate_teacher(job: Job) -> None:
    from edpipe.steps.asking import TeacherFiles
    from edpipe.steps.evaluate_teacher import evaluate_teacher

    evaluate_teacher(TeacherFiles.of_job(job.arguments, job.inputs), job.outputs[0])


def _record_trajectory(job: Job) -> None:
    from edpipe.models.names import check_model_name
    from edpipe.steps.record_trajectory import TrajectoryKnobs, record_trajectory

    knobs = TrajectoryKnobs(**job.knobs)  # type: ignore[arg-type]
    check_model_name(knobs.network.model)
    teacher, seed = str(job.arguments["teacher"]), int(job.arguments["seed"])
    record_trajectory(teacher, seed, knobs, job.inputs["dataset"][0], job.outputs[0])


def _run_stage(job: Job) -> None:
    from edpipe.models.names import check_model_name
    from edpipe.steps.classroom import StageKnobsOfJob
    from edpipe.steps.run_stage import StageFiles, run_stage

    knobs = StageKnobsOfJob(**job.knobs)  # type: ignore[arg-type]
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
    job = jobs.result(params, experiment)
    with booked(job):
        from edpipe.steps.result import result

        before = [other for other in jobs.jobs_of(params, [experiment]) if other.step not in ("result", "report")]
        method, parts = str(job.knobs["method"]), parts_of(before, experiment)
        result(experiment, method, job.inputs["evaluations"], parts, *job.outputs)


def _report(job: Job) -> None:
    from edpipe.steps.report import SampleImages, report

    paths = job.inputs
    report(paths["result"][0], job.outputs[0], SampleImages(paths["dataset"][0], paths["partition"][0]))


def _study(job: Job) -> None:
    from edpipe.steps.study import study

    study(str(job.arguments["study"]), job.knobs["study"], job.inputs["results"], *job.outputs)  # type: ignore[arg-type]


STEPS: dict[str, tuple[Callable, tuple[str, ...], str]] = {
    "pack_dataset": (_booked(jobs.pack_dataset, _pack_dataset), ("dataset",), "pack raw images into one file"),
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
        _booked(jobs.dump_soft_labels, _dump_soft_labels),
        ("dataset", "teacher", "subset", "views"),
        "store a teacher's logits on some views, such as 0-7",
    ),
    "verify_soft_labels": (
        _booked(jobs.verify_soft_labels, _verify_soft_labels),
        ("dataset", "teacher", "subset"),
        "hold stored logits against the teacher",
    ),
    "evaluate_teacher": (
        _booked(jobs.evaluate_teacher, _evaluate_teacher),
        ("dataset", "teacher", "subset"),
        "ask a teacher about the test images of its classes",
    ),
    "record_trajectory": (
        _booked(jobs.record_trajectory, _record_trajectory),
        ("dataset", "teacher", "seed"),
        "train a teacher beside a student's samples, and store what it says",
    ),
    "run_stage": (
        _booked(jobs.run_stage, _run_stage),
        ("experiment", "seed", "stage"),
        "train a student through one stage",
    ),
    "evaluate": (
        _booked(jobs.evaluate, _evaluate),
        ("experiment", "seed"),
        "measure every stage's student on the test split",
    ),
    "result": (_result, ("experiment",), "gather the seeds of an experiment"),
    "report": (_booked(jobs.report, _report), ("experiment",), "draw the page of an experiment"),
    "study": (_booked(jobs.study, _study), ("study",), "hold experiments against one of them"),
}


if __name__ == "__main__":
    sys.exit(main())
