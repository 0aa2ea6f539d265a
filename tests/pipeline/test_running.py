"""Who is at work in a folder, and with which knobs."""

import json
import os
import socket
import subprocess

import psutil
import pytest

from edpipe.errors import BusyError, MismatchError
from edpipe.params.load import load_params
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.students import run_stage
from edpipe.pipeline.state import running


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job of params.yaml, in an empty folder."""
    params = load_params()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(running.KNOBS, raising=False)
    return run_stage(params, "digits_ed", 0, "middle")


def write_run(job, **facts):
    """The file of another process that makes the outputs of a job."""
    told = {"host": socket.gethostname(), "pid": 1, "began_s": psutil.Process(1).create_time()}
    told |= {"outputs": [str(path) for path in job.outputs], "knobs": {str(job.outputs[0]): json.loads(job.knobs_text)}}
    paths.RUNS.mkdir(parents=True, exist_ok=True)
    (paths.RUNS / "other.json").write_text(json.dumps(told | facts))


def test_a_process_says_what_it_makes_and_takes_that_back(job):
    running.announce_run([job])
    [run] = running.all_runs()
    assert run.outputs == set(map(str, job.outputs))
    assert running.other_runs() == []
    running._remove_own(run.path, os.getpid() + 1)
    assert run.path.exists(), "a fork leaves the file alone"
    running._remove_own(run.path, os.getpid())
    assert running.all_runs() == []


def test_files_of_processes_that_are_gone_are_removed(job):
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    write_run(job, pid=dead.pid)
    assert running.other_runs() == []
    write_run(job, began_s=psutil.Process(1).create_time() - 60)
    assert running.other_runs() == [], "the number was given to another process"
    (paths.RUNS / "other.json").write_text("{")
    assert running.other_runs() == []
    assert list(paths.RUNS.iterdir()) == []


@pytest.mark.parametrize("facts", [{}, {"host": "elsewhere", "pid": 10**8}])
def test_dvc_is_told_which_snakemake_is_at_work(job, facts):
    write_run(job, **facts)
    words = (
        r"^snakemake is at work in this folder \(process \d+ on \S+\); wait for its end, then call dvc again; if there"
    )
    with pytest.raises(BusyError, match=words + r" is no such process, delete .edpipe/runs/other.json$"):
        running.refuse_beside_snakemake()


def test_a_job_takes_the_knobs_that_it_was_told_and_no_others(job, monkeypatch):
    running.refuse_other_knobs(job)
    monkeypatch.setenv(running.KNOBS, running.knobs_digest(job))
    running.refuse_other_knobs(job)
    knobs = json.loads(job.knobs_text)
    knobs["plan"]["budget"]["learning_rate"] = 9.5
    write_run(job, knobs={str(job.outputs[0]): knobs})
    told = running.knobs_digest_at_start(job)
    assert told != running.knobs_digest(job)
    monkeypatch.setenv(running.KNOBS, told)
    line = (
        r"^params.yaml was edited since this run began \(knob plan.budget.learning_rate 9.5 → .*\); call `snakemake` "
    )
    with pytest.raises(MismatchError, match=line + "again$"):
        running.refuse_other_knobs(job)
    (paths.RUNS / "other.json").unlink()
    with pytest.raises(MismatchError, match=r"^params.yaml was edited since this run began; call `snakemake` again$"):
        running.refuse_other_knobs(job)


def test_knobs_at_the_start_of_a_run_are_those_of_today_where_nobody_runs(job):
    assert running.knobs_digest_at_start(job) == running.knobs_digest(job)
    write_run(job)
    assert running.knobs_digest_at_start(job) == running.knobs_digest(job)


def test_knobs_edited_during_a_step_of_dvc_are_refused(job):
    running.refuse_edited_knobs(job, job)
    other = run_stage(load_params_of_root(), "digits_ed", 0, "primary")
    with pytest.raises(
        MismatchError, match=r"^params.yaml was edited while this step ran \(knob .*\); DVC does not keep"
    ):
        running.refuse_edited_knobs(job, other)


def load_params_of_root():
    from project import ROOT

    return load_params(ROOT / "params.yaml")
