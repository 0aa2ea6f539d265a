"""Learning curves: what is in them, that a resumed one is that of one go, and that watching changes nothing."""

import json
import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import EXACT, SHIFTS, TRAINING, make_world
from tasks import Positions

from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import CorruptFileError
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.teacher import FittingKnobs, NetworkKnobs
from edpipe.runtime.device import prepare_device
from edpipe.runtime.signals import Interrupted
from edpipe.steps.run_stage import run_stage
from edpipe.steps.train_teacher import train_teacher
from edpipe.storage.records import read_record, record_path
from edpipe.training import resumable
from edpipe.training.curves.curve_file import read_curve, write_curve
from edpipe.training.curves.settings import CurveSettings, watched
from edpipe.training.curves.validation import validation_of
from edpipe.training.loop import Budget, Training
from edpipe.training.resumable import CHECKPOINT_VARIABLE, ResumableTraining
from edpipe.training.teacher import open_teacher_setup
from edpipe.views.batches import ViewBatches
from edpipe.views.spec import ViewSpec

BATCH, ITERATIONS, POINTS = 4, 10, 4
TARGETS = torch.linspace(-1, 1, BATCH * ITERATIONS)
KEYS = {"iteration", "images", "epoch", "loss", "learning_rate", "val_top1", "training"}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    monkeypatch.setenv("EDPIPE_DEVICE", "cpu")


