"""Whole runs under the profile for any scheduler, with a shell as the scheduler."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml
from project import ROOT, make_project, tiny_params

QUEUE = Path(__file__).parents[1] / "support/shell_queue.py"
PROFILE = ("--profile", "workflow/profiles/cluster", "--seconds-between-status-checks", "1")
COSTS = ("started", "seconds", "cost", "machine")
pytestmark = pytest.mark.slow


def queue_project(root, params):
    """A project whose scheduler is a shell."""
    project = make_project(root, params)
    path = project.root / "workflow/profiles/cluster/cluster.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    call = f"{sys.executable} {QUEUE}"
    settings["commands"] |= {"submit": f"{call} submit {{script}} {{output}}", "ask": f"{call} ask {{id}}"}
    settings["commands"] |= {"alive": "RUN", "cancel": f"{call} cancel {{id}}"}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return project


def variables(project, **more):
    return {"EDPIPE_TEST_QUEUE": project.root / ".queue", "EDPIPE_CHECKPOINT_SECONDS": 1, **more}


def tries(project):
    done = project.edpipe("cluster", "--json")
    return [(one["job"].rsplit("-", 1)[0], one["number"], one["state"]) for one in json.loads(done.out)["tries"]]


def long_params(images=20_000):
    """One student that learns for a while, of teachers that take a moment."""
    params = tiny_params()
    params["experiments"] = {
        "ce": {**params["experiments"]["ce"], "stages": {"only": {"images": images, "learning_rate": 0.05}}}
    }
    params["tracked"] = []
    return params


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Everything of the tiny project, once under the queue."""
    project = queue_project(tmp_path_factory.mktemp("queue") / "project", tiny_params())
    done = project.run("snakemake", *PROFILE, "results/ed.json", **variables(project))
    assert done.rc == 0, done.text
    return project


def test_every_job_but_short_ones_is_submitted_and_ends_well(finished):
    found = tries(finished)
    assert {state for _, _, state in found} == {"done"}
    assert {number for _, number, _ in found} == {1}
    steps = {job.split("-")[0] for job, _, _ in found}
    assert steps == {
        "pack_dataset",
        "train_teacher",
        "dump_soft_labels",
        "verify_soft_labels",
        "evaluate_teacher",
        "run_stage",
        "evaluate",
    }


def test_weights_and_logits_are_those_of_a_local_run(finished, tmp_path):
    local = make_project(tmp_path / "local", tiny_params())
    assert local.snakemake("results/ed.json").rc == 0
    names = [name for name in local.files("artifacts") if name.endswith((".safetensors", ".h5"))]
    assert len(names) > 5
    for name in names:
        assert (finished.root / name).read_bytes() == (local.root / name).read_bytes(), name
    assert local.snakemake("-n", "results/ed.json").rc == 0


def test_what_a_cluster_made_is_cached_here(finished):
    done = finished.snakemake("-n", "results/ed.json")
    assert "Nothing to be done" in done.text


def test_a_job_that_cannot_succeed_is_not_tried_again(tmp_path):
    project = queue_project(tmp_path / "project", tiny_params())
    done = project.run("snakemake", *PROFILE, "results/ce.json", **variables(project, EDPIPE_DEVICE="cuda:7"))
    assert done.rc == 1
    assert ("run_stage-ce-0-1-only", 1, "cannot succeed") in tries(project)
    assert "EDPIPE_DEVICE='cuda:7'" in done.text
    assert "cannot succeed; its log says what to mend; then call snakemake again" in done.text


def wait_for(path, process, longest_s=240):
    until_s = time.monotonic() + longest_s
    while not any(path()):
        assert process.poll() is None
        assert time.monotonic() < until_s
        time.sleep(0.1)


def started(project, process):
    """Waits until the student learns; gives the processes of the job."""
    log = project.root / "logs/run_stage/ce-seed0-1_only.log"
    folder = project.root / "artifacts/students/ce/seed0"
    wait_for(lambda: folder.glob(".resume/**/*"), process)
    return log


def learning(project):
    """Processes of the step that trains."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
            inside = Path(os.readlink(entry.with_name("cwd"))) == project.root
        except OSError:
            continue
        if inside and b"run_stage" in words and b"--experiment" in words and b"sh" not in words:
            found.append(int(entry.parent.name))
    return found


def test_a_job_that_vanishes_is_tried_again_and_goes_on(tmp_path):
    project = queue_project(tmp_path / "project", long_params())
    process = project.start("snakemake", *PROFILE, "results/ce.json", **variables(project))
    started(project, process)
    group = int((project.root / ".queue/2.pid").read_text())
    os.killpg(group, signal.SIGKILL)
    assert process.wait(400) == 0, (project.root / "snakemake.out").read_text()
    states = [state for job, _, state in tries(project) if job.startswith("run_stage")]
    assert states == ["gone without a word", "done"]
    assert "goes on after iteration" in (project.root / "logs/run_stage/ce-seed0-1_only.log").read_text()


def test_the_end_of_snakemake_ends_its_jobs_after_a_checkpoint(tmp_path):
    project = queue_project(tmp_path / "project", long_params())
    process = project.start("snakemake", *PROFILE, "results/ce.json", **variables(project))
    started(project, process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(120) != 0
    until_s = time.monotonic() + 60
    while learning(project) and time.monotonic() < until_s:
        time.sleep(0.2)
    assert not learning(project)
    assert "the same command goes on from there" in (project.root / "logs/run_stage/ce-seed0-1_only.log").read_text()
    done = project.run("snakemake", *PROFILE, "results/ce.json", **variables(project))
    assert done.rc == 0, done.text
    assert "goes on after iteration" in (project.root / "logs/run_stage/ce-seed0-1_only.log").read_text()


def test_a_job_that_outlives_its_snakemake_is_taken_over(tmp_path):
    project = queue_project(tmp_path / "project", long_params(120_000))
    process = project.start("snakemake", *PROFILE, "results/ce.json", **variables(project))
    started(project, process)
    assert len(learning(project)) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    project.run("snakemake", "--unlock")
    done = project.run("snakemake", *PROFILE, "results/ce.json", **variables(project))
    assert done.rc == 0, done.text
    assert [state for job, _, state in tries(project) if job.startswith("run_stage")] == ["done"]
    assert "goes on after iteration" not in (project.root / "logs/run_stage/ce-seed0-1_only.log").read_text()


def test_a_group_is_one_job(tmp_path):
    project = queue_project(tmp_path / "project", tiny_params())
    words = ("results/ed.json", "--groups", "evaluate_teacher=measure", "--group-components", "measure=4")
    done = project.run("snakemake", *PROFILE, *words, **variables(project))
    assert done.rc == 0, done.text
    assert [job for job, _, _ in tries(project) if job.startswith("measure")] == ["measure"]
    assert not [job for job, _, _ in tries(project) if job.startswith("evaluate_teacher")]


def test_the_shipped_profiles_are_those_of_new_projects():
    template = ROOT / "edpipe/pipeline/project/templates/workflow/profiles"
    for path in template.rglob("*.yaml"):
        assert path.read_text() == (ROOT / "workflow/profiles" / path.relative_to(template)).read_text()
