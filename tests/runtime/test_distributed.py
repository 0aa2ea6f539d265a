"""Several processes that train one network: the same mathematics as one, and none of them waits for a lost one."""

import os
import tempfile
from contextlib import closing

import pytest
import torch
from distributed_runs import Runs
from hypothesis import given
from hypothesis import strategies as st
from small_world import make_world
from torch import nn

from edpipe.errors import EXIT_LATER, EdpipeError, LostProcessError, TrainingError
from edpipe.params.stage import StageKnobs
from edpipe.runtime.distributed import ALONE, Group, SynchronisedBatchNorm
from edpipe.runtime.threads import by_default, num_started, num_threads
from edpipe.runtime.torchrun import is_to_be_shared, run_together
from edpipe.steps.run_stage import open_start
from edpipe.storage.digests import digest_file
from edpipe.storage.records import read_record, record_path
from edpipe.storage.weights import read_weights
from edpipe.training.stage.student import weights_to_keep


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), per_class=29)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, world):
    # 290 samples: batches of 32 for 13 iterations, a last one of 2.
    with closing(Runs(tmp_path_factory.mktemp("runs"), *stage_of(world, images=418))) as runs:
        yield runs


def stage_of(world, images):
    teacher = world.teacher()
    return world.stage([teacher], world.store(teacher), budget=StageKnobs(images=images, learning_rate=0.05))


@pytest.fixture(scope="module")
def undisturbed(runs):
    """Two processes, to the end."""
    assert [code for code, _ in runs.run("two 2")] == [0, 0]
    return digest_file(runs.weights("two"))


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(runs, undisturbed):
    assert [code for code, _ in runs.run("one 1")] == [0]
    one, two, other = runs.losses("one"), runs.losses("two"), runs.losses("two", rank=1)
    assert len(one) == 14
    assert two == other
    assert one.keys() == two.keys()
    assert list(two.values()) == pytest.approx(list(one.values()), rel=2e-3)
    assert list(two.values())[:3] == pytest.approx(list(one.values())[:3], rel=1e-5)
    alike = {name: read_record(record_path(runs.weights(name))) for name in ("one", "two")}
    first = [record.pop("first_losses") for record in alike.values()]
    assert first[0] == pytest.approx(first[1], rel=2e-3)
    for record in alike.values():
        record.pop("final_loss"), record.pop("weights_digest")
    assert alike["one"] == alike["two"]


@pytest.mark.slow
def test_after_one_iteration_two_processes_have_the_weights_of_one(tmp_path, world):
    knobs, files = stage_of(world, images=32)
    start = open_start(0, knobs, files, torch.device("cpu"))
    before = {name: value.clone() for name, value in weights_to_keep(knobs.plan, start.student, start.trainee).items()}
    with closing(Runs(tmp_path, knobs, files)) as runs:
        assert [code for order in ("one 1", "two 2") for code, _ in runs.run(order)] == [0, 0, 0]
        one, two = (read_weights(runs.weights(name))[0] for name in ("one", "two"))
        assert set(runs.losses("one")) == {1}
    assert one.keys() == two.keys() == before.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text)
    assert max(float((one[name] - before[name]).abs().max()) for name in one) > 1e-2, "it has learnt something"


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other_and_the_run_resumes(runs, undisturbed, lost):
    ends = runs.run(f"lost{lost} 2 kill {lost} 5")
    assert ends[lost][0] == -9
    code, said = ends[1 - lost]
    assert code == EXIT_LATER
    assert said.splitlines()[-1] == (
        f"edpipe: stage: process {1 - lost} of 2: lost another process, which was killed or cannot be reached; the "
        "same command goes on from the last checkpoint; the last good checkpoint is " + said.split()[-1]
    )
    assert "Traceback" not in said
    assert not runs.weights(f"lost{lost}").exists()
    again = runs.run(f"lost{lost} 2")
    assert [code for code, _ in again] == [0, 0]
    assert "goes on after iteration" in again[0][1]
    assert again[1][1] == ""
    assert digest_file(runs.weights(f"lost{lost}")) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_process_ends_all_after_the_same_iteration(runs, undisturbed, told):
    ends = runs.run(f"term{told} 2 term {told} 5")
    assert [code for code, _ in ends] == [143, 143]
    assert max(runs.losses(f"term{told}")) == max(runs.losses(f"term{told}", rank=1)) == 5
    assert [code for code, _ in runs.run(f"term{told} 2")] == [0, 0]
    assert digest_file(runs.weights(f"term{told}")) == undisturbed


@pytest.mark.slow
def test_more_processes_than_samples_in_the_last_batch(runs):
    assert [code for code, _ in runs.run("three 3")] == [0, 0, 0]
    assert list(runs.losses("three").values()) == pytest.approx(list(runs.losses("one").values()), rel=2e-3)