@pytest.fixture
def every_iteration(monkeypatch):
    """A checkpoint after each iteration, whatever it costs."""
    monkeypatch.setenv(CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(resumable, "MOST_COST", math.inf)


class KilledError(Exception):
    """Stands for the sudden end of a process."""


def make_training():
    torch.manual_seed(0)
    recipe = RecipeKnobs(batch_size=BATCH, schedule="cosine", warmup=0.2)
    return Training(torch.nn.Linear(1, 1), recipe, Budget(BATCH * ITERATIONS, 0.05), 3)


def fit(folder, facts="facts", points=POINTS, before=lambda iteration: None, validate=None, images=5, logger=None):
    """One call, to its end or to its interruption; the losses that were seen."""
    training, losses = make_training(), []

    def loss(network, start, stop):
        before(start // BATCH + 1)
        found = (network(TARGETS[start:stop, None]).squeeze(1) - 1) ** 2
        losses.append(found.mean().item())
        return found

    settings = CurveSettings(curve_of(folder), points, images, logger)
    with watched(settings):
        fitting = ResumableTraining(
            "primary", training, folder / "made" / "a.safetensors", facts, BATCH * ITERATIONS // 2, validate
        )
        fitting.run(Positions(loss))
    return training, losses


def curve_of(folder):
    return folder / "logs" / "curves" / "students" / "e" / "seed0" / "1_primary.json"


def rows(folder):
    return json.loads(curve_of(folder).read_text(encoding="utf-8"))


def top1_by_call():
    """Stands for a validation: 0.1, then 0.2, and so on."""
    seen = []

    def validate(network, most):
        seen.append(most)
        return len(seen) / 10

    return validate


def test_a_row_holds_the_mean_loss_since_the_one_before_and_the_rate(tmp_path):
    training, losses = fit(tmp_path, validate=top1_by_call())
    found = rows(tmp_path)
    # Of 10 iterations and 4 points, rows are due after 2.5, 5, 7.5 and 10.
    ends = [3, 5, 8, 10]
    assert [row["iteration"] for row in found] == ends
    assert [row["images"] for row in found] == [BATCH * end for end in ends]
    assert [row["epoch"] for row in found] == [BATCH * end / 20 for end in ends]
    parts = [losses[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert [row["loss"] for row in found] == pytest.approx([sum(part) / len(part) for part in parts], rel=1e-6)
    assert [row["learning_rate"] for row in found] == [training._rate(end - 1) for end in ends]
    assert [row["val_top1"] for row in found] == [0.1, 0.2, 0.3, 0.4]
    assert all(row.keys() == KEYS for row in found)


def test_every_row_is_a_line_of_json(tmp_path):
    fit(tmp_path)
    first, *lines, last = curve_of(tmp_path).read_text(encoding="utf-8").splitlines()
    assert (first, last) == ("[", "]")
    assert [json.loads(line.removesuffix(",")) for line in lines] == rows(tmp_path)


def test_more_points_than_iterations_give_a_row_each(tmp_path):
    fit(tmp_path, points=1000)
    assert [row["iteration"] for row in rows(tmp_path)] == list(range(1, ITERATIONS + 1))


def test_without_points_or_unwatched_there_is_no_curve(tmp_path):
    fit(tmp_path, points=0)
    assert not curve_of(tmp_path).exists()


def test_without_validation_images_nothing_is_measured(tmp_path):
    def validate(network, most):
        raise AssertionError

    fit(tmp_path, validate=validate, images=0)
    assert [row["val_top1"] for row in rows(tmp_path)] == [None] * POINTS


def test_the_number_of_images_reaches_the_validation(tmp_path):
    seen = []
    fit(tmp_path, validate=lambda network, most: seen.append(most), images=7)
    assert seen == [7] * POINTS


@pytest.mark.parametrize("ending", ["signal", "kill"])
def test_a_curve_that_was_interrupted_anywhere_is_that_of_one_go(tmp_path, every_iteration, ending, capsys):
    fit(tmp_path / "whole", validate=top1_by_call())
    for number in range(1, ITERATIONS + 1):
        folder, validate = tmp_path / str(number), top1_by_call()

        def end(iteration, number=number):
            if iteration == number and ending == "kill":
                raise KilledError
            if iteration == number:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises((KilledError, Interrupted)):
            fit(folder, before=end, validate=validate)
        fit(folder, validate=validate)
        assert curve_of(folder).read_bytes() == curve_of(tmp_path / "whole").read_bytes()


def test_rows_after_the_checkpoint_are_made_again_not_twice(tmp_path, every_iteration, monkeypatch):
    """As when the newest checkpoint is older than the last row: it is by default a minute old."""
    kept = []

    def keep_the_third(checkpoints, tensors, facts, write=resumable.Checkpoints.write):
        if facts["iteration"] == 3 or kept:
            kept.append(facts["iteration"])
        if facts["iteration"] <= 3:
            write(checkpoints, tensors, facts)

    def kill(iteration):
        if iteration == 9:
            raise KilledError

    monkeypatch.setattr(resumable.Checkpoints, "write", keep_the_third)
    with pytest.raises(KilledError):
        fit(tmp_path, before=kill)
    assert [row["iteration"] for row in rows(tmp_path)] == [3, 5, 8]
    begun = []
    fit(tmp_path, before=begun.append)
    assert begun[0] == 4
    assert [row["iteration"] for row in rows(tmp_path)] == [3, 5, 8, 10]
    fit(tmp_path / "whole")
    assert curve_of(tmp_path).read_bytes() == curve_of(tmp_path / "whole").read_bytes()


def test_rows_of_another_training_of_the_same_artifact_go(tmp_path):
    fit(tmp_path, facts="before")
    fit(tmp_path, facts="after", points=2)
    assert len({row["training"] for row in rows(tmp_path)}) == 1
    assert [row["iteration"] for row in rows(tmp_path)] == [5, 10]


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '[{"iteration": "x", "training": ""}]', "[" * 9999, "\0"])
def test_a_file_that_is_no_curve_is_written_anew(tmp_path, text):
    curve_of(tmp_path).parent.mkdir(parents=True)
    curve_of(tmp_path).write_text(text, encoding="utf-8")
    assert read_curve(curve_of(tmp_path)) == []
    fit(tmp_path)
    assert len(rows(tmp_path)) == POINTS


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    write_curve(tmp_path / "curve.json", [])
    assert not (tmp_path / "curve.json").exists()
    with pytest.raises(ValueError, match="Out of range"):
        write_curve(tmp_path / "curve.json", [{"loss": math.nan}])


def test_a_curve_that_cannot_be_written_is_one_line_and_the_training_goes_on(tmp_path, capsys):
    (tmp_path / "logs").write_text("in the way", encoding="utf-8")
    training, _ = fit(tmp_path)
    assert training.iteration == ITERATIONS
    said = [line for line in capsys.readouterr().err.splitlines() if "curve" in line]
    assert len(said) == 1
    assert said[0].startswith(f"primary: curve: {curve_of(tmp_path)}: cannot be")
    assert said[0].endswith("; training goes on without it")


def test_an_image_that_cannot_be_read_is_one_line_and_the_training_goes_on(tmp_path, capsys):
    def validate(network, most):
        raise CorruptFileError("digits.h5: altered")

    fit(tmp_path, validate=validate)
    said = [line for line in capsys.readouterr().err.splitlines() if "validation" in line]
    assert said == ["primary: validation: digits.h5: altered; training goes on without it"]
    assert [row["val_top1"] for row in rows(tmp_path)] == [None] * POINTS


def test_top1_stands_beside_the_loss_on_the_terminal(tmp_path, capsys):
    fit(tmp_path, validate=top1_by_call())
    assert ", val top1 0.4000" in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Digits, and a teacher with its soft labels."""
    made = make_world(tmp_path_factory.mktemp("world"), per_class=30)
    teacher = made.teacher()
    return made, teacher, made.store(teacher, storage=EXACT)


class _Settings:
    """Curves of one world's trainings; None: nothing is watched."""

    def __init__(self, root, images):
        self.path, self.images = root / "logs" / "curves" / "x.json", images

    def __enter__(self):
        self._block = watched(CurveSettings(self.path, 7, self.images))
        self._block.__enter__()

    def __exit__(self, *error):
        self._block.__exit__(*error)


HARD = TRAINING.model_copy(update={"ema_decay": 0.9, "precision": "bfloat16"})


@pytest.mark.slow
@pytest.mark.parametrize(("method", "recipe"), [("kd", HARD), ("teskd", TRAINING)], ids=["kd", "teskd"])
def test_a_student_that_was_watched_is_byte_for_byte_one_that_was_not(world, tmp_path, method, recipe):
    made, teacher, paths = world
    if method == "kd":
        knobs, files = made.stage([teacher], paths)
    else:
        knobs, files = made.stage([], (), own_loss={"kind": "teskd"}, distill_weight=0.0)
    knobs = replace(knobs, recipe=recipe)
    outs = [tmp_path / name / "1_only.safetensors" for name in ("alone", "watched")]
    run_stage("student", 0, knobs, replace(files, out=outs[0]))
    with _Settings(tmp_path, 1000):
        run_stage("student", 0, knobs, replace(files, out=outs[1]))
    for one, other in zip(outs, map(record_path, outs), strict=True):
        assert one.exists()
        assert other.exists()
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert record_path(outs[0]).read_bytes() == record_path(outs[1]).read_bytes()
    found = rows_at(tmp_path)
    assert len(found) == 7
    assert all(0 <= row["val_top1"] <= 1 for row in found)


def rows_at(root):
    return json.loads((root / "logs" / "curves" / "x.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_teacher_is_the_same_watched_or_not_and_its_last_row_has_its_top1(world, tmp_path):
    made, *_ = world
    fitting = FittingKnobs(recipe="any", epochs=2.0, learning_rate=0.05)
    outs = [tmp_path / name / "t.safetensors" for name in ("alone", "watched")]

    def teach(out):
        setup = open_teacher_setup("teacher", made.dataset, made.partition, "primary", SHIFTS, fitting, HARD)
        train_teacher(setup, NetworkKnobs(model="resnet8"), out)

    teach(outs[0])
    with _Settings(tmp_path, 1000):
        teach(outs[1])
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert record_path(outs[0]).read_bytes() == record_path(outs[1]).read_bytes()
    record = read_record(record_path(outs[1]))
    assert record["top1_split"] == "val"
    assert rows_at(tmp_path)[-1]["val_top1"] == record["top1"]


def test_validation_leaves_every_layer_and_every_generator_as_they_were(world):
    made, *_ = world
    dataset = open_dataset(made.dataset)
    batches = ViewBatches(dataset, ViewSpec(SHIFTS, 9, True, 0, dataset.image_size), prepare_device())
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, dataset.num_classes),
    ).train()  # fmt: skip
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()
    validate = validation_of(batches, range(dataset.num_classes), dataset.mean, dataset.std, TRAINING)
    found = validate(network, 7)
    assert found == pytest.approx(round(found * 7) / 7)
    assert [module.training for module in network] == [True, False, True, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(one, other) for one, other in zip(np.random.get_state(), states[1], strict=True))
    assert network(torch.randn(2, 1, 8, 8)).requires_grad


class Own(torch.nn.Module):
    """A network of a method's own: its output is no logits."""

    def forward(self, images):
        return {"features": images}


def test_a_network_that_gives_no_logits_has_no_accuracy(world):
    made, *_ = world
    dataset = open_dataset(made.dataset)
    batches = ViewBatches(dataset, ViewSpec(SHIFTS, 9, True, 0, dataset.image_size), prepare_device())
    validate = validation_of(batches, range(dataset.num_classes), dataset.mean, dataset.std, TRAINING)
    assert validate(Own(), 7) is None


def test_a_split_without_images_has_no_accuracy(world):
    made, *_ = world
    dataset = open_dataset(made.dataset)
    batches = ViewBatches(dataset, ViewSpec(SHIFTS, 9, True, 0, dataset.image_size), prepare_device())
    validate = validation_of(batches, (), dataset.mean, dataset.std, TRAINING)
    assert validate(torch.nn.Flatten(), 7) is None
