"""What runs on a node: it ends as the script ends, says so, and passes signals on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from edpipe.pipeline.cluster.request import Request
from edpipe.pipeline.cluster.submitted_job import SubmittedJob, read_job
from edpipe.runtime.exit_codes import EXIT_CODES, tell_exit_code, told_exit_codes


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Starts the job of a folder whose script has these lines."""
    monkeypatch.chdir(tmp_path)
    request = Request("job-1", "job", (), "", 1, 0, 1, 1, 1)

    def start(lines, **environment):
        job = SubmittedJob(request, {}, {"EDPIPE_TOLD": "yes"})
        job.write()
        job.jobscript.write_text(f"#!/bin/sh\n{lines}\n")
        words = [sys.executable, "-P", "-m", "edpipe.pipeline.cluster.node", str(job.folder.absolute())]
        return subprocess.Popen(words, env=os.environ | environment), job

    return start


@pytest.mark.slow
def test_it_says_how_the_script_ended(run, tmp_path):
    process, job = run('echo "$EDPIPE_TOLD" > told; echo 2 >> "$EDPIPE_EXIT_CODES"; exit 3')
    assert process.wait(60) == 3
    end = job.end()
    assert (end.code, end.step_codes) == (3, (2,))
    assert end.begun_s <= end.ended_s
    assert (tmp_path / "told").read_text() == "yes\n"


@pytest.mark.slow
def test_signals_reach_all_processes_of_the_job(run, tmp_path):
    step = "import signal,sys,time;signal.signal(15,lambda *a:sys.exit(143));open('ready','w').close();time.sleep(60)"
    process, job = run(f'{sys.executable} -c "{step}"')
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert job.end().code == 143


@pytest.mark.slow
def test_a_script_that_is_killed_ends_with_its_signal(run):
    process, job = run("kill -9 $$")
    assert process.wait(60) == 137
    assert job.end().code == 137


def test_a_folder_without_a_job_is_one_line(tmp_path, monkeypatch, capsys):
    from edpipe.pipeline.cluster.node import run as run_here

    monkeypatch.chdir(tmp_path)
    assert run_here(tmp_path / "nothing") == 2
    assert capsys.readouterr().err == f"edpipe: {tmp_path / 'nothing'}: holds no job; call snakemake again\n"
    assert read_job("nothing") is None


def test_exit_codes_are_told_where_that_is_wanted(tmp_path, monkeypatch):
    path = tmp_path / "codes"
    tell_exit_code(2)
    monkeypatch.setenv(EXIT_CODES, str(path))
    assert told_exit_codes(path) == []
    for code in (2, 0, 143):
        tell_exit_code(code)
    assert told_exit_codes(path) == [2, 143]
    path.write_text("2\nx\n")
    assert told_exit_codes(path) == [2]
