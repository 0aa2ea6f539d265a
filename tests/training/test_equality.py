"""Cached distillation is online distillation: the same losses and the same weights, bit for bit.

The students go through the package's own classroom and training loop; online, the targets are asked of the live teacher
in the composition of batches in which the dump asked it.
"""

from dataclasses import replace

import numpy as np
import pytest
import tasks
import torch
from small_world import CPU, NINE, SHIFTS, every_row, make_world

from edpipe.datasets.dataset_file import open_dataset
from edpipe.losses.kd import combine, kd_loss, task_loss
from edpipe.models.forward import forward
from edpipe.models.students.student import grow
from edpipe.params.soft_labels import Mixing, StorageKnobs, StudentViews, ViewSpace, ViewUse
from edpipe.params.stage import StageKnobs
from edpipe.soft_labels.batches import SoftLabelBatches
from edpipe.soft_labels.encoding.softmax import row_kl
from edpipe.soft_labels.file.store import open_store
from edpipe.soft_labels.teacher_outputs import DUMP_BATCH, load_teacher, teacher_forward
from edpipe.training.loop import Budget
from edpipe.training.sample_stream import SampleStream
from edpipe.training.schedule import num_images
from edpipe.training.stage import inputs
from edpipe.training.stage.student import build_student
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.sampling import view_of
from edpipe.views.spec import ViewSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
EPOCHS = StageKnobs(epochs=3, learning_rate=0.05)
UINT8 = StorageKnobs(precision="uint8")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    # More training samples than a batch of the dump, so that composition matters.
    return make_world(tmp_path_factory.mktemp("world"), per_class=29)