@given(st.integers(0, 100), st.integers(0, 50), st.integers(1, 9))
def test_parts_are_the_whole_and_nearly_equal(start, count, size):
    parts = [Group(rank, size).part(start, start + count) for rank in range(size)]
    assert [i for first, last in parts for i in range(first, last)] == list(range(start, start + count))
    assert max(b - a for a, b in parts) - min(b - a for a, b in parts) <= 1


def test_a_process_alone_exchanges_nothing():
    network = nn.BatchNorm2d(3)
    assert ALONE.wrap(network) is network
    assert ALONE.add_up(torch.tensor([2.0])).tolist() == [2.0]
    assert (ALONE.any(True), ALONE.any(False), ALONE.is_main) == (True, False, True)
    ALONE.check_alike("iteration", 3)
    with pytest.raises(RuntimeError, match="gloo"), ALONE.meeting():
        raise RuntimeError("gloo is what it says, but nobody else is here")


def test_only_lost_contact_is_taken_for_it():
    with pytest.raises(LostProcessError, match="process 1 of 2: lost another process"), Group(1, 2).meeting():
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242")
    with pytest.raises(RuntimeError, match="shapes"), Group(1, 2).meeting():
        raise RuntimeError("shapes do not fit")


def test_the_layer_for_cpus_measures_as_torchs_does(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: None)
    images = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)).mul_(3).add_(5)
    theirs, ours = nn.BatchNorm2d(3), SynchronisedBatchNorm(nn.BatchNorm2d(3))
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    for layer, own in zip((theirs, ours), inputs, strict=True):
        (layer(own) ** 3).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-3, atol=1e-3)
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(value, ours.state_dict()[name])
    torch.testing.assert_close(theirs.eval()(images), ours.eval()(images))
    assert ours.train()(images.bfloat16()).dtype == torch.bfloat16


class OtherNorm(nn.BatchNorm2d):
    pass


def test_a_layer_that_cannot_be_synchronised_is_refused():
    with pytest.raises(TrainingError) as caught:
        Group(0, 2).wrap(nn.Sequential(OtherNorm(3)))
    assert str(caught.value) == (
        "OtherNorm: several processes on CPUs train networks with BatchNorm1d and BatchNorm2d only; unset "
        "EDPIPE_PROCESSES, or use GPUs"
    )


@pytest.mark.parametrize("text", ["0", "two", "-1", "2.0", "5000"])
def test_a_wrong_number_of_processes_is_refused(monkeypatch, text):
    monkeypatch.setenv("EDPIPE_PROCESSES", text)
    with pytest.raises(EdpipeError) as caught:
        is_to_be_shared()
    assert str(caught.value) == f"EDPIPE_PROCESSES='{text}': must be a whole number from 1 to 1024; mend or unset it"


def test_processes_are_started_once(monkeypatch):
    monkeypatch.delenv("EDPIPE_PROCESSES", raising=False)
    assert not is_to_be_shared()
    monkeypatch.setenv("EDPIPE_PROCESSES", "2")
    assert is_to_be_shared()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_to_be_shared()


def test_more_processes_than_threads_are_refused(monkeypatch):
    monkeypatch.setenv("EDPIPE_PROCESSES", "2")
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    with pytest.raises(EdpipeError) as caught:
        run_together(["run_stage"])
    assert str(caught.value) == (
        "EDPIPE_PROCESSES=2: more than the 1 threads that this job has; give it more threads (EDPIPE_THREADS), or "
        "fewer processes"
    )


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_a_single_gpu_for_several_processes_is_refused(monkeypatch, device):
    monkeypatch.setenv("EDPIPE_PROCESSES", "2")
    monkeypatch.setenv("EDPIPE_DEVICE", device)
    with pytest.raises(EdpipeError) as caught:
        run_together(["run_stage"])
    assert str(caught.value) == (
        f"EDPIPE_DEVICE='{device}': 2 processes need as many GPUs; use cuda or cpu, leave it unset, or set "
        "EDPIPE_PROCESSES=1"
    )


def test_a_wrong_world_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "abc")
    with pytest.raises(EdpipeError, match=r"^WORLD_SIZE='abc': must be a whole number"):
        num_started()


def test_threads_are_those_of_the_job_where_nothing_else_is_said(monkeypatch):
    for name in ("EDPIPE_THREADS", "OMP_NUM_THREADS", "EDPIPE_PROCESSES"):
        monkeypatch.delenv(name, raising=False)
    cores = num_threads()
    with by_default(1):
        assert num_threads() == 1
    with by_default(None):
        assert num_threads() == cores
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with by_default(1):
        assert num_threads() == 3
    assert "EDPIPE_THREADS" not in os.environ


@pytest.mark.slow
def test_a_failure_of_the_processes_is_theirs_to_explain(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("EDPIPE_PROCESSES", "2")
    monkeypatch.setenv("EDPIPE_THREADS", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with pytest.raises(TrainingError, match=r"process [01] of 2: ended with exit code 2; the others were ended"):
        run_together(["run_stage", "--nonsense"])
    assert list(tmp_path.iterdir()) == []
