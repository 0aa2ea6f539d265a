"""Stages with small images, with blocks of their own and budgets of compute, trained and measured."""

import json

import numpy as np
import pytest
import torch
from small_world import CPU, SHIFTS, make_world

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import ParamsError
from edpipe.models.macs import count_macs
from edpipe.models.students.stage_macs import stage_and_whole_macs
from edpipe.models.zoo.build import build_network
from edpipe.params.soft_labels import ViewSpace
from edpipe.params.stage import StageKnobs
from edpipe.results.measures.evaluation_inputs import load_student
from edpipe.results.measures.student import measure_stages
from edpipe.steps.run_stage import open_start, run_stage
from edpipe.storage.weights import read_weights
from edpipe.training.stage import inputs
from edpipe.views.resizing import resized

LEVELS = ((1, 6), (1, 6), (3, 6), (3, None))
"""Blocks and image size of each."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def taught(world):
    teacher = world.teacher()
    return teacher, world.store(teacher)


def level(world, taught, number, blocks, side, previous=None, **plan):
    teacher, paths = taught
    plan = {
        "name": f"level{number}",
        "number": number,
        "num_stages": len(LEVELS),
        "blocks": blocks,
        "num_blocks": 3,
        "budget": StageKnobs(images=64, image_size=side, learning_rate=0.05),
    } | plan
    return world.stage([teacher], paths, out=f"level{number}", previous=previous, **plan)


def test_a_level_sees_the_same_views_made_smaller_with_the_logits_of_the_whole_ones(world, taught):
    small, full = (inputs.open_stage(0, *level(world, taught, 1, 3, side), CPU) for side in (6, None))
    ids, views = full.dataset.sample_ids("train")[:20], np.arange(20) % 9
    one, other = small.batch_of(ids, views), full.batch_of(ids, views)
    assert one.images.shape == (20, 1, 6, 6)
    assert other.images.shape == (20, 1, 8, 8)
    assert torch.equal(one.targets[0].logits, other.targets[0].logits)
    assert torch.equal(one.labels, other.labels)
    mean, std = full.dataset.mean[0], full.dataset.std[0]
    pixels = resized(full.batches.views(ids, views), 6).float()
    torch.testing.assert_close(one.images, (pixels / 255 - mean) / std)


def test_compute_is_counted_in_images_of_the_whole_student_at_full_size(world, taught):
    whole = 3 * count_macs(build_network("resnet8", 10, 1, 0), 1, 8)
    for blocks, side in ((1, 6), (2, None), (3, 6), (3, None)):
        budget = StageKnobs(compute=50, image_size=side)
        knobs, files = level(world, taught, 1, blocks, side, budget=budget)
        start = open_start(0, knobs, files, CPU)
        own = 3 * count_macs(start.student, 1, side or 8)
        assert start.record["training_macs_per_image"] == own
        assert start.record["images_seen"] == start.task.num_images == 50 * whole // own
        assert 0.98 * 50 * whole < start.record["images_seen"] * own <= 50 * whole
        assert start.training.budget.num_images == start.record["images_seen"]
    assert start.record["images_seen"] == 50


def run_school(world, taught):
    previous, paths = None, []
    for number, (blocks, side) in enumerate(LEVELS, start=1):
        knobs, files = level(world, taught, number, blocks, side, previous)
        run_stage(f"level {number}", 0, knobs, files)
        previous = files.out
        paths.append(files.out)
    return paths


def test_levels_hand_on_what_they_learnt_and_are_measured_at_their_size(world, taught):
    paths = run_school(world, taught)
    names = [set(read_weights(path)[0]) for path in paths]
    assert names[0] == names[1]
    assert any(name.startswith("reference.") for name in names[0])
    assert names[2] == names[3] == set(build_network("resnet8", 10, 1, 0).state_dict())
    dataset = open_dataset(world.dataset)
    partition = read_partition(world.partition, dataset)
    stages = [load_student(path, dataset, partition) for path in paths]
    assert [stage.image_size for stage in stages] == [6, 6, 6, 8]
    found = measure_stages(stages, [], dataset, partition)["stages"]
    assert [stage["macs"] for stage in found[2:]] == [
        count_macs(build_network("resnet8", 10, 1, 0), 1, side) for side in (6, 8)
    ]
    assert all(0 <= share <= 1 for stage in found for share in stage["top1_by_subset"].values())


def test_a_stage_starts_from_all_that_the_stage_before_with_as_many_blocks_has(world, taught):
    paths = run_school(world, taught)
    for number, before in ((2, paths[0]), (4, paths[2])):
        blocks, side = LEVELS[number - 1]
        start = open_start(0, *level(world, taught, number, blocks, side, before), CPU)
        weights, _ = read_weights(before)
        assert all(torch.equal(value, weights[name]) for name, value in start.student.weights().items())
    start = open_start(0, *level(world, taught, 3, 3, 6, paths[1]), CPU)
    weights, _ = read_weights(paths[1])
    assert torch.equal(start.student.weights()["conv1.weight"], weights["conv1.weight"])
    assert not torch.equal(start.student.weights()["layer3.0.conv1.weight"], torch.zeros(1))


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_kept_references_and_the_anchor_go_on_over_levels_of_as_many_blocks(world, taught, weight):
    previous = None
    for number, (blocks, side) in enumerate(LEVELS, start=1):
        kept = {"kept": (("all",),), "kept_blocks": (1,), "reference_weight": 0.3} if blocks > 1 else {}
        anchor = {"anchor_weight": weight, "anchored": ("all",)} if previous and weight else {}
        knobs, files = level(world, taught, number, blocks, side, previous, **kept, **anchor)
        run_stage(f"level {number}", 0, knobs, files)
        names = {name.split(".")[0] for name in read_weights(files.out)[0]}
        assert ("aid" in names) == (blocks > 1 and number < len(LEVELS))
        previous = files.out


def test_a_record_of_before_levels_tells_how_many_blocks_its_student_has(world, taught, tmp_path):
    knobs, files = level(world, taught, 1, 1, None, num_stages=3)
    run_stage("first", 0, knobs, files)
    record = json.loads(files.out.with_suffix(".json").read_text())
    plan = record["knobs"]["plan"]
    for name in ("blocks", "num_blocks", "kept_blocks", "span"):
        del plan[name]
    weights = read_weights(files.out)[0]
    from edpipe.storage.weights import write_weights

    before = tmp_path / "before.safetensors"
    kept = {name: value for name, value in record.items() if name not in ("seal", "weights_digest")}
    write_weights(before, weights, kept)
    start = open_start(0, *level(world, taught, 2, 2, None, before, num_stages=3), CPU)
    assert torch.equal(start.student.weights()["conv1.weight"], weights["conv1.weight"])
    dataset = open_dataset(world.dataset)
    assert load_student(before, dataset, read_partition(world.partition, dataset)).student.reference is not None


def test_progress_goes_on_through_the_training_for_a_loss_that_asks(world, taught):
    knobs, files = level(world, taught, 2, 3, None, span=(0.25, 0.75), num_stages=3)
    task = inputs.open_stage(0, knobs, files, CPU)
    assert task.batch(0, 32).progress == 0.25
    assert task.batch(32, 64).progress == 0.5


def test_mixed_views_are_mixed_before_they_are_made_smaller(world):
    from edpipe.params.soft_labels import Mixing, ViewUse

    space, use = ViewSpace(augment=SHIFTS, mixing=Mixing(cutmix=1.0)), ViewUse(number=2, per_file=2)
    teacher = world.teacher(name="mixed")
    paths = world.store(teacher, space, use)
    budget = StageKnobs(images=64, image_size=4)
    knobs, files = world.stage([teacher], paths, space, use, out="mixed", num_stages=2, budget=budget)
    task = inputs.open_stage(0, knobs, files, CPU)
    ids, views = task.dataset.sample_ids("train")[:6], np.zeros(6, dtype=np.int64)
    whole = task.batches.views(ids, views)
    mean, std = task.dataset.mean[0], task.dataset.std[0]
    torch.testing.assert_close(task.batch_of(ids, views).images, (resized(whole, 4).float() / 255 - mean) / std)


@pytest.mark.parametrize(("blocks", "side"), [(1, 6), (2, None), (3, 6), (3, None)])
def test_what_a_stage_costs_is_known_before_it_runs(world, taught, blocks, side):
    knobs, files = level(world, taught, 1, blocks, side)
    start = open_start(0, knobs, files, CPU)
    own, whole = stage_and_whole_macs(knobs.plan, knobs.student, 1, 8, 10)
    assert own == start.record["training_macs_per_image"]
    assert whole == 3 * count_macs(build_network("resnet8", 10, 1, 0), 1, 8)


def test_a_budget_of_one_image_is_refused(world, taught):
    knobs, files = level(world, taught, 1, 1, 6, budget=StageKnobs(epochs=0.0001, image_size=6))
    with pytest.raises(ParamsError, match="stage 'level1': its budget is 1 image, and normalisation needs 2; give it"):
        open_start(0, knobs, files, CPU)
