"""A real Slurm on loopback, without accounting: a whole school, and jobs that fail, are cancelled, run out of time, …

`make test-slurm` installs Debian's Slurm and runs these; without EDPIPE_TEST_SLURM=1 they are skipped.
"""

import json
import os
import signal
import subprocess
import time

import pytest
import yaml
from project import make_project, tiny_params
from slurm_cluster import can_start, slurm, wait_until_ready

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("EDPIPE_TEST_SLURM") != "1", reason="`make test-slurm` runs these"),
]
PROFILE = ("--profile", "workflow/profiles/slurm", "--seconds-between-status-checks", "1")
LONGEST_S = 600
LOG = "logs/run_stage/ce-seed0-1_only.log"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    assert can_start(), "these tests need root, slurm-wlm and munge, and a machine without a Slurm of its own"
    with slurm(tmp_path_factory.mktemp("slurm")) as name:
        yield name


@pytest.fixture(scope="module", autouse=True)
def table():
    """At the end: how each try of each job ended, by test."""
    lines = []
    yield lines
    print("\n" + "\n".join(lines))


@pytest.fixture
def told(table, request):
    """Adds the tries of a project to the table."""

    def tell(project):
        found = tries(project)
        table.extend(f"{request.node.name[5:]:58} {job:44} {number} {state}" for job, number, state in found)
        return found

    return tell


def tries(project):
    done = project.edpipe("cluster", "--json")
    return [(one["job"].rsplit("-", 1)[0], one["number"], one["state"]) for one in json.loads(done.out)["tries"]]


def stage_states(found):
    return [state for job, _, state in found if job.startswith("run_stage")]


def student_project(root, images=25_000, **limits):
    """One student without a teacher; on the cluster as a job that asks for a GPU."""
    params = tiny_params()
    stage = {"images": images, "learning_rate": 0.05}
    params["experiments"] = {"ce": {**params["experiments"]["ce"], "stages": {"only": stage}}}
    params["tracked"] = []
    project = make_project(root, params)
    path = project.root / "workflow/profiles/slurm/cluster.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["steps"] = {"run_stage": {"mem_mb": 2000, **limits}, "pack_dataset": {"cpus": 1}}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return project


def start(project, **variables):
    return project.start("snakemake", *PROFILE, "results/ce.json", EDPIPE_CHECKPOINT_SECONDS=1, **variables)


def control(*words):
    subprocess.run(words, check=True, capture_output=True)


def squeue(*words):
    return subprocess.run(["squeue", "-h", *words], check=True, capture_output=True, text=True).stdout.split()


def learning(project, process):
    """Waits until the student has a checkpoint; gives Slurm's id of its job."""
    until_s = time.monotonic() + LONGEST_S
    while not list((project.root / "artifacts/students/ce/seed0").glob(".resume/**/*")):
        assert process.poll() is None, (project.root / "snakemake.out").read_text()
        assert time.monotonic() < until_s
        time.sleep(0.2)
    path = next((project.root / ".snakemake/edpipe_cluster").glob("run_stage-*/job.json"))
    return json.loads(path.read_text())["tries"][-1]["id"]


def finished(project, process):
    """Waits for a run that ends well, and whose student went on from a checkpoint."""
    assert process.wait(LONGEST_S) == 0, (project.root / "snakemake.out").read_text()
    return "goes on after iteration" in (project.root / LOG).read_text()


def test_a_whole_school_has_the_bytes_of_a_local_run(node, tmp_path, told):
    project, local = make_project(tmp_path / "slurm", tiny_params()), make_project(tmp_path / "local", tiny_params())
    done = project.run("snakemake", *PROFILE, "results/ed.json")
    assert done.rc == 0, done.text
    assert {state for _, _, state in told(project)} == {"done"}
    assert local.snakemake("results/ed.json").rc == 0
    names = [name for name in local.files("artifacts") if name.endswith((".safetensors", ".h5"))]
    for name in names:
        assert (project.root / name).read_bytes() == (local.root / name).read_bytes(), name


