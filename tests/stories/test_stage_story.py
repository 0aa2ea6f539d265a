"""Jobs of a running workflow that are asked to end write a checkpoint, and whoever runs them next goes on from it."""

import os
import signal
import time

import psutil
import pytest
from project import copy_of, tiny_params
from watching import TIMEOUT_S, running_in, wait_until

from edpipe.storage.records import record_path

pytestmark = pytest.mark.slow
TARGET = "artifacts/students/ed/seed0/2_middle.safetensors"
FIRST = "artifacts/students/ed/seed0/1_primary.safetensors"


@pytest.fixture(scope="module")
def project(finished_project, tmp_path_factory):
    """All is made but the stages of ed, the first of which takes seconds."""
    project = copy_of(finished_project, tmp_path_factory.mktemp("story") / "project")
    params = tiny_params()
    params["experiments"]["ed"]["stages"] = {"primary": {"images": 6400}, "middle": {"images": 64}}
    project.write_params(params)
    return project


@pytest.fixture(scope="module")
def expected(project):
    """What the stages make when nothing disturbs them."""
    for stage in ("primary", "middle"):
        ran = project.edpipe("run_stage", "--experiment", "ed", "--seed", "0", "--stage", stage)
        assert ran.rc == 0, ran.text
    found = contents(project)
    for name in found:
        (project.root / name).unlink()
    return found


def contents(project):
    paths = [project.root / name for name in (FIRST, TARGET)]
    names = [path.relative_to(project.root) for weights in paths for path in (weights, record_path(weights))]
    return {name: (project.root / name).read_bytes() for name in names if (project.root / name).exists()}


def checkpoints(project):
    return sorted((project.root / FIRST).parent.glob(".resume/1_primary/*/[!.]*"))


def start(project, *arguments):
    """Snakemake, once its first stage has written another checkpoint."""
    before = checkpoints(project)
    process = project.start("snakemake", "--cores", "1", *arguments, "--", TARGET, EDPIPE_CHECKPOINT_SECONDS="0.1")
    assert wait_until(process, lambda: checkpoints(project)[-1:] != before[-1:])
    return process


def said(project):
    log = project.root / "logs/run_stage/ed-seed0-1_primary.log"
    return [line for line in log.read_text(encoding="utf-8").splitlines() if "images/s" not in line]


def job_of(process):
    """The command of the stage that is running."""
    children = psutil.Process(process.pid).children(recursive=True)
    [job] = [child for child in children if child.name() == "edpipe" and not child.children()]
    return job


def wait_for_the_last(project):
    """Until no process of the folder is left."""
    deadline = time.monotonic() + TIMEOUT_S
    while running_in(project.root):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupt_workflow(process):
    """Ctrl-C at a terminal."""
    os.killpg(process.pid, signal.SIGINT)


def end_workflow(process):
    process.terminate()


def end_whole_group(process):
    """As a scheduler or a service manager does it."""
    os.killpg(process.pid, signal.SIGTERM)


def test_a_workflow_that_is_asked_to_end_goes_on_inside_the_stage_when_it_is_called_again(project, expected):
    last = 0
    for end in (interrupt_workflow, end_workflow, end_whole_group):
        process = start(project)
        end(process)
        assert process.wait(TIMEOUT_S) == 1
        wait_for_the_last(project)
        assert contents(project) == {}
        assert said(project)[-1] == "edpipe: interrupted; what is finished is kept, the same command goes on from there"
        iteration = int(checkpoints(project)[-1].name[:10])
        assert iteration > last
        last = iteration
    process = start(project, "--retries", "1")
    job_of(process).terminate()
    assert process.wait(TIMEOUT_S) == 0
    assert "goes on after iteration" in said(project)[0]
    assert contents(project) == expected
    assert checkpoints(project) == []
