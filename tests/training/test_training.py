"""The one training loop, on a toy."""

import json
import math
import os
import re
import tempfile
from contextlib import suppress
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks import Positions
from torch import nn

from edpipe.errors import EdpipeError, TrainingError
from edpipe.models.forward import forward
from edpipe.params.recipe import RecipeKnobs
from edpipe.runtime.device import _take_free_gpu, prepare_device
from edpipe.runtime.distributed import Group
from edpipe.training.loop import FIRST_LOSSES, Budget, Training, make_optimizer
from edpipe.training.schedule import rate_factor

torch.set_num_threads(1)
IMAGES = torch.randn(256, 3, generator=torch.Generator().manual_seed(0))
TARGETS = IMAGES @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.25


def toy(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(3, 1)


def square(network, start, stop):
    rows = torch.arange(start, stop) % len(IMAGES)
    return ((network(IMAGES[rows]) - TARGETS[rows]) ** 2).flatten()


SQUARES = Positions(square)


def train(recipe, budget, network=None, task=SQUARES):
    network = network or toy()
    return network, list(Training(network, recipe, budget).run(task))


def test_the_loss_falls():
    network, steps = train(RecipeKnobs(batch_size=16, weight_decay=0.0), Budget(2048, 0.05))
    assert steps[0].loss > 1
    assert steps[-1].loss < 1e-3
    assert network.weight.detach().flatten().tolist() == pytest.approx([1.0, -2.0, 0.5], abs=0.02)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_one_seed_gives_the_same_bytes(optimizer):
    recipe = RecipeKnobs(optimizer=optimizer, batch_size=16)
    (first, _), (second, _) = (train(recipe, Budget(500, 0.01)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_progress_counts_every_image_once():
    _, steps = train(RecipeKnobs(batch_size=16), Budget(100, 0.01))
    assert [step.iteration for step in steps] == [1, 2, 3, 4, 5, 6, 7]
    assert [step.images for step in steps] == [16, 32, 48, 64, 80, 96, 100]
    assert {step.num_iterations for step in steps} == {7}


def test_the_positions_are_those_of_the_stream():
    asked = []

    def loss(network, start, stop):
        asked.append((start, stop))
        return network(IMAGES[start:stop]).flatten()

    train(RecipeKnobs(batch_size=4), Budget(13, 0.01), task=Positions(loss))
    # A single image left over joins the batch before it.
    assert asked == [(0, 4), (4, 8), (8, 13)]


def rates(recipe, budget):
    """The learning rate of every iteration, seen through a gradient of exactly 1 and plain descent."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    weights = [0.0]
    task = Positions(lambda network, start, stop: network.weight.sum().expand(stop - start))
    for _ in Training(network, recipe, budget).run(task):
        weights.append(network.weight.item())
    return [before - after for before, after in pairwise(weights)]


SCHEDULES = st.builds(
    RecipeKnobs,
    schedule=st.sampled_from(["constant", "cosine", "step"]),
    warmup=st.sampled_from([0.0, 0.25]),
    momentum=st.just(0.0),
    weight_decay=st.just(0.0),
    batch_size=st.just(2),
)


@settings(deadline=None, max_examples=30)
@given(SCHEDULES, st.integers(1, 12), st.sampled_from([(0.0, 1.0), (0.25, 0.5), (0.5, 1.0)]))
def test_the_rate_is_the_schedule_at_that_place_of_the_window(recipe, iterations, window):
    first, last = window
    places = [first + i / iterations * (last - first) for i in range(iterations)]
    expected = [0.5 * rate_factor(recipe, place) for place in places]
    assert rates(recipe, Budget(2 * iterations, 0.5, window)) == pytest.approx(expected, abs=1e-6)


def test_two_windows_after_one_another_are_the_whole_schedule():
    recipe = RecipeKnobs(batch_size=2, momentum=0.0, weight_decay=0.0, warmup=0.1)
    parts = rates(recipe, Budget(20, 0.1, (0.0, 0.5))) + rates(recipe, Budget(20, 0.1, (0.5, 1.0)))
    assert parts == pytest.approx(rates(recipe, Budget(40, 0.1)), abs=1e-6)


def broken_from(position, value):
    def loss(network, start, stop):
        return square(network, start, stop) * (value if start >= position else 1)

    return Positions(loss)


@pytest.mark.parametrize(("value", "name"), [(math.nan, "nan"), (math.inf, "inf"), (1e9, r"[\d.e+]+")])
def test_a_loss_past_mending_ends_training(value, name):
    training = Training(toy(), RecipeKnobs(batch_size=16, schedule="constant"), Budget(64, 0.05))
    steps = training.run(broken_from(32, value))
    assert [next(steps).iteration, next(steps).iteration] == [1, 2]
    with pytest.raises(TrainingError) as caught:
        next(steps)
    said, remedy = str(caught.value).split("; ")
    assert re.fullmatch(rf"loss became {name} at iteration 3 of 4 \(learning rate 0\.05, first loss \d\.\d+\)", said)
    assert remedy == ("lower learning_rate, raise the recipe's warmup, set its clip_norm, or use precision: float32")


def test_a_loss_is_past_mending_at_a_hundred_times_the_first_one_or_one():
    def run(factors):
        losses = iter(factors)

        def loss(network, start, stop):
            return network.weight.sum() * 0 + torch.full((stop - start,), next(losses))

        train(RecipeKnobs(batch_size=2), Budget(2 * len(factors), 0.1), task=Positions(loss))

    run([5.0, 499.0])
    run([0.01, 99.0])
    for factors in ([5.0, 501.0], [0.01, 101.0]):
        with pytest.raises(TrainingError, match="loss became"):
            run(factors)


def test_weights_that_are_no_numbers_are_neither_kept_nor_handed_on():
    network = toy()
    training = Training(network, RecipeKnobs(batch_size=16), Budget(64, 0.05))
    next(training.run(SQUARES))
    training.state()
    with torch.no_grad():
        network.bias.fill_(math.nan)
    for act in (training.state, training.finish):
        with pytest.raises(TrainingError, match="weight bias is no longer finite at iteration 1 of 4; lower"):
            act()


def test_the_optimizer_is_the_recipes():
    network = toy()
    sgd = make_optimizer(network, RecipeKnobs(momentum=0.8, nesterov=True, weight_decay=1e-3))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    assert [group["weight_decay"] for group in sgd.param_groups] == [1e-3]
    plain = make_optimizer(network, RecipeKnobs(nesterov=False))
    assert plain.defaults["nesterov"] is False
    # Without momentum nesterov means nothing, and torch refuses it.
    assert make_optimizer(network, RecipeKnobs(momentum=0.0)).defaults["nesterov"] is False
    adamw = make_optimizer(network, RecipeKnobs(optimizer="adamw", weight_decay=0.05))
    assert isinstance(adamw, torch.optim.AdamW)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.05]


def test_only_matrices_are_decayed_if_asked_for():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    decayed, plain = make_optimizer(network, RecipeKnobs(weight_decay=0.1, decay="matrices")).param_groups
    assert [(g["weight_decay"], [p.ndim for p in g["params"]]) for g in (decayed, plain)] == [
        (0.1, [4, 2]),
        (0.0, [1, 1, 1, 1]),
    ]


def test_frozen_parameters_are_left_alone():
    network = toy()
    network.bias.requires_grad_(False)
    optimizer = make_optimizer(network, RecipeKnobs())
    assert [p.shape for group in optimizer.param_groups for p in group["params"]] == [network.weight.shape]


def test_training_runs_in_training_mode():
    network = nn.Sequential(nn.BatchNorm1d(3), toy()).eval()
    train(RecipeKnobs(batch_size=16), Budget(32, 0.01), network)
    assert network[0].num_batches_tracked == 2


def test_logits_are_float32_in_either_precision():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    images = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    exact = forward(network, images, RecipeKnobs())
    rounded = forward(network, images, RecipeKnobs(precision="bfloat16"))
    assert exact.dtype == rounded.dtype == torch.float32
    assert torch.equal(exact, network(images))
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.05)


def test_the_device_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    monkeypatch.setenv("EDPIPE_DEVICE", "cpu")
    assert prepare_device() == torch.device("cpu")
    assert torch.get_num_threads() == 1
    monkeypatch.delenv("EDPIPE_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert prepare_device() == torch.device("cpu")


def test_a_device_that_is_none_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    monkeypatch.setenv("EDPIPE_DEVICE", "gpu")
    with pytest.raises(EdpipeError) as caught:
        prepare_device()
    assert str(caught.value) == "EDPIPE_DEVICE='gpu': no device of torch; use cpu, cuda or cuda:1, or leave it unset"
    monkeypatch.setenv("EDPIPE_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EdpipeError) as caught:
        prepare_device()
    assert str(caught.value) == "EDPIPE_DEVICE='cuda': torch sees no GPU here; use cpu, or leave it unset"


def test_a_running_mean_of_the_weights_by_hand():
    recipe = RecipeKnobs(batch_size=16, momentum=0.0, weight_decay=0.0, ema_decay=0.6)
    network = toy()
    training = Training(network, recipe, Budget(80, 0.05))
    # timm's decay: nothing is kept of the first weights, then 1 - step^-2/3 as long as that is under 0.6.
    decays = [0.0, *(min(0.6, 1 - (1 + step) ** (-2 / 3)) for step in range(1, 5))]
    mean = None
    for _, decay in zip(training.run(SQUARES), decays, strict=True):
        now = network.weight.detach().clone()
        mean = now if mean is None else decay * mean + (1 - decay) * now
    training.finish()
    torch.testing.assert_close(network.weight.detach(), mean)
    assert not torch.equal(network.weight, now)


def test_long_gradients_are_scaled_down_and_short_ones_left():
    plain = {"batch_size": 2, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    task = Positions(lambda network, start, stop: (network.weight @ torch.tensor([3.0, 0.0, 4.0])).expand(stop - start))
    for clip_norm, length in [(None, 5.0), (10.0, 5.0), (0.5, 0.5)]:
        network = toy()
        before = network.weight.detach().clone()
        train(RecipeKnobs(clip_norm=clip_norm, **plain), Budget(2, 1.0), network, task)
        assert (network.weight - before).norm().item() == pytest.approx(length, rel=1e-5)


def noisy(seed, iterations=3, rank=0):
    """What dropout leaves of ones, in each iteration."""
    seen = []

    def loss(network, start, stop):
        seen.append(network[0](torch.ones(64)).tolist())
        return network[1].weight.sum().expand(stop - start)

    network = nn.Sequential(nn.Dropout(0.5), toy())
    budget = Budget(2 * iterations, 0.01)
    training = Training(network, RecipeKnobs(batch_size=2), budget, seed, Group(rank, 1))
    list(training.run(Positions(loss)))
    return seen


def test_a_networks_own_noise_depends_on_seed_iteration_and_process_alone():
    first = noisy(1)
    torch.rand(17)
    assert noisy(1) == first
    assert noisy(1, iterations=2) == first[:2]
    assert first[0] != first[1]
    assert noisy(2) != first
    assert noisy(1, rank=1) != first


def test_losses_are_looked_at_now_and_then_where_that_costs_a_wait():
    network = toy()
    training = Training(network, RecipeKnobs(batch_size=16), Budget(7 * 16, 0.05))
    training._report_every = 3
    assert [step.iteration for step in training.run(SQUARES)] == [3, 6, 7]
    every = Training(other := toy(), RecipeKnobs(batch_size=16), Budget(7 * 16, 0.05))
    list(every.run(SQUARES))
    assert torch.equal(network.weight, other.weight)
    assert training.mean_tail_loss == every.mean_tail_loss
    broken = Training(toy(), RecipeKnobs(batch_size=16), Budget(7 * 16, 0.05))
    broken._report_every = 3
    with pytest.raises(TrainingError, match="loss became nan at iteration 2 of 7"):
        next(broken.run(broken_from(16, math.nan)))


def test_the_mean_loss_is_that_of_the_last_tenth():
    values = iter([9.0] * 27 + [1.0, 2.0, 6.0])
    task = Positions(lambda network, start, stop: network.weight.sum() * 0 + torch.full((stop - start,), next(values)))
    training = Training(toy(), RecipeKnobs(batch_size=2), Budget(60, 0.1))
    list(training.run(task))
    assert training.mean_tail_loss == 3.0


def test_the_first_losses_are_kept_with_all_their_bits():
    recipe, budget = RecipeKnobs(batch_size=16), Budget(400, 0.01)
    training = Training(toy(), recipe, budget)
    losses = [step.loss for step in training.run(SQUARES)]
    assert len(losses) == 25
    assert training.first_losses == tuple(losses[:FIRST_LOSSES])
    short = Training(toy(), recipe, Budget(40, 0.01))
    assert len(list(short.run(SQUARES))) == len(short.first_losses) == 3


def test_the_first_losses_outlive_an_interruption():
    recipe, budget = RecipeKnobs(batch_size=16), Budget(400, 0.01)
    whole, first, second = (Training(toy(), recipe, budget) for _ in range(3))
    list(whole.run(SQUARES))
    for step in first.run(SQUARES):
        if step.iteration == 3:
            break
    tensors, facts = first.state()
    second.restore(tensors, json.loads(json.dumps(facts)))
    list(second.run(SQUARES))
    assert second.first_losses == whole.first_losses


def test_batches_made_ahead_train_alike():
    task = Positions(square)
    task.num_workers = 3
    (here, _), (ahead, _) = (train(RecipeKnobs(batch_size=16), Budget(400, 0.05), task=t) for t in (SQUARES, task))
    assert torch.equal(here.weight, ahead.weight)


def test_a_network_is_compiled_if_the_environment_says_so(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, mode: asked.append(mode) or network)
    train(RecipeKnobs(batch_size=16), Budget(32, 0.05))
    monkeypatch.setenv("EDPIPE_COMPILE", "1")
    train(RecipeKnobs(batch_size=16), Budget(32, 0.05))
    assert asked == ["default"]
    monkeypatch.setenv("EDPIPE_COMPILE", "yes")
    with pytest.raises(EdpipeError) as caught:
        train(RecipeKnobs(batch_size=16), Budget(32, 0.05))
    assert str(caught.value) == "EDPIPE_COMPILE='yes': must be 0 or 1; mend or unset it"


@pytest.fixture
def three_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    for name in ("EDPIPE_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: ([5, 9, 7][i], 10))
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *arguments: opened.append(real(*arguments)) or opened[-1])
    _take_free_gpu.cache_clear()
    yield
    monkeypatch.undo()
    _take_free_gpu.cache_clear()
    for descriptor in opened:
        with suppress(OSError):
            os.close(descriptor)


def in_another_process():
    """A step that asks for a device while the ones before still run."""
    _take_free_gpu.cache_clear()
    return prepare_device()


def test_steps_take_gpus_one_after_the_other_and_share_the_emptiest_when_none_is_left(three_gpus):
    assert [prepare_device().index for _ in range(2)] == [0, 0]
    assert [in_another_process().index for _ in range(4)] == [1, 2, 1, 1]


def test_gpus_are_told_apart_by_what_is_visible(three_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert prepare_device().index == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,4,6")
    assert [in_another_process().index for _ in range(2)] == [0, 2]


def test_each_of_several_processes_gets_a_gpu_of_its_own(three_gpus, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("EDPIPE_DEVICE", "cuda")
    assert [in_another_process().index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(EdpipeError) as caught:
        in_another_process()
    assert str(caught.value) == (
        "EDPIPE_PROCESSES: no GPU is left for this process; there are 3, each is one process's own; start fewer, or "
        "set EDPIPE_DEVICE=cpu"
    )
