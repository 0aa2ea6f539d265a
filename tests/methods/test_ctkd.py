"""CTKD: a student that replays what a teacher said while it learnt is the one that learnt beside that teacher."""

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_stages import only_stage
from small_world import CPU, EXACT, NINE, SHIFTS, TRAINING, make_world

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import (
    AlteredRowsError,
    CorruptFileError,
    MissingFileError,
    MissingRowsError,
    OtherDatasetError,
    OtherTeacherError,
    OtherTemperatureError,
    OtherViewsError,
    ParamsError,
    PixelDriftError,
    UnverifiedError,
)
from edpipe.losses.features import attention_loss
from edpipe.losses.kd import kd_loss, task_loss
from edpipe.models.students.auxiliary import AttentionMaps, AuxiliaryStudent
from edpipe.models.students.outputs import student_outputs
from edpipe.models.students.student import Student
from edpipe.models.zoo.build import build_network
from edpipe.params.plans.plan import StageJobKnobs
from edpipe.params.soft_labels import Mixing, StorageKnobs, StudentViews, ViewSpace, ViewUse
from edpipe.params.stage import StageKnobs
from edpipe.params.student import StudentKnobs
from edpipe.params.teacher import FittingKnobs, NetworkKnobs, TrajectoryKnobs
from edpipe.runtime.signals import Interrupted, interruptible
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.store import open_store
from edpipe.steps.record_trajectory import record_trajectory
from edpipe.steps.run_stage import run_stage
from edpipe.storage.records import read_record, record_path, write_record
from edpipe.storage.weights import read_weights
from edpipe.training import resumable as fitting_step
from edpipe.training.loop import Budget, Training
from edpipe.training.sample_stream import SampleStream
from edpipe.training.scratch_teacher import scratch_seed
from edpipe.training.stage import inputs
from edpipe.training.stage import student as stage_student
from edpipe.training.stage.inputs import StageFiles
from edpipe.training.stage.task import StageTask
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.sampling import view_of
from edpipe.views.spec import ViewSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
EPOCHS, SEED, TEACHER = 3, 5, "resnet14"
RECIPE = TRAINING.model_copy(update={"batch_size": 24})
"""72 or so samples in batches of 24: batches run across the ends of epochs, and the last is a partial one."""
NUM = ViewUse(per_file=9)
KEEPING = StorageKnobs(precision="float32", attention=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A dataset, an expert with stored attention maps, and a trajectory."""
    world = make_world(tmp_path_factory.mktemp("world"), per_class=7)
    expert = world.teacher(name="expert")
    paths = world.store(expert, storage=KEEPING)
    out = world.root / "trajectories" / "scratch" / f"seed{SEED}.h5"
    record_trajectory("scratch", SEED, knobs_of(), world.dataset, out)
    return SimpleNamespace(root=world.root, school=world, expert=expert, paths=paths, trajectory=out)


def views_of(space=NINE, number=None):
    return StudentViews(space=space, number=number, choice="random")


def knobs_of(storage=KEEPING, epochs=EPOCHS, recipe=RECIPE, views=None):
    """Of a scratch teacher of another network than the students."""
    fitting = FittingKnobs(recipe="any", epochs=epochs, learning_rate=0.05)
    return TrajectoryKnobs(NetworkKnobs(model=TEACHER), fitting, recipe, views or views_of(), storage)


def method_of(**changes):
    return {"name": "ctkd", "scratch": "scratch", "expert": "expert"} | changes


def stage_of(world, out, model="resnet8", trajectory=None, epochs=EPOCHS, recipe=RECIPE, views=None, **method):
    """Knobs and files of a student's only stage."""
    plan = only_stage(StageKnobs(epochs=epochs, learning_rate=0.05), **method_of(**method))
    knobs = StageJobKnobs(plan, StudentKnobs(model=model), recipe, views or views_of())
    has_expert = bool(plan.teachers)
    files = StageFiles(
        world.school.dataset,
        world.school.partition,
        None,
        (world.school.index(world.expert),) if has_expert else (),
        world.paths if has_expert else (),
        (record_path(world.expert.weights_path),) if has_expert else (),
        out,
        trajectory or world.trajectory,
    )
    return knobs, files


class Seen:
    """What both see, in the order of a student's stage; nothing of the steps is used."""

    num_workers = 0

    def __init__(self, dataset):
        self.ids, self.seed = dataset.sample_ids("train"), (SEED << 8) + 1
        self._dataset, self._stream = dataset, SampleStream(self.seed, (self.ids,), "mixed")
        self._batches = ViewBatches(dataset, ViewSpec(SHIFTS, 9, True, 0, dataset.image_size), CPU)

    def batch(self, start, stop):
        epochs, ids = self._stream.slice(start, stop)
        views = view_of(self.seed, epochs, ids, 9, "random")
        images = normalise(self._batches.views(ids, views), self._dataset.mean, self._dataset.std)
        return images, torch.from_numpy(self._dataset.labels[ids].astype(np.int64)), ids, views


class Taught(Seen):
    """The teacher's task; keeps what it said of the latest batch."""

    def loss(self, network, batch):
        images, labels, *_ = batch
        logits = network(images)
        self.said = logits.detach().clone()
        return F.cross_entropy(logits, labels, reduction="none")


class Beside(Seen):
    """A student's task, in which its teacher takes a step on the same batch first."""

    def __init__(self, dataset, teacher, steps_of_teacher, store, weights):
        super().__init__(dataset)
        self._teacher, self._steps, self._store, self._weights = teacher, steps_of_teacher, store, weights

    def loss(self, network, batch):
        next(self._steps)
        images, labels, ids, views = batch
        task, distill, attention = self._weights
        answers = student_outputs(network, images, RECIPE)
        losses = task * task_loss(answers.logits, labels, 0.0)
        losses = losses + distill * kd_loss(answers.logits, self._teacher.said, 4.0)
        if not attention:
            return losses
        maps = [torch.from_numpy(self._store.attention(level, ids, views)) for level in (1, 2, 3)]
        pairs = zip(answers.side, maps, strict=True)
        return losses + attention * torch.stack([attention_loss(own, told) for own, told in pairs]).sum(dim=0)


def learn_together(world, weights):
    """Teacher and student side by side, each by one `Training`; the student's weights and losses."""
    dataset = open_dataset(world.school.dataset)
    teacher = build_network(TEACHER, dataset.num_classes, dataset.channels, scratch_seed(0, SEED))
    taught = Taught(dataset)
    budget = Budget(EPOCHS * len(taught.ids), 0.05)
    of_teacher = Training(teacher.to(memory_format=torch.channels_last), RECIPE, budget, scratch_seed(0, SEED))
    network = build_network("resnet8", dataset.num_classes, dataset.channels, SEED)
    sizes = dataset.image_size, dataset.channels
    student = Student(network, 1, 1, dataset.num_classes, StudentKnobs(model="resnet8").reference, *sizes, taught.seed)
    trainee = AuxiliaryStudent(student, AttentionMaps(network, student)) if weights[2] else student
    training = Training(trainee.to(memory_format=torch.channels_last), RECIPE, budget, taught.seed)
    task = Beside(dataset, taught, of_teacher.run(taught), open_store(world.paths), weights)
    losses = [progress.loss for progress in training.run(task)]
    training.finish()
    return student.weights(), losses


@pytest.fixture
def losses(monkeypatch):
    """Losses of every iteration of every training, as they are read."""
    found = []
    read = Training._read_losses

    def noted(training):
        found.append(read(training))
        return found[-1]

    monkeypatch.setattr(Training, "_read_losses", noted)
    return found


@pytest.mark.parametrize("attention_weight", [0.0, 1000.0])
def test_replaying_a_trajectory_equals_learning_beside_the_teacher_bit_for_bit(
    world, tmp_path, losses, attention_weight
):
    out = tmp_path / "student.safetensors"
    weights = {"task_weight": 0.75, "distill_weight": 0.5, "attention_weight": attention_weight}
    if not attention_weight:
        weights["expert"] = None
    knobs, files = stage_of(world, out, **weights)
    run_stage("student", SEED, knobs, files)
    replayed = list(losses)
    # The teacher's own losses are read in between; those of the student alone are handed out.
    expected, joint = learn_together(world, (0.75, 0.5, attention_weight))
    num_samples = len(open_dataset(world.school.dataset).sample_ids("train"))
    assert num_samples % RECIPE.batch_size, "batches run across the ends of epochs"
    assert EPOCHS * num_samples % RECIPE.batch_size, "the last batch is a partial one"
    assert replayed == joint
    found, record = read_weights(out)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].numpy().tobytes() == value.detach().contiguous().numpy().tobytes(), name
    (use,) = record["inputs"]["trajectory"]
    assert (use["teacher"], use["teacher_forwards"], use["kl_bound"]) == ("scratch", EPOCHS * num_samples, 0.0)


