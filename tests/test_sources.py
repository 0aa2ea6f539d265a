"""Which source files a step depends on: what its text imports, held against what it loads when it runs."""

import json
import re
import subprocess
import sys

import pytest
from project import make_project, tiny_params

from edpipe.sources import ROOT, source_files

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
    "__main__", "__init__", "tools", "job", "teacher_jobs", "jobs", "layout", "checks", "tracked_jobs",
    "workflow_hooks", "plan_command", "verify_command", "zoo_command", "new_command",
    "new_entries", "partition_command", "freshness", "evidence", "soundness", "ledger", "cost",
    "interruption", "threads", "launch",
)  # fmt: skip
"""What turns a command into a job, and other commands; an edit of it changes the job's knobs or nothing."""


def closure(step):
    return {name.removeprefix("edpipe/").removesuffix(".py") for name in source_files(step)}


def test_there_is_a_step_for_each_module():
    shared = {"__init__", "teaching", "asking", "classroom", "fitting"}
    assert {path.stem for path in (ROOT / "steps").glob("*.py")} - shared == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_the_command_line_and_the_checks_of_params_are_in_no_closure(step):
    found = closure(step)
    assert f"steps/{step}" in found
    assert found.isdisjoint({"params/schema", "params/load", "jobs", "__main__", "checks", "tracked_jobs", "layout"})
    assert found.isdisjoint({"job", "teacher_jobs", "tools"})
    assert not any(name.endswith("__init__") for name in found)


@pytest.mark.parametrize("step", STEPS)
def test_files_are_sorted_and_exist(step):
    files = source_files(step)
    assert list(files) == sorted(set(files))
    assert all((ROOT.parent / name).is_file() for name in files)


def test_an_edit_of_the_students_losses_trains_no_teacher_again():
    assert "losses" in closure("run_stage")
    assert "methods/curriculum" in closure("run_stage")
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
        assert closure(step).isdisjoint({"losses", "methods/ed", "methods/kd", "methods/curriculum", "steps/run_stage"})


def test_a_step_depends_on_what_it_uses():
    assert {"training", "views", "pixels", "schedule", "models/zoo", "storage/weights"} <= closure("train_teacher")
    assert {"certify", "storage/soft_label_file", "batches"} <= closure("dump_soft_labels")
    assert {"models/fetch", "steps/teaching"} <= closure("fetch_teacher")
    assert "models/fetch" not in closure("train_teacher")
    assert {"training", "storage/trajectory", "storage/checkpoint", "streams"} <= closure("record_trajectory")
    assert {"soft_label_batches", "streams"} <= closure("run_stage")
    assert "storage/soft_label_writer" not in closure("run_stage")
    assert {"metrics", "forgetting", "agreement", "storage/teacher_evaluation"} <= closure("evaluate")
    assert {"metrics", "steps/asking", "storage/teacher_evaluation"} <= closure("evaluate_teacher")
    assert {"datasets/digits", "datasets/food101"} <= closure("pack_dataset")
    assert not {name for name in closure("run_stage") if name.startswith("datasets/")}


def test_how_soft_labels_are_read_makes_no_partition_again_that_asks_no_teacher():
    assert {"confusion", "storage/soft_label_store"} <= closure("partition_by_confusion")
    assert closure("partition_dataset").isdisjoint({"confusion", "storage/soft_label_store", "precisions"})


@pytest.mark.parametrize("step", ["partition_dataset", "partition_by_confusion"])
def test_a_partition_needs_no_torch(step):
    for name in source_files(step):
        text = (ROOT.parent / name).read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) (torch|torchvision|timm)\b", text, re.MULTILINE), name


def test_how_students_are_measured_makes_no_teacher_and_no_student_again():
    measuring = {"agreement", "plain_images", "storage/teacher_evaluation"}
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
    from edpipe.__main__ import main
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
        names = {n for n in names if n not in DISPATCH and not n.startswith(("params/", "methods/"))}
        # The dispatch computes digests, counts views, checks model names and knows what a result is, for every step.
        dispatched = {"storage/records", "storage/atomic", "storage/result_file", "sources", "models/names", "metrics"}
        assert names <= closure(step) | dispatched | {"views", "philox", "shapes", "progress"}, step