def test_two_jobs_that_ask_for_a_gpu_run_at_once_where_there_are_two(node, tmp_path, told):
    params = tiny_params()
    stage = {"images": 20_000, "learning_rate": 0.05}
    params["experiments"] = {"ce": {**params["experiments"]["ce"], "seeds": [0, 1, 2], "stages": {"only": stage}}}
    params["tracked"] = []
    project = make_project(tmp_path / "project", params)
    process = project.start("snakemake", *PROFILE, "results/ce.json", EDPIPE_DEVICE=None)
    at_once = 0
    while process.poll() is None:
        asked = squeue("--states=RUNNING", "--format=%b")
        at_once = max(at_once, sum("gpu" in word for word in asked))
        time.sleep(0.5)
    assert process.wait() == 0, (project.root / "snakemake.out").read_text()
    told(project)
    assert at_once == 2


def test_a_job_that_cannot_succeed_is_tried_once(node, tmp_path, told):
    project = student_project(tmp_path / "project")
    process = start(project, EDPIPE_DEVICE="cuda:7")
    assert process.wait(LONGEST_S) == 1
    assert stage_states(told(project)) == ["cannot succeed (FAILED)"]


def test_a_job_that_is_cancelled_is_seen_and_not_tried_again(node, tmp_path, told):
    project = student_project(tmp_path / "project")
    process = start(project)
    control("scancel", learning(project, process))
    assert process.wait(LONGEST_S) == 1
    assert stage_states(told(project)) == ["cancelled (CANCELLED)"]
    assert "call snakemake again to go on from its last checkpoint" in (project.root / "snakemake.out").read_text()
    assert finished(project, start(project))


def test_a_job_that_runs_out_of_time_is_tried_again_and_goes_on(node, tmp_path, told):
    project = student_project(tmp_path / "project", images=400_000, minutes=1)
    process = start(project)
    first = learning(project, process)
    until_s = time.monotonic() + LONGEST_S
    while first in squeue("--format=%A") and time.monotonic() < until_s:
        time.sleep(1)
    for path in (project.root / ".snakemake/edpipe_cluster").glob("run_stage-*/job.json"):
        job = json.loads(path.read_text())
        if len(job["tries"]) > 1:
            control("scontrol", "update", f"jobid={job['tries'][-1]['id']}", "timelimit=60")
    process.wait(LONGEST_S)
    found = stage_states(told(project))
    assert found[0] == "out of time (TIMEOUT)"
    assert len(found) > 1
    assert "goes on after iteration" in (project.root / LOG).read_text()


def test_a_job_that_slurm_starts_again_goes_on(node, tmp_path, told):
    project = student_project(tmp_path / "project")
    process = start(project)
    control("scontrol", "requeue", learning(project, process))
    assert finished(project, process)
    assert stage_states(told(project)) == ["done"]


def test_a_job_that_is_preempted_is_tried_again_and_goes_on(node, tmp_path, told):
    project = student_project(tmp_path / "project")
    process = start(project)
    learning(project, process)
    control("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 5")
    assert finished(project, process)
    assert stage_states(told(project)) in (["preempted (PREEMPTED)", "done"], ["done"])


def test_a_job_whose_node_is_lost_goes_on(node, tmp_path, told):
    project = student_project(tmp_path / "project")
    process = start(project)
    learning(project, process)
    control("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    time.sleep(5)
    wait_until_ready(node)
    assert finished(project, process)
    assert stage_states(told(project))[-1] == "done"


def test_jobs_wait_while_the_node_is_drained(node, tmp_path, told):
    project = student_project(tmp_path / "project", images=2_000)
    control("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    process = start(project)
    time.sleep(20)
    assert process.poll() is None
    assert squeue("--format=%T") == ["PENDING"]
    wait_until_ready(node)
    assert process.wait(LONGEST_S) == 0
    assert stage_states(told(project)) == ["done"]


def test_ctrl_c_cancels_the_jobs_and_the_same_command_goes_on(node, tmp_path, told):
    project = student_project(tmp_path / "project")
    process = start(project)
    learning(project, process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(120) != 0
    until_s = time.monotonic() + 60
    while squeue("--format=%A") and time.monotonic() < until_s:
        time.sleep(0.5)
    assert squeue("--format=%A") == []
    assert finished(project, start(project))
    told(project)


def test_a_job_that_outlives_its_snakemake_is_taken_over(node, tmp_path, told):
    project = student_project(tmp_path / "project", images=120_000)  # it still runs when the second Snakemake comes
    process = start(project)
    number = learning(project, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    project.run("snakemake", "--unlock")
    assert not finished(project, start(project))
    assert stage_states(told(project)) == ["done"]
    assert number in (project.root / ".snakemake/edpipe_cluster").glob("run_stage-*/job.json").__next__().read_text()
