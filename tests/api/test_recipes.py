"""Loops of one's own on stored soft labels: the pipeline's weights bit for bit, and two libraries' loops."""

from dataclasses import replace

import pytest
import torch
from recipes import load_recipe
from small_world import make_world

from edpipe import SoftLabelDataset
from edpipe.models.zoo.build import build_network
from edpipe.params.soft_labels import StorageKnobs
from edpipe.params.stage import StageKnobs
from edpipe.steps.run_stage import run_stage
from edpipe.storage.weights import read_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
SEED, BATCH, PEAK = 3, 32, 0.05


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), reader="folder", per_class=24)


@pytest.fixture(scope="module")
def taught(world):
    """A teacher and the files of its soft labels: nine views, uint8."""
    teacher = world.teacher()
    return teacher, world.store(teacher, storage=StorageKnobs(precision="uint8"))


@pytest.fixture
def data(world, taught):
    return SoftLabelDataset(world.index(taught[0]), world.dataset, SEED)


def new_student(data):
    return build_network("resnet8", len(data.classes), 3, SEED)


def equal(weights, student):
    own = student.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[name], value) for name, value in weights.items())


@pytest.mark.parametrize("epochs", [3.0, 2.3])
def test_thirty_lines_of_pytorch_reach_the_weights_of_kd_bit_for_bit(world, taught, data, epochs):
    knobs, files = world.stage([taught[0]], taught[1], budget=StageKnobs(epochs=epochs, learning_rate=PEAK))
    run_stage("kd", SEED, replace(knobs, recipe=knobs.recipe.model_copy(update={"warmup": 0.05})), files)
    weights, record = read_weights(files.out)
    assert record["images_seen"] == round(epochs * len(data))
    student = new_student(data)
    load_recipe("plain_pytorch").train(student, data, epochs, BATCH, PEAK)
    assert equal(weights, student)
    other = new_student(data)
    assert not equal(weights, other)


def test_the_loop_is_thirty_lines():
    import inspect

    lines = inspect.getsource(load_recipe("plain_pytorch").train).splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 30


def test_accuracy_is_measured_on_the_test_images(world, data):
    module = load_recipe("plain_pytorch")
    student = new_student(data)
    share = module.top1(student, data)
    assert 0 <= share <= 1
    assert (share * len(data.held_out("test"))) == pytest.approx(round(share * len(data.held_out("test"))), abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_lightning_reaches_the_same_weights(data):
    pytest.importorskip("lightning")
    plain, own = new_student(data), new_student(data)
    load_recipe("plain_pytorch").train(plain, data, 2.0, BATCH, PEAK)
    load_recipe("lightning_module").train(own, data, 2.0, BATCH, PEAK)
    assert equal(plain.state_dict(), own)


def test_timms_task_learns_from_stored_logits(data):
    pytest.importorskip("timm.task")
    module = load_recipe("timm_task")
    student = new_student(data)
    images, labels, logits = next(iter(torch.utils.data.DataLoader(data, 64, collate_fn=data.collate)))
    task = module.StoredLogitsTask(student, 0.3, 4.0)
    before = task(images, (labels, logits))
    assert before["loss"].item() == pytest.approx(0.3 * before["task_loss"].item() + 0.7 * before["kd_loss"].item())
    torch.manual_seed(0)
    averaged = module.train(student, data, epochs=6, batch_size=16, peak=0.05)
    after = task(images, (labels, logits))
    assert after["kd_loss"] < before["kd_loss"] / 2
    assert module.top1(averaged, data) > 30  # of four classes