def test_mixed_views_are_learnt_by_both(world, tmp_path, losses):
    views = views_of(ViewSpace(augment=SHIFTS, mixing=Mixing(mixup=1.0), seed=3), 4)
    trajectory = tmp_path / "trajectories/scratch/seed5.h5"
    record_trajectory("scratch", SEED, knobs_of(views=views), world.school.dataset, trajectory)
    recorded = list(losses)
    losses.clear()
    knobs, files = stage_of(
        world, tmp_path / "a.safetensors", trajectory=trajectory, views=views, expert=None, attention_weight=0
    )
    run_stage("student", SEED, knobs, files)
    assert len(losses) == len(recorded)
    assert np.isfinite(losses).all()


def test_a_second_student_of_another_network_asks_no_teacher(world, tmp_path, monkeypatch):
    built = []
    build = stage_student.build_network

    def noted(model, *others):
        built.append(model)
        return build(model, *others)

    monkeypatch.setattr(stage_student, "build_network", noted)
    before = world.trajectory.read_bytes()
    for model in ("resnet8", "resnet20"):
        knobs, files = stage_of(world, tmp_path / f"{model}.safetensors", model)
        run_stage(model, SEED, knobs, files)
    assert built == ["resnet8", "resnet20"], "no network but the students"
    assert world.trajectory.read_bytes() == before
    assert not list(world.trajectory.parent.glob("*.safetensors")), "there are not even weights of the teacher"


