"""Two teachers of all classes, from their stored logits to the loss of a trained student, under every rule."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import CPU, EXACT, make_world

from edpipe.losses.features import attention_loss
from edpipe.methods.at import At
from edpipe.models.forward import forward
from edpipe.steps.run_stage import run_stage
from edpipe.storage.weights import read_weights
from edpipe.training.stage.inputs import open_stage
from edpipe.training.stage.student import build_student

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
RULES = ("aver", "ebkd", "aekd", "ca_mkd")
TEMPERATURE = 4.0


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """The stage of a rule, whose only iteration sees every sample; its knobs and files."""
    world = make_world(tmp_path_factory.mktemp("world"), per_class=8)
    teachers = [world.teacher(name=f"teacher_{seed}", seed=seed) for seed in (0, 1)]
    paths = [path for teacher in teachers for path in world.store(teacher)]

    def stage_of(rule):
        knobs, files = world.stage(
            teachers, paths, out=rule, teacher_weighting=rule, task_weight=0.0, distill_weight=1.0
        )
        return replace(knobs, recipe=knobs.recipe.model_copy(update={"batch_size": 1000})), files

    return stage_of


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def second_weights(rule, student, first, second, labels):
    """How much the second of two teachers counts for each sample, by the formula of its rule."""
    probs = np.stack([softmax(first), softmax(second)])
    if rule == "aver":
        return np.full(len(labels), 0.5)
    if rule == "ebkd":
        entropies = -(probs * np.log(probs)).sum(axis=2)
        return entropies[0] / entropies.sum(axis=0)
    if rule == "ca_mkd":
        surprises = -np.log(probs[:, np.arange(len(labels)), labels])
        return 1 / (1 + np.exp(surprises[1] - surprises[0]))
    towards = [(softmax(student / TEMPERATURE) - softmax(own / TEMPERATURE)).mean(axis=0) for own in (first, second)]
    between = towards[0] - towards[1]
    return np.full(len(labels), np.clip(towards[0] @ between / (between @ between), 0.4, 0.6))


def divergences(student, teacher):
    target, own = softmax(teacher / TEMPERATURE), softmax(student / TEMPERATURE)
    return TEMPERATURE**2 * (target * np.log(target / own)).sum(axis=1)


def first_batch(knobs, files):
    """The new student's logits of the only batch, both teachers' logits, and the labels; float64."""
    task = open_stage(0, knobs, files, CPU)
    _, network = build_student(0, knobs, files, task)
    batch = task.batch(0, task.stream.num_samples)
    with torch.no_grad():
        student = forward(network.train(), batch.images, knobs.recipe)
    first, second = (target.logits for target in batch.targets)
    return *(logits.double().numpy() for logits in (student, first, second)), batch.labels.numpy()


@pytest.mark.parametrize("rule", RULES)
def test_a_student_of_two_teachers_is_taught_by_its_rule(stage, rule):
    knobs, files = stage(rule)
    run_stage("t", 0, knobs, files)
    student, first, second, labels = first_batch(knobs, files)
    losses = {}
    for other in RULES:
        share = second_weights(other, student, first, second, labels)
        losses[other] = ((1 - share) * divergences(student, first) + share * divergences(student, second)).mean()
    _, record = read_weights(files.out)
    assert record["final_loss"] == pytest.approx(losses[rule], rel=1e-5)
    for other in set(RULES) - {rule}:
        assert losses[other] != pytest.approx(losses[rule], rel=1e-3)


def test_teachers_of_several_families_have_maps_of_their_own(tmp_path):
    world, storage = make_world(tmp_path, per_class=2), EXACT.model_copy(update={"attention": True})
    teachers = [world.teacher(name=model, model=model) for model in ("resnet8", "mobilenetv2")]
    paths = [path for teacher in teachers for path in world.store(teacher, storage=storage)]
    weights = {"task_weight": 0.0, "distill_weight": 1.0}
    knobs, files = world.stage(teachers, paths, algorithm=At(kind="at"), **weights)
    task = open_stage(0, knobs, files, CPU)
    _, trainee = build_student(0, knobs, files, task)
    batch = task.batch(0, 8)
    assert [len(target.maps) for target in batch.targets] == [3, 4]
    own = trainee(batch.images).side
    pairs = [pair for target in batch.targets for pair in zip(own, target.maps, strict=False)]
    expected = sum(attention_loss(*pair) for pair in pairs) / 2
    torch.testing.assert_close(task.loss(trainee, batch), expected)