class LiveTargets(SoftLabelBatches):
    """A teacher in place of its soft labels: asked about each view when that is needed, and never about a file."""

    def __init__(self, world, files, space, use=ViewUse(per_file=9)):  # noqa: B008  (frozen)
        dataset = open_dataset(world.dataset)
        teacher = load_teacher(files, dataset)
        views = StudentViews(space=space, number=use.number, choice=use.choice)
        self.ids = dataset.sample_ids("train", teacher.class_ids)
        self.class_ids = np.array(teacher.class_ids, dtype=np.int32)
        batches = ViewBatches(dataset, ViewSpec.from_knobs(views, dataset.image_size), CPU, (self.ids,))
        self._teacher, self._batches, self.asked = teacher, batches, 0

    def logits(self, ids, views):
        """Asks about the whole batches of the dump that the rows lie in."""
        found = torch.empty(len(ids), len(self.class_ids))
        rows = np.searchsorted(self.ids, ids)
        with teacher_forward(self._teacher, self._batches) as asked:
            for view, batch in sorted(set(zip(views.tolist(), (rows // DUMP_BATCH).tolist(), strict=True))):
                together = self.ids[batch * DUMP_BATCH : (batch + 1) * DUMP_BATCH]
                said, _ = asked.outputs(together, np.full(len(together), view))
                self.asked += len(together)
                wanted = np.flatnonzero((views == view) & (rows // DUMP_BATCH == batch))
                found[torch.from_numpy(wanted)] = torch.from_numpy(said[rows[wanted] - batch * DUMP_BATCH])
        return found


def train(knobs, files, live=None, before=None):
    """Losses of every iteration and the student's weights; `live` takes the place of the stores."""
    task = inputs.open_stage(0, knobs, files, CPU)
    if live is not None:
        teachers = zip(task.teachers, live, strict=True)
        task.teachers = [replace(teacher, labels=targets) for teacher, targets in teachers]
    student, _ = build_student(0, knobs, replace(files, previous=None), task)
    if before is not None:
        grow(before, student, knobs.plan.blocks - 1)
    student.to(memory_format=torch.channels_last)
    budget = knobs.plan.budget
    total = num_images(budget, task.stream.num_samples)
    progress = tasks.train(student, knobs.recipe, Budget(total, budget.learning_rate, knobs.plan.window), task)
    losses = [step.loss for step in progress]
    return losses, {name: value.clone() for name, value in student.weights().items()}


def train_online(knobs, files, live):
    """Plain KD with the teacher beside the student, without the package's task: losses and weights."""
    task = inputs.open_stage(0, knobs, files, CPU)
    student, _ = build_student(0, knobs, files, task)
    student.to(memory_format=torch.channels_last)
    dataset, plan = open_dataset(files.dataset), knobs.plan
    stream = SampleStream(task.seed, (dataset.sample_ids("train"),), "mixed")
    spec = ViewSpec.from_knobs(knobs.views, dataset.image_size)
    batches = ViewBatches(dataset, spec, CPU)

    def loss(network, start, stop):
        epochs, ids = stream.slice(start, stop)
        views = view_of(task.seed, epochs, ids, spec.num_views, knobs.views.choice)
        outputs = forward(network, normalise(batches.views(ids, views), dataset.mean, dataset.std), knobs.recipe)
        own = task_loss(outputs, torch.from_numpy(dataset.labels[ids].astype(np.int64)))
        kd = kd_loss(outputs, live.logits(ids, views), plan.temperature)
        return combine(own, kd, plan.task_weight, plan.distill_weight)

    total = num_images(plan.budget, stream.num_samples)
    budget = Budget(total, plan.budget.learning_rate)
    losses = [step.loss for step in tasks.train(student, knobs.recipe, budget, tasks.Positions(loss))]
    return losses, {name: value.clone() for name, value in student.weights().items()}


def check_equal(one, other):
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())


def are_equal(one, other):
    return all(torch.equal(value, other[1][name]) for name, value in one[1].items())


# Equality


@pytest.mark.parametrize("choice", ["random", "cycle"])
def test_kd_from_an_exhaustive_store_is_online_kd_bit_for_bit(world, choice):
    teacher, use = world.teacher(), ViewUse(choice=choice)
    paths = world.store(teacher, use=use)
    knobs, files = world.stage([teacher], paths, use=use, budget=EPOCHS)
    live = LiveTargets(world, teacher, NINE)
    assert len(live.ids) > DUMP_BATCH
    cached, online = train(knobs, files), train_online(knobs, files, live)
    assert live.asked >= 3 * len(live.ids)
    assert len(cached[0]) == -(-3 * len(live.ids) // 32)
    assert len(set(cached[0])) == len(cached[0])
    check_equal(cached, online)


@pytest.mark.parametrize("normalisation", ["slice", "full"])
def test_two_stages_with_specialists_are_online_distillation_bit_for_bit(world, normalisation):
    primary, middle = world.teacher("primary"), world.teacher("middle", seed=1)
    paths = [*world.store(primary), *world.store(middle)]
    common = {"num_stages": 2, "num_blocks": 2, "budget": EPOCHS, "normalisation": normalisation}
    weights = {}
    for is_live in (False, True):
        before = None
        for number, teachers in ((1, [primary]), (2, [primary, middle])):
            taught = ("primary", "middle")[:number]
            own = [path for path in paths if path.parent.name in taught]
            knobs, files = world.stage(
                teachers, own, number=number, blocks=number, taught=taught, known=taught, **common
            )
            live = [LiveTargets(world, teacher, NINE) for teacher in teachers] if is_live else None
            losses, before = train(knobs, files, live, before)
            weights.setdefault(number, []).append((losses, before))
    for one, other in weights.values():
        check_equal(one, other)


@pytest.mark.parametrize("mixing", [Mixing(mixup=1.0), Mixing(cutmix=1.0), Mixing(mixup=0.5, cutmix=1.0)])
def test_kd_from_mixed_views_is_online_kd_on_mixed_views_bit_for_bit(world, mixing):
    space, use = ViewSpace(augment=SHIFTS, mixing=mixing, seed=2), ViewUse(number=3, per_file=2)
    teacher = world.teacher()
    knobs, files = world.stage([teacher], world.store(teacher, space, use), space, use, budget=EPOCHS)
    check_equal(train(knobs, files), train(knobs, files, [LiveTargets(world, teacher, space, use)]))


def test_a_store_in_three_files_teaches_as_one_file_does(world):
    teacher, first = world.teacher(), None
    for use in (ViewUse(per_file=9), ViewUse(per_file=4), ViewUse(per_file=3)):
        paths = world.store(teacher, use=use)
        knobs, files = world.stage([teacher], paths, use=use, budget=EPOCHS)
        found = train(knobs, files)
        first = found if len(paths) == 1 else first
        check_equal(first, found)
    assert len(paths) == 3


def test_files_in_another_order_teach_the_same(world):
    teacher, use = world.teacher(), ViewUse(per_file=4)
    knobs, files = world.stage([teacher], world.store(teacher, use=use), use=use)
    check_equal(train(knobs, files), train(knobs, replace(files, soft_labels=files.soft_labels[::-1])))


def test_another_teacher_another_temperature_and_another_view_give_other_weights(world):
    """The comparison would see a difference."""
    teacher, other = world.teacher(), world.teacher(seed=1, name="other")
    knobs, files = world.stage([teacher], world.store(teacher))
    first = train(knobs, files)
    assert not are_equal(first, train(*world.stage([other], world.store(other))))
    assert not are_equal(first, train(*world.stage([teacher], files.soft_labels, temperature=4.5)))
    shifted = LiveTargets(world, teacher, NINE)
    logits = shifted.logits
    shifted.logits = lambda ids, views: logits(ids, (views + 1) % 9)
    assert not are_equal(first, train(knobs, files, [shifted]))


# Stored in fewer bits


@pytest.mark.parametrize("storage", [UINT8, StorageKnobs(precision="uint4", max_kl=None)])
def test_every_stored_row_is_under_the_bound_at_any_temperature(world, storage):
    teacher = world.teacher()
    exact = open_store(world.dump(teacher)).files[0]
    ids, views = every_row(exact)
    rows = exact.logits(ids, views)
    store = open_store(world.dump(teacher, storage=storage))
    stored = store.logits(ids, views)
    for temperature in (4.0, 2.0, 1.0):
        kl = row_kl(rows, stored, temperature)
        assert 0 < kl.max() <= store.kl_bound(temperature)
        assert row_kl(stored, rows, temperature).max() <= store.kl_bound(temperature)
    assert store.kl_bound(2.0) == pytest.approx(4 * store.kl_bound(4.0))
    assert store.files[0].seal.statistics["measured_max_kl"] == row_kl(rows, stored, 4.0).max()


def test_a_student_of_stored_codes_ends_near_that_of_exact_logits(world):
    teacher = world.teacher()
    exact = train(*world.stage([teacher], world.store(teacher), budget=EPOCHS))
    coded = train(*world.stage([teacher], world.store(teacher, storage=UINT8), budget=EPOCHS))
    assert not are_equal(exact, coded)
    assert np.abs(np.array(exact[0]) - np.array(coded[0])).max() < 0.05 * exact[0][0]


# Which views are seen


class Watched(SoftLabelBatches):
    """Targets that remember which rows were asked for."""

    def __init__(self, targets):
        self.__dict__.update(targets.__dict__)
        self.rows = []

    def logits(self, sample_ids, views):
        self.rows.append((sample_ids, views))
        return super().logits(sample_ids, views)


def seen_views(world, choice, epochs):
    """(epoch, sample): the view that training asked for."""
    teacher, use = world.teacher("primary"), ViewUse(choice=choice)
    taught = {"taught": ("primary",), "known": ("primary",), "number": 1, "num_stages": 2, "num_blocks": 2}
    knobs, files = world.stage(
        [teacher], world.store(teacher, use=use), use=use, budget=StageKnobs(epochs=epochs), **taught
    )
    task = inputs.open_stage(0, knobs, files, CPU)
    watched = Watched(task.teachers[0].labels)
    task.teachers = [replace(task.teachers[0], labels=watched)]
    student, _ = build_student(0, knobs, files, task)
    num = task.stream.num_samples
    with torch.no_grad():
        for start in range(0, epochs * num, 512):
            task.loss(student, task.batch(start, min(start + 512, epochs * num)))
    ids, views = (np.concatenate(column) for column in zip(*watched.rows, strict=True))
    assert len(ids) == epochs * num
    order = np.argsort(ids, kind="stable")  # the stream goes epoch by epoch
    return task, np.sort(ids)[::epochs], views[order].reshape(num, epochs).T


def test_cycle_shows_each_view_once_before_any_twice(world):
    _, _, views = seen_views(world, "cycle", 18)
    for cycle in (views[:9], views[9:]):
        assert (np.sort(cycle, axis=0) == np.arange(9)[:, None]).all()
    assert (views[:9] != views[9:]).any()
    assert len(np.unique(views[:9].T, axis=0)) > 5


@pytest.mark.parametrize("choice", ["random", "cycle"])
def test_training_asks_for_the_views_that_view_of_says(world, choice):
    task, ids, views = seen_views(world, choice, 4)
    for epoch in range(4):
        assert np.array_equal(views[epoch], view_of(task.seed, epoch, ids, 9, choice))