def test_the_trajectory_is_the_soft_label_format_and_its_record_tells_what_it_took(world):
    labels = open_soft_labels(world.trajectory)
    record = read_record(record_path(world.trajectory))
    num_samples = len(labels.sample_ids)
    assert not labels.header.features, "the store keeps attention maps, a trajectory has none"
    assert (labels.views.first, labels.views.stop) == (0, EPOCHS)
    assert record["images_seen"] == EPOCHS * num_samples
    assert record["digest"] == labels.digest
    assert "teacher_forwards" not in record, "they are the training's own"
    assert record["knobs"] == json.loads(
        json.dumps({k: v.model_dump(mode="json") for k, v in vars(knobs_of()).items()})
    )
    assert record["top1_by_epoch"] == (labels.seal.agreement.sum(axis=1) / num_samples).tolist()


def test_recording_again_writes_the_same_bytes(world, tmp_path, capsys):
    out = tmp_path / "trajectories/scratch/seed5.h5"
    record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    assert out.read_bytes() == world.trajectory.read_bytes()
    assert record_path(out).read_bytes() == record_path(world.trajectory).read_bytes()
    capsys.readouterr()
    record_path(out).write_text(record_path(out).read_text() + "\n")
    record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    assert "is there already" in capsys.readouterr().err
    assert record_path(out).read_bytes() == record_path(world.trajectory).read_bytes()


def interrupted(monkeypatch, iteration):
    """Sends SIGTERM to this process after so many iterations of a training."""
    step = Training._step

    def step_and_signal(training, task, batch):
        step(training, task, batch)
        if training.iteration + 1 == iteration:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Training, "_step", step_and_signal)


@pytest.mark.parametrize("iteration", [2, 5, 8])
def test_ended_by_sigterm_it_goes_on_and_makes_the_file_of_one_go(world, tmp_path, monkeypatch, capsys, iteration):
    out = tmp_path / "trajectories/scratch/seed5.h5"
    with monkeypatch.context() as patch:
        interrupted(patch, iteration)
        with pytest.raises(Interrupted) as caught, interruptible():
            record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    assert caught.value.exit_code == 143
    assert not out.exists()
    assert not record_path(out).exists()
    record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    assert f"goes on after iteration {iteration} of" in capsys.readouterr().err
    assert out.read_bytes() == world.trajectory.read_bytes()
    assert record_path(out).read_bytes() == record_path(world.trajectory).read_bytes()
    left = {path.name for path in out.parent.parent.rglob("*") if path.is_file()}
    assert left == {"seed5.h5", "seed5.json"}, "nothing is left of the interrupted attempt"


def test_killed_when_all_is_written_it_only_clears_up(world, tmp_path, monkeypatch, capsys):
    out = tmp_path / "trajectories/scratch/seed5.h5"
    monkeypatch.setenv(fitting_step.CHECKPOINT_VARIABLE, "0")

    def kill(_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fitting_step.ResumableTraining, "finish", kill)
        with pytest.raises(Killed):
            record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    assert list(out.parent.glob(".resume/*/*/*.safetensors"))
    record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    assert "is there already, made from the same by the same" in capsys.readouterr().err
    assert {path.name for path in out.parent.parent.rglob("*") if path.is_file()} == {"seed5.h5", "seed5.json"}


