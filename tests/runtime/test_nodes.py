"""Several nodes that train one network: where they meet, how Slurm starts them, and what their ends mean."""

import os
from types import SimpleNamespace

import pytest

from edpipe.cli.main import _is_told_elsewhere
from edpipe.errors import EdpipeError, LostProcessError, TrainingError
from edpipe.runtime import nodes, torchrun
from edpipe.runtime.signals import Interrupted
from edpipe.runtime.threads import num_nodes
from edpipe.runtime.torchrun import is_to_be_shared, run_together


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("EDPIPE_", "SLURM")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("text", ["0", "two", "1025"])
def test_a_wrong_number_of_nodes_is_refused(monkeypatch, text):
    monkeypatch.setenv("EDPIPE_NODES", text)
    with pytest.raises(EdpipeError) as caught:
        is_to_be_shared()
    assert str(caught.value) == f"EDPIPE_NODES='{text}': must be a whole number from 1 to 1024; mend or unset it"


def test_one_process_on_each_of_two_nodes_is_shared_work(monkeypatch):
    assert (num_nodes(), is_to_be_shared()) == (1, False)
    monkeypatch.setenv("EDPIPE_NODES", "2")
    assert (num_nodes(), is_to_be_shared()) == (2, True)


@pytest.mark.parametrize("text", ["node1:29500", "localhost:1", "10.0.0.1:65535", "[fe80::1]:29500"])
def test_where_nodes_meet(monkeypatch, text):
    monkeypatch.setenv("EDPIPE_RENDEZVOUS", text)
    assert nodes.rendezvous() == text


@pytest.mark.parametrize("text", ["node1", "node1:", ":29500", "node1:0", "node1:65536", "node 1:29500", "a:b:1"])
def test_a_wrong_meeting_place_is_refused(monkeypatch, text):
    monkeypatch.setenv("EDPIPE_RENDEZVOUS", text)
    with pytest.raises(EdpipeError) as caught:
        nodes.rendezvous()
    assert str(caught.value) == (
        f"EDPIPE_RENDEZVOUS='{text}': must be the name of the first node and a free port of it, as node1:29500"
    )


def test_several_nodes_without_a_scheduler_must_be_told_where_they_meet(monkeypatch):
    monkeypatch.setenv("EDPIPE_NODES", "2")
    with pytest.raises(EdpipeError) as caught:
        run_together(["run_stage"])
    assert str(caught.value) == (
        "EDPIPE_NODES=2: this is no batch job of Slurm; set EDPIPE_RENDEZVOUS to the first node and a free port of it, "
        "as node1:29500, and call the same on each node"
    )


@pytest.mark.parametrize("told", [{}, {"SLURM_JOB_NUM_NODES": "1"}])
def test_a_batch_job_with_fewer_nodes_is_refused(monkeypatch, told):
    for name, value in {"EDPIPE_NODES": "2", "SLURMD_NODENAME": "node7", **told}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EdpipeError) as caught:
        run_together(["run_stage"])
    assert str(caught.value) == "EDPIPE_NODES=2: the job has 1 node; submit it with --nodes=2"


@pytest.mark.parametrize(("cpus", "option"), [({}, []), ({"SLURM_CPUS_PER_TASK": "4"}, ["--cpus-per-task=4"])])
def test_in_a_batch_job_srun_starts_the_same_on_each_node(monkeypatch, cpus, option):
    told = {"EDPIPE_NODES": "3", "SLURMD_NODENAME": "node7", "SLURM_JOB_NUM_NODES": "4", **cpus}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    called = []

    def become(program, words):
        called.extend([program, words])
        raise SystemExit

    monkeypatch.setattr(os, "execvp", become)
    with pytest.raises(SystemExit):
        run_together(["run_stage", "--seed", "0"])
    program, words = called
    assert program == "srun"
    assert words[:5] == ["srun", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    assert words[5:-6] == option
    assert words[-5:] == ["-m", "edpipe", "run_stage", "--seed", "0"]
    host, _, port = os.environ["EDPIPE_RENDEZVOUS"].partition(":")
    assert host == "node7"
    assert 1024 <= int(port) < 2**16


def ended(**codes):
    """What the launcher raises when processes ended with these codes, in this order."""
    failures = {
        int(name.removeprefix("rank")): SimpleNamespace(exitcode=code, timestamp=number)
        for number, (name, code) in enumerate(codes.items())
    }
    return torchrun._failure(SimpleNamespace(failures=failures), 4)


def test_the_process_that_was_killed_is_named_and_not_those_that_lost_it():
    error = ended(rank0=75, rank3=-9, rank1=75)
    assert isinstance(error, LostProcessError)
    assert str(error) == (
        "process 3 of 4: was killed by signal 9; the others were ended; the same command goes on from the last "
        "checkpoint"
    )


def test_what_the_end_of_a_process_means():
    assert ended(rank2=143, rank0=143).exit_code == Interrupted(15).exit_code == 143
    assert isinstance(ended(rank2=75), LostProcessError)
    mistake = ended(rank1=2, rank0=2)
    assert type(mistake) is TrainingError
    assert str(mistake) == "process 1 of 4: ended with exit code 2; the others were ended"


def test_a_loss_is_told_by_the_launcher_if_it_started_all(monkeypatch):
    lost, wrong = LostProcessError("lost"), TrainingError("wrong")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not _is_told_elsewhere(lost), "the launcher itself"
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert _is_told_elsewhere(wrong), "the first process says the same"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert not _is_told_elsewhere(lost), "nobody on this node sees the other"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert _is_told_elsewhere(lost)
