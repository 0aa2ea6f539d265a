"""The workflow as Snakemake sees it: style, names, resources, threads."""

import os
import re
import shutil
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import pytest
from package_copies import import_no_steps
from project import BIN, ROOT, make_project, tiny_params
from watching import TIMEOUT_S

pytestmark = pytest.mark.slow

TEACHERS = [f"artifacts/teachers/digits/specialists/{level}.safetensors" for level in ("primary", "middle")]
STAND_IN = Path(__file__).resolve().parents[1] / "support" / "stand_in_command_line.py"
WITNESS = '''
"""Notes when teachers begin and end to be trained; the work is played by stand_in."""
import os, sys, time
from pathlib import Path

from edpipe import stand_in

NOTES = Path("notes.txt")


def note(text):
    with NOTES.open("a", encoding="utf-8") as stream:
        stream.write(text + "\\n")


def main():
    note(f"threads {sys.argv[1]} {os.environ['OMP_NUM_THREADS']}")
    if sys.argv[1] != "train_teacher":
        return stand_in.main()
    note("begin")
    wait_until = time.monotonic() + float(os.environ["EDPIPE_TEST_WAIT_S"])
    while NOTES.read_text(encoding="utf-8").count("begin") < int(os.environ["EDPIPE_TEST_WAIT_FOR"]):
        if time.monotonic() > wait_until:
            break
        time.sleep(0.02)
    status = stand_in.main()
    note("end")
    return status
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder in which nothing is run, only planned."""
    return make_project(tmp_path_factory.mktemp("planned") / "project", tiny_params())


def played_project(folder, image_size=8):
    """A folder whose steps are played, on a machine that seems to have a GPU."""
    params = tiny_params()
    params["datasets"]["digits"]["image_size"] = image_size
    project = make_project(folder / "project", params)
    package = project.root / "edpipe"
    (package / "cli" / "main.py").rename(package / "cli" / "command_line.py")
    shutil.copy(STAND_IN, package / "stand_in.py")
    checks = package / "pipeline" / "state" / "artifact_checks.py"
    checks.rename(checks.with_name("real_artifact_checks.py"))
    shutil.copy(STAND_IN.with_name("stand_in_checks.py"), checks)
    (package / "cli" / "main.py").write_text(WITNESS, encoding="utf-8")
    import_no_steps(package)
    gpus = folder / "gpus"
    (gpus / "0000:00:00.0").mkdir(parents=True)
    hooks = package / "pipeline" / "snakemake" / "hooks.py"
    text = hooks.read_text(encoding="utf-8")
    assert "/proc/driver/nvidia/gpus" in text
    hooks.write_text(text.replace("/proc/driver/nvidia/gpus", str(gpus)), encoding="utf-8")
    return project


def play(project, *arguments, targets=TEACHERS, wait_for=1):
    """Makes the target; gives the notes of its steps. So many of them must be at work at once before one ends."""
    ran = project.snakemake(
        *arguments,
        "--",
        *targets,
        cores=8,
        EDPIPE_TEST_RUNS=project.root / "runs.txt",
        EDPIPE_TEST_WAIT_FOR=wait_for,
        EDPIPE_TEST_WAIT_S=TIMEOUT_S,
        EDPIPE_DEVICE=None,
        CUDA_VISIBLE_DEVICES=None,
    )
    assert ran.rc == 0, ran.err
    return (project.root / "notes.txt").read_text(encoding="utf-8").splitlines()


def most_at_once(notes):
    return max(accumulate({"begin": 1, "end": -1}.get(line, 0) for line in notes))


def planned_gpus(ran):
    """How many GPUs each planned rule asks for."""
    planned = {}
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", ran.text)[1:]:
        asked = re.search(r"\bgpu=(\d+)", block)
        planned[re.search(r"rule (\w+):", block)[1]] = int(asked[1]) if asked else None
    return planned


def test_lint_finds_nothing(project):
    ran = project.snakemake("--lint")
    assert ran.rc == 0, ran.text


def test_workflow_is_formatted():
    done = subprocess.run([BIN / "snakefmt", "--check", "workflow"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_snakefile_is_short():
    assert len((ROOT / "workflow/Snakefile").read_text(encoding="utf-8").splitlines()) < 60


def test_rulegraph_shows_the_way_from_images_to_result(project):
    ran = project.snakemake("--rulegraph", "dot", "--", "results/ed.json")
    assert ran.rc == 0, ran.err
    names = dict(re.findall(r'(\d+)\[label ?= ?"(\w+)', ran.out))
    edges = {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", ran.out)}
    assert {
        ("pack_dataset", "partition_dataset"),
        ("partition_dataset", "train_teacher"),
        ("train_teacher", "dump_soft_labels"),
        ("dump_soft_labels", "verify_soft_labels"),
        ("verify_soft_labels", "run_stage"),
        ("run_stage", "evaluate"),
        ("train_teacher", "evaluate_teacher"),
        ("evaluate_teacher", "evaluate"),
        ("evaluate", "result"),
    } <= edges


@pytest.mark.parametrize(
    "target",
    [
        "results/edd.json",
        "artifacts/teachers/digits/nobody/all.safetensors",
        "artifacts/students/ed/seed0/one_primary.safetensors",
        "artifacts/soft_labels/digits/specialists/primary.h5",
        "artifacts/soft_labels/digits/specialists/primary/views_0.h5",
    ],
)
def test_unknown_name_in_target_has_no_rule(project, target):
    ran = project.snakemake("-n", "--", target)
    assert ran.rc != 0
    assert "MissingRuleException" in ran.text
    assert f"No rule to produce {target}" in ran.text
    assert "Traceback" not in ran.text


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (
            "artifacts/teachers/digits/specialists/university.safetensors",
            "subset of teacher 'specialists': 'university' is not one of them; allowed: primary, middle",
        ),
        (
            "artifacts/soft_labels/digits/specialists/primary/views_0-5.h5",
            "views of soft_labels.digits: '0-5' is not one of them; allowed: 0-0, 1-1",
        ),
        (
            "artifacts/soft_labels/digits/general/primary.json",
            "subset of teacher 'general': 'primary' is not one of them; allowed: all",
        ),
        (
            "artifacts/teacher_evaluations/digits/general/primary.json",
            "subset of teacher 'general': 'primary' is not one of them; allowed: all",
        ),
        ("artifacts/evaluations/ed/seed7.json", "seeds of experiment 'ed': 7 is not one of them; allowed: 0"),
        (
            "artifacts/students/ed/seed0/1_university.safetensors",
            "stages of experiment 'ed': 'university' is not one of them; allowed: primary, middle",
        ),
    ],
)
def test_target_that_params_do_not_have_is_said_to_be_none(project, target, line):
    ran = project.snakemake("-n", "--", target)
    assert ran.rc != 0
    assert ran.said == [f"edpipe: {line}"]
    assert ran.last_line == ran.said[0]


def test_no_gpu_is_asked_for_where_there_is_none(project):
    ran = project.snakemake("-n", "--", "results/ed.json", EDPIPE_DEVICE="cpu")
    assert set(planned_gpus(ran).values()) <= {0, None}


def test_steps_that_compute_with_networks_ask_for_a_gpu(tmp_path):
    project = played_project(tmp_path)
    ran = project.snakemake("-n", "--", "results/ed.json", EDPIPE_DEVICE=None, CUDA_VISIBLE_DEVICES=None)
    asked = {rule for rule, gpus in planned_gpus(ran).items() if gpus == 1}
    teachers = {"train_teacher", "dump_soft_labels", "verify_soft_labels", "evaluate_teacher"}
    assert asked == teachers | {"run_stage", "evaluate"}


def test_one_gpu_is_used_by_one_step_at_a_time(tmp_path):
    notes = play(played_project(tmp_path))
    assert notes.count("begin") == 2
    assert most_at_once(notes) == 1


def test_two_gpus_are_used_by_two_steps_at_a_time(tmp_path):
    notes = play(played_project(tmp_path), "--resources", "gpu=2", wait_for=2)
    assert most_at_once(notes) == 2


def test_threads_of_the_rule_reach_the_step(tmp_path):
    notes = play(played_project(tmp_path, image_size=96), targets=TEACHERS[:1])
    threads = dict(line.split()[1:] for line in notes if line.startswith("threads "))
    assert threads["pack_dataset"] == "8"  # all cores of this workflow
    assert threads["train_teacher"] == "4"


def test_threads_of_the_environment_reach_torch():
    prepare = "from edpipe.runtime.device import prepare_device; prepare_device()"
    program = f"{prepare}; import torch; print(torch.get_num_threads())"
    environment = {name: value for name, value in os.environ.items() if name != "EDPIPE_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "3", done.stderr