class Killed(BaseException):
    """As abrupt as SIGKILL for what Python has not written yet."""


@pytest.mark.parametrize("iteration", [4, 7])
def test_killed_between_checkpoints_it_goes_on_and_makes_the_file_of_one_go(world, tmp_path, monkeypatch, iteration):
    out = tmp_path / "trajectories/scratch/seed5.h5"
    monkeypatch.setenv(fitting_step.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(fitting_step, "MOST_COST", float("inf"))
    step, write = Training._step, fitting_step.ResumableTraining._write

    def kill(training, task, batch):
        step(training, task, batch)
        if training.iteration == iteration:
            raise Killed

    def write_early(fitting):  # the last ones are lost: epochs were stored since
        return write(fitting) if fitting._training.iteration <= iteration - 3 else 0.0

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_step", kill)
        patch.setattr(fitting_step.ResumableTraining, "_write", write_early)
        with pytest.raises(Killed):
            record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    assert not out.exists()
    record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    assert out.read_bytes() == world.trajectory.read_bytes()


def test_where_a_recorded_epoch_is_lost_it_starts_again(world, tmp_path, monkeypatch, capsys):
    out = tmp_path / "trajectories/scratch/seed5.h5"
    with monkeypatch.context() as patch:
        interrupted(patch, 5)
        with pytest.raises(Interrupted), interruptible():
            record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    for journal in out.parent.parent.glob(".resume/*/journal"):
        journal.unlink()
    record_trajectory("scratch", SEED, knobs_of(), world.school.dataset, out)
    assert "an epoch that was recorded before is lost: the training starts again" in capsys.readouterr().err
    assert out.read_bytes() == world.trajectory.read_bytes()


def test_the_scratch_teacher_starts_elsewhere_for_each_seed_and_never_as_its_student():
    seeds = {scratch_seed(own, seed) for own in (0, 1) for seed in range(20)}
    assert len(seeds) == 40
    assert seeds.isdisjoint(range(20))


def test_a_precision_that_does_not_fit_is_refused(world, tmp_path):
    storage = StorageKnobs(precision="top_k", top_k=10, max_kl=None)
    with pytest.raises(ParamsError, match=r"^soft_labels.digits.storage: "):
        record_trajectory("scratch", SEED, knobs_of(storage), world.school.dataset, tmp_path / "a/b.h5")


def refused(world, tmp_path, error, match, seed=SEED, **changes):
    knobs, files = stage_of(world, tmp_path / "student.safetensors", expert=None, attention_weight=0, **changes)
    with pytest.raises(error, match=match):
        run_stage("student", seed, knobs, files)
    assert not files.out.exists()


def test_a_student_that_sees_something_else_is_refused(world, tmp_path):
    refused(world, tmp_path, OtherViewsError, "was made with stream", seed=SEED + 1)
    other = RECIPE.model_copy(update={"batch_size": 16})
    refused(world, tmp_path, OtherViewsError, "was made with stream", recipe=other)
    cycle = StudentViews(space=NINE, number=None, choice="cycle")
    refused(world, tmp_path, OtherViewsError, "was made with stream", views=cycle)
    drawn = views_of(ViewSpace(augment=SHIFTS, seed=1), 9)
    refused(world, tmp_path, OtherViewsError, "was made with view spec", views=drawn)
    match = (
        f"holds epochs 0-{EPOCHS - 1}, the stage has 2.0 epochs; give both the same number, then record it again with "
    )
    refused(world, tmp_path, OtherViewsError, match, epochs=2)
    refused(
        world, tmp_path, OtherTeacherError, "was made with teacher 'scratch', asked for is 'other'", scratch="other"
    )


@pytest.fixture
def copied(world, tmp_path):
    """The trajectory and its record at another place, to be altered."""
    path = tmp_path / "scratch" / world.trajectory.name
    path.parent.mkdir()
    for source in (world.trajectory, record_path(world.trajectory)):
        (path.parent / source.name).write_bytes(source.read_bytes())
    return path


def test_a_damaged_trajectory_is_refused(world, tmp_path, copied):
    labels = open_soft_labels(copied)
    data = bytearray(copied.read_bytes())
    row = labels.parts["logits"][1, 3].tobytes()
    data[bytes(data).index(row)] ^= 1
    copied.write_bytes(data)
    refused(world, tmp_path, AlteredRowsError, "view 1, rows from 0: altered since written", trajectory=copied)
    copied.unlink()
    refused(world, tmp_path, MissingFileError, "no such file", trajectory=copied)


def test_a_trajectory_without_its_own_record_is_refused(world, tmp_path, copied):
    record = read_record(record_path(copied))
    write_record(record_path(copied), record | {"digest": "0" * 16})
    match = r"speaks of trajectory '0000000000000000', at hand is '\w+'; record it again with `snakemake --force "
    refused(world, tmp_path, UnverifiedError, match, trajectory=copied)
    write_record(record_path(copied), record | {"teacher_digest": "0" * 16})
    refused(world, tmp_path, OtherTeacherError, "was made with teacher digest", trajectory=copied)
    write_record(record_path(copied), {name: value for name, value in record.items() if name != "digest"})
    refused(world, tmp_path, CorruptFileError, "the record lacks 'digest'", trajectory=copied)
    record_path(copied).unlink()
    refused(world, tmp_path, CorruptFileError, "not a readable record", trajectory=copied)


def test_soft_labels_are_not_taken_for_a_trajectory(world, tmp_path):
    refused(world, tmp_path, OtherTeacherError, "was made with teacher 'expert'", **as_trajectory(world, tmp_path))
    changes = as_trajectory(world, tmp_path) | {"scratch": "expert"}
    refused(world, tmp_path, OtherViewsError, "was made with stream ''", **changes)


def as_trajectory(world, tmp_path):
    (path,) = world.paths
    copy = tmp_path / "views.h5"
    copy.write_bytes(path.read_bytes())
    labels = open_soft_labels(path)
    record = {"digest": labels.digest, "teacher_digest": labels.provenance.teacher_digest}
    write_record(record_path(copy), record)
    return {"trajectory": copy}


def test_a_trajectory_of_other_images_is_refused(world, tmp_path):
    other = make_world(tmp_path / "other", per_class=6)
    changed = SimpleNamespace(**vars(world) | {"school": other})
    refused(changed, tmp_path, OtherDatasetError, "was made with dataset digest")


def test_drifted_pixels_are_refused(world, tmp_path, monkeypatch):
    monkeypatch.setattr(StageTask, "__init__", drifted(StageTask.__init__))
    refused(world, tmp_path, PixelDriftError, "was made with pixel canary")


def drifted(init):
    def begin(task, *arguments):
        init(task, *arguments)
        task.batches.canary = lambda *_: "0" * 16

    return begin


def test_a_trajectory_of_too_few_samples_is_refused(world, tmp_path):
    knobs, _ = stage_of(world, tmp_path / "student.safetensors", expert=None, attention_weight=0)
    labels = open_soft_labels(world.trajectory)
    with pytest.raises(MissingRowsError, match=r"samples, the stage teaches 3; record it again"):
        inputs._check_epochs(labels, knobs, labels.sample_ids[:3])


def test_sampled_rows_serve_their_temperature_alone(world, tmp_path):
    storage = StorageKnobs(precision="sampled", draws=20, temperature=2.0, max_kl=None)
    out = tmp_path / "trajectories/scratch/seed5.h5"
    record_trajectory("scratch", SEED, knobs_of(storage), world.school.dataset, out)
    assert read_record(record_path(out))["kl_bound"] is None
    refused(world, tmp_path, OtherTemperatureError, "sampled at temperature 2, this stage teaches at 4", trajectory=out)
    knobs, files = stage_of(
        world, tmp_path / "b.safetensors", trajectory=out, expert=None, attention_weight=0, temperature=2.0
    )
    run_stage("student", SEED, knobs, files)
    assert read_weights(files.out)[1]["inputs"]["trajectory"][0]["kl_bound"] is None


def test_every_sample_is_given_what_was_said_of_it_in_its_epoch(world, tmp_path):
    knobs, files = stage_of(world, tmp_path / "student.safetensors")
    task = inputs.open_stage(SEED, knobs, files, CPU)
    assert read_partition(files.partition, task.dataset).digest == task.partition.digest
    labels = open_soft_labels(world.trajectory)
    num_samples = task.stream.num_samples
    start, stop = num_samples - 5, num_samples + 7
    epochs, ids = task.stream.slice(start, stop)
    batch = task.batch(start, stop)
    assert set(epochs.tolist()) == {0, 1}
    assert np.array_equal(batch.scratch.numpy(), labels.logits(ids, epochs))
    assert replace(batch, scratch=None).targets[0].maps, "the expert's maps are there as well"
    assert labels.header.storage.model_copy(update={"max_kl": EXACT.max_kl}) == EXACT
