"""Which source files a step depends on: what its text imports, compared with what it loads when it runs."""

import json
import re
import subprocess
import sys

import pytest
from edpipe.storage.source_files import ROOT, source_files, step_names
from project import make_project, tiny_params

STEPS = (
    "pack_dataset",
    "partition_dataset",
    "partition_by_confusion",
    "train_teacher",
    "fetch_teacher",
    "dump_soft_labels",
    "verify_soft_labels",
    "evaluate_teacher",
    "record_trajectory",
    "run_stage",
    "evaluate",
    "result",
    "report",
    "study",
)
DISPATCH = (
    "__main__",
    "cli/",
    "pipeline/",
    "runtime/signals",
    "runtime/threads",
    "runtime/torchrun",
    "results/measures/cost",
)
"""What turns a command into a job, and other commands; an edit of it changes the job's knobs or nothing."""


def closure(step):
    return {name.removeprefix("edpipe/").removesuffix(".py") for name in source_files(step)}


def test_there_is_a_step_for_each_module():
    assert step_names() == tuple(sorted(STEPS))


@pytest.mark.parametrize("step", STEPS)
def test_the_command_line_and_the_checks_of_params_are_in_no_closure(step):
    found = closure(step)
    assert f"steps/{step}" in found
    assert found.isdisjoint({"params/schema", "params/load", "params/references", "__main__"})
    assert not [name for name in found if name.startswith(("cli/", "pipeline/"))]
    assert not any(name.endswith("__init__") for name in found)


@pytest.mark.parametrize("step", STEPS)
def test_files_are_sorted_and_exist(step):
    files = source_files(step)
    assert list(files) == sorted(set(files))
    assert all((ROOT.parent / name).is_file() for name in files)


def test_an_edit_of_the_students_losses_trains_no_teacher_again():
    assert "losses/kd" in closure("run_stage")
    assert "methods/plan" in closure("run_stage")
    steps = (
        "train_teacher",
        "fetch_teacher",
        "dump_soft_labels",
        "verify_soft_labels",
        "evaluate_teacher",
        "record_trajectory",
        "evaluate",
    )
    for step in steps:
        assert closure(step).isdisjoint(
            {"losses/kd", "methods/ed", "methods/single_teacher", "methods/plan", "steps/run_stage"}
        )


def test_a_step_depends_on_what_it_uses():
    assert {
        "training/loop",
        "views/spec",
        "views/pixels",
        "training/schedule",
        "models/zoo/build",
        "storage/weights",
    } <= closure("train_teacher")
    assert {"soft_labels/encoding/quantisation", "soft_labels/file/reader", "views/batches"} <= closure(
        "dump_soft_labels"
    )
    assert {"models/pretrained/fetch", "training/teacher"} <= closure("fetch_teacher")
    assert "models/pretrained/fetch" not in closure("train_teacher")
    assert {"training/loop", "soft_labels/trajectory", "training/checkpoint", "training/sample_stream"} <= closure(
        "record_trajectory"
    )
    assert {"soft_labels/batches", "training/sample_stream"} <= closure("run_stage")
    assert "soft_labels/file/writer" not in closure("run_stage")
    assert {
        "results/measures/metrics",
        "results/measures/forgetting",
        "results/measures/agreement",
        "results/measures/teacher_evaluation",
    } <= closure("evaluate")
    assert {
        "results/measures/metrics",
        "soft_labels/teacher_outputs",
        "results/measures/teacher_evaluation",
    } <= closure("evaluate_teacher")
    assert {"datasets/readers/digits", "datasets/readers/food101"} <= closure("pack_dataset")
    assert not {name for name in closure("run_stage") if name.startswith("datasets/readers/")}


def test_how_soft_labels_are_read_makes_no_partition_again_that_asks_no_teacher():
    assert {"soft_labels/confusion", "soft_labels/file/store"} <= closure("partition_by_confusion")
    assert closure("partition_dataset").isdisjoint(
        {"soft_labels/confusion", "soft_labels/file/store", "soft_labels/encoding/precisions"}
    )


@pytest.mark.parametrize("step", ["partition_dataset", "partition_by_confusion"])
def test_a_partition_needs_no_torch(step):
    for name in source_files(step):
        text = (ROOT.parent / name).read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) (torch|torchvision|timm)\b", text, re.MULTILINE), name


def test_how_students_are_measured_makes_no_teacher_and_no_student_again():
    measuring = {"results/measures/agreement", "results/measures/predictions", "results/measures/teacher_evaluation"}
    for step in ("train_teacher", "fetch_teacher", "dump_soft_labels", "verify_soft_labels", "run_stage"):
        assert closure(step).isdisjoint(measuring)


def test_other_steps_are_refused():
    with pytest.raises(ValueError, match=r"^no step named 'nonsense'$"):
        source_files("nonsense")


RUN = """
import json, sys
loaded = {}
for arguments in json.loads(sys.argv[1]):
    for name in [n for n in sys.modules if n.split(".")[0] == "edpipe"]:
        del sys.modules[name]
    from edpipe.cli.main import main
    assert main(arguments) == 0, arguments
    names = [n.removeprefix("edpipe.").replace(".", "/") for n in sys.modules if n.startswith("edpipe.")]
    files = {n: getattr(sys.modules["edpipe." + n.replace("/", ".")], "__file__", "") for n in names}
    loaded[arguments[0]] = [n for n, file in files.items() if not file.endswith("__init__.py")]
print(json.dumps(loaded))
"""


@pytest.mark.slow
def test_what_a_step_loads_when_it_runs_is_in_its_closure(tmp_path):
    params = tiny_params()
    params["partitions"]["halves"] = {"subsets": ["primary"]}
    del params["experiments"]["ce"], params["experiments"]["kd"]
    params["experiments"]["ed"]["stages"] = {"primary": {"images": 64}}
    project = make_project(tmp_path, params)
    teacher = ["--dataset", "digits", "--teacher", "specialists", "--subset", "primary"]
    commands = [
        ["pack_dataset", "--dataset", "digits"],
        ["partition_dataset", "--dataset", "digits", "--partition", "halves"],
        ["train_teacher", *teacher],
        ["dump_soft_labels", *teacher, "--views", "0-0"],
        ["dump_soft_labels", *teacher, "--views", "1-1"],
        ["verify_soft_labels", *teacher],
        ["evaluate_teacher", *teacher],
        ["run_stage", "--experiment", "ed", "--seed", "0", "--stage", "primary"],
        ["evaluate", "--experiment", "ed", "--seed", "0"],
        ["result", "--experiment", "ed"],
        ["report", "--experiment", "ed"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=tmp_path,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for step, names in json.loads(done.stdout.splitlines()[-1]).items():
        names = {n for n in names if not n.startswith((*DISPATCH, "params/", "methods/"))}
        # The dispatch computes digests, counts views, checks model names and knows what a result is, for every step.
        dispatched = {
            "storage/records",
            "storage/digests",
            "storage/atomic",
            "storage/source_files",
            "models/zoo/names",
        }
        dispatched |= {"results/result_file", "results/measures/metrics", "runtime/progress"}
        assert names <= closure(step) | dispatched | {"views/spec", "views/philox", "views/axes"}, step
