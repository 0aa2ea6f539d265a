"""Several processes train one student; one is killed, the job ends at once, and the same command ends with equal bytes.

On one machine torch's launcher starts the processes. Two nodes are two launchers on this machine, which a stand-in for
`srun` starts and which meet on the loopback network.
"""

import os
import signal
import time
from contextlib import chdir
from pathlib import Path

import psutil
import pytest
import stand_in_srun
from project import make_project, tiny_params
from watching import running_in, wait_until

from edpipe.errors import EXIT_LATER
from edpipe.pipeline.state.artifact_lock import only_maker
from edpipe.storage.digests import digest_file

pytestmark = pytest.mark.slow

STAGE = ("run_stage", "--experiment", "ce", "--seed", "0", "--stage", "only")
STUDENT = "artifacts/students/ce/seed0/1_only"
NUM_IMAGES = 40 * 32
SECONDS = 30
"""So soon a job ends after a kill; on an idle machine it is five."""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    params = tiny_params()
    params["experiments"]["ce"]["stages"]["only"]["images"] = NUM_IMAGES
    project = make_project(tmp_path_factory.mktemp("ranks") / "project", params)
    stand_in_srun.install(project.root / "bin")
    assert project.edpipe_here("pack_dataset", "--dataset", "digits").rc == 0
    assert project.edpipe_here("partition_dataset", "--dataset", "digits", "--partition", "halves").rc == 0
    return project


def variables(project, where):
    """Two processes, on one node or on two."""
    common = {"EDPIPE_CHECKPOINT_SECONDS": "0"}
    if where == "one node":
        return common | {"EDPIPE_PROCESSES": "2", "EDPIPE_THREADS": "2"}
    slurm = {"SLURMD_NODENAME": "localhost", "SLURM_JOB_NUM_NODES": "2"}
    return common | slurm | {"EDPIPE_NODES": "2", "PATH": f"{project.root / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def digests(project):
    return [digest_file(project.root / f"{STUDENT}.{end}") for end in ("safetensors", "json")]


@pytest.fixture(scope="module")
def undisturbed(project):
    ran = project.edpipe(*STAGE, **variables(project, "one node"))
    assert ran.rc == 0, ran.text
    made = digests(project)
    forget(project)
    return made


def forget(project):
    for path in (project.root / STUDENT).parent.iterdir():
        path.unlink()


def started_by(process, depth):
    """Processes so many generations below this one."""
    found = [psutil.Process(process.pid)]
    for _ in range(depth):
        found = [child for one in found for child in one.children()]
    return found


def victim_of(job, where, who):
    """The process to kill: the last rank, or its launcher. With `srun` there is one generation more."""
    depth = (who == "rank") + (where == "two nodes")
    return started_by(job, depth)[-1]


def said(project):
    """By the job, or by each node."""
    files = [project.root / name for name in ("edpipe.out", "node0", "node1")]
    text = "".join(path.read_text(encoding="utf-8") for path in files if path.exists())
    return [line for line in text.replace("\r", "\n").splitlines() if line.startswith("edpipe: ")]


def test_a_stage_that_another_process_makes_is_refused_for_now(project):
    with chdir(project.root), only_maker(Path(f"{STUDENT}.safetensors")):
        ran = project.edpipe_here(*STAGE)
    assert ran.rc == EXIT_LATER
    assert ran.err.startswith(f"edpipe: {STUDENT}.safetensors: process {os.getpid()} on ")
    assert ran.err.count("\n") == 1
    assert not (project.root / f"{STUDENT}.safetensors").exists()


@pytest.mark.parametrize(
    ("where", "who", "code"), [("one node", "rank", 75), ("two nodes", "rank", 75), ("one node", "launcher", -9)]
)
def test_a_killed_process_ends_the_job_which_then_goes_on(project, undisturbed, where, who, code):
    job = project.start("edpipe", *STAGE, **variables(project, where))
    checkpoints = project.root / "artifacts/students/ce/seed0/.resume"
    assert wait_until(job, lambda: len(list(checkpoints.rglob("*.safetensors"))) == 2)
    victim_of(job, where, who).send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    assert job.wait(SECONDS) == code
    assert wait_until_nobody_is_left(project) - killed_s < SECONDS
    assert not (project.root / f"{STUDENT}.safetensors").exists()
    check_said(said(project), where, who)
    again = project.edpipe(*STAGE, **variables(project, where))
    assert again.rc == 0, again.text
    told = again.text if where == "one node" else (project.root / "node0").read_text(encoding="utf-8")
    told += "" if where == "one node" else (project.root / "node1").read_text(encoding="utf-8")
    assert told.count("goes on after iteration") == 1
    assert digests(project) == undisturbed
    forget(project)


def wait_until_nobody_is_left(project):
    """When no process of the job was left."""
    deadline = time.monotonic() + SECONDS
    while running_in(project.root) and time.monotonic() < deadline:
        time.sleep(0.05)
    return time.monotonic()


def check_said(lines, where, who):
    """One line for each node that is still there to say it, and one of the first process if it is on another node."""
    killed = [line for line in lines if "was killed by signal 9; the others were ended" in line]
    assert len(killed) == (who == "rank"), lines
    if where == "one node":
        assert len(lines) == (who == "rank"), lines
    else:
        assert 2 <= len(lines) <= 4, lines
        assert all("goes on from the last checkpoint" in line for line in lines), lines
