"""How blocks come into a level, and how others stop learning: in stages on a few digits, one of five subsets known."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from distributed_runs import Runs
from small_world import CPU, make_world
from torch import nn

from edpipe.losses.kd import kd_loss, task_loss
from edpipe.models.students.auxiliary import AuxiliaryStudent
from edpipe.models.students.stage_macs import stage_and_whole_macs
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.stage import StageKnobs
from edpipe.steps.run_stage import open_start, run_stage
from edpipe.storage.weights import read_weights
from edpipe.training.stage.task import StageTask

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

BOTH = ("primary", "middle")
SCHOOL = {"num_stages": 3, "num_blocks": 3, "budget": StageKnobs(images=128, learning_rate=0.05)}
FADE = {"fade_in": 0.5, "fading": ("primary",), "fading_blocks": 1}
KEPT = {"kept": (("primary",),), "kept_blocks": (1,), "reference_weight": 0.3}
BODY, REFERENCE = 304_128 + 229_376, 16 * 32 * 64 + 64 * 10
"""Multiply-accumulates of resnet8's first two blocks and of the reference behind them, images of 8 pixels.

Block 1: 64 pixels · 9 · 16 · (1 + 16 + 16). Block 2: 16 pixels · 32 · (9 · 16 + 9 · 32 + 16).
"""
BEFORE = 64 * 16 * 64 + 64 * 5
"""Of the reference behind block 1, which knows five classes."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def teacher(world):
    made = world.teacher()
    return made, world.store(made)


@pytest.fixture(scope="module")
def first(world, teacher):
    """The student after a level of one block that knows half of the classes."""
    return trained(world, teacher, out="first", number=1, taught=("primary",), known=("primary",))


def job(world, teacher, out="second", **plan):
    made, paths = teacher
    return world.stage([made], paths, out=out, name="level", **SCHOOL | plan)


def trained(world, teacher, **plan):
    knobs, files = job(world, teacher, **plan)
    run_stage("t", 0, knobs, files)
    return files.out


@pytest.fixture
def second(world, teacher, first):
    """Knobs and files of a level of two blocks and all classes."""
    return lambda **plan: job(world, teacher, **{"previous": first, "number": 2, "blocks": 2} | LATER | plan)


LATER = {"taught": BOTH, "known": BOTH}


def opened(given):
    return open_start(0, *given, CPU)


def test_new_blocks_start_as_their_shortcuts_and_the_rest_as_always(second):
    plain, zero = opened(second()), opened(second(new_block="zero"))
    own, other = zero.student.weights(), plain.student.weights()
    assert {name for name in own if not torch.equal(own[name], other[name])} == {"layer2.0.bn2.weight"}
    assert not own["layer2.0.bn2.weight"].any()
    block = zero.student.body.links[-1].eval()
    features = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(features), F.relu(block.downsample(features)))


def test_a_gradient_reaches_the_scale_that_is_zero(second):
    start = opened(second(new_block="zero"))
    start.task.loss(start.trainee, start.task.batch(0, 32)).sum().backward()
    assert start.student.body.links[-1].bn2.weight.grad.abs().max() > 0


def test_logits_pass_over_in_the_first_half_of_the_level(second):
    start = opened(second(**FADE))
    shares = [start.task.batch(first, first + 32).own_share for first in (0, 32, 64, 96)]
    assert shares == [0.0, 0.5, 1.0, 1.0]


def test_the_loss_is_of_the_mixed_logits_by_hand(second, first):
    start = opened(second(**FADE))
    trainee, batch = start.trainee.eval(), start.task.batch(32, 64)
    own = start.student(batch.images)
    weights, _ = read_weights(first)
    blocks = start.student.blocks[0](batch.images)
    before = trainee.earlier[0](blocks)
    for name, value in trainee.earlier[0].state_dict().items():
        assert torch.equal(value, weights[f"reference.{name}"])
    known = start.task.partition.classes_of(("primary",))
    mixed = own.clone()
    for place, class_id in enumerate(known):
        mixed[:, class_id] = 0.5 * before[:, place] + 0.5 * own[:, class_id]
    expected = 0.3 * task_loss(mixed, batch.labels) + 0.7 * kd_loss(mixed, batch.targets[0].logits, 4.0)
    torch.testing.assert_close(start.task.loss(trainee, batch), expected)


def test_at_first_the_classes_of_before_teach_the_reference_of_before_alone(second):
    start = opened(second(**FADE))
    start.task.loss(start.trainee, start.task.batch(0, 32)).sum().backward()
    known = start.task.partition.classes_of(("primary",))
    assert not start.student.reference.fc.bias.grad[list(known)].any()
    assert start.student.reference.fc.bias.grad.abs().max() > 0  # of the other classes
    assert all(parameter.grad.abs().max() > 0 for parameter in start.trainee.earlier[0].parameters())


@pytest.mark.parametrize("kept", [{}, KEPT])
def test_the_reference_that_fades_is_dropped_unless_it_is_kept(second, kept):
    knobs, files = second(**FADE, **kept)
    run_stage("t", 0, knobs, files)
    weights, record = read_weights(files.out)
    assert any(name.startswith("aid.1.") for name in weights) == bool(kept)
    assert record["training_macs_per_image"] == 3 * (BODY + REFERENCE + BEFORE)


def test_a_reference_that_is_kept_and_fades_is_one(second):
    trainee = opened(second(**FADE, **KEPT)).trainee
    assert isinstance(trainee, AuxiliaryStudent)
    assert len(trainee.earlier) == 1


@pytest.mark.parametrize("more", [{}, FADE | {"new_block": "zero"}])
def test_frozen_blocks_stay_bit_for_bit_and_the_others_learn(second, first, more):
    knobs, files = second(frozen=1, **more)
    run_stage("t", 0, knobs, files)
    (before, _), (after, record) = read_weights(first), read_weights(files.out)
    body = {name for name in before if not name.startswith("reference.")}
    assert "bn1.running_mean" in body
    assert all(torch.equal(before[name], after[name]) for name in body)
    drawn = opened(second(**more)).student.weights()
    learnt = [name for name in after if name not in body and not torch.equal(after[name], drawn[name])]
    assert len(learnt) == len(after) - len(body)
    foreseen, _ = stage_and_whole_macs(knobs.plan, knobs.student, 1, 8, 10)
    assert foreseen == 3 * (BODY + REFERENCE) - 2 * 304_128
    assert record["training_macs_per_image"] == foreseen + (3 * BEFORE if more else 0)


def test_small_images_and_a_running_mean_go_with_frozen_blocks(second, first):
    knobs, files = second(frozen=1, budget=StageKnobs(images=64, learning_rate=0.05, image_size=4))
    run_stage("t", 0, replace(knobs, recipe=RecipeKnobs(batch_size=32, ema_decay=0.9)), files)
    (before, _), (after, record) = read_weights(first), read_weights(files.out)
    body = {name for name in before if not name.startswith("reference.")}
    assert all(torch.equal(before[name], after[name]) for name in body)
    assert record["training_macs_per_image"] == 3 * (BODY // 4 + 4 * 32 * 64 + 640) - 2 * 304_128 // 4


def test_frozen_blocks_of_the_whole_network_are_in_evaluation_mode(world, teacher, second):
    middle, files = second(out="middle")
    run_stage("t", 0, middle, files)
    start = opened(job(world, teacher, previous=files.out, number=3, blocks=3, frozen=2, **LATER))
    next(start.training.run(start.task))
    network = start.student.body
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    frozen = [name for name in norms if not name.startswith("layer3")]
    assert [name for name, module in norms.items() if not module.training] == frozen != []
    assert not any(parameter.requires_grad for parameter in network.layer1.parameters())
    assert all(parameter.requires_grad for parameter in [*network.layer3.parameters(), *network.fc.parameters()])


def test_coarse_levels_compare_subsets_by_hand(second):
    start = opened(second(coarse=True, **KEPT))
    trainee, batch = start.trainee.eval(), start.task.batch(0, 32)
    groups = torch.zeros(10, dtype=torch.long)
    groups[list(start.task.partition.classes_of(("middle",)))] = 1

    def coarse(logits):
        shares = logits.softmax(dim=1)
        return torch.stack([shares[:, groups == number].sum(dim=1) for number in (0, 1)], dim=1).log()

    own, teacher = coarse(start.student(batch.images)), coarse(batch.targets[0].logits)
    # The kept reference knows one subset: it has nothing to tell apart.
    expected = 0.3 * task_loss(own, groups[batch.labels]) + 0.7 * kd_loss(own, teacher, 4.0)
    torch.testing.assert_close(start.task.loss(trainee, batch), expected, rtol=1e-4, atol=1e-5)


def test_a_level_with_all_of_it_goes_on_to_the_same_bytes(second, monkeypatch):
    budget = StageKnobs(images=160, learning_rate=0.05, image_size=4)
    given = {"frozen": 1, "new_block": "zero", "coarse": True, "hardest": 0.5, "budget": budget, **FADE}
    knobs, files = second(**given)
    run_stage("t", 0, knobs, files)
    wanted = read_weights(files.out)[1]["weights_digest"]
    files = replace(files, out=files.out.with_name("broken.safetensors"))
    whole, num_losses = StageTask.loss, 0

    def breaking(self, network, batch):
        nonlocal num_losses
        num_losses += 1
        if num_losses == 3:
            raise RuntimeError("broken off")
        return whole(self, network, batch)

    monkeypatch.setenv("EDPIPE_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr("edpipe.training.resumable.MOST_COST", 1e9)
    monkeypatch.setattr(StageTask, "loss", breaking)
    with pytest.raises(RuntimeError, match="broken off"):
        run_stage("t", 0, knobs, files)
    run_stage("t", 0, knobs, files)
    assert read_weights(files.out)[1]["weights_digest"] == wanted


def test_two_processes_freeze_and_fade_as_one_does(second, first, tmp_path):
    knobs, files = second(frozen=1, new_block="zero", coarse=True, **FADE)
    runs = Runs(tmp_path, knobs, files)
    try:
        assert [code for code, _ in runs.run("one 1")] == [0]
        assert [code for code, _ in runs.run("two 2")] == [0, 0]
    finally:
        runs.close()
    before, one, two = (read_weights(path)[0] for path in (first, runs.weights("one"), runs.weights("two")))
    assert all(torch.equal(before[name], two[name]) for name in before if not name.startswith("reference."))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
