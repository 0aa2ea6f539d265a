"""Training that is interrupted and called again ends with the weights of training that was not, bit for bit."""

import math
import os
import re
import signal
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks import Positions
from torch import nn

from edpipe.errors import EdpipeError, TrainingError
from edpipe.models.forward import forward
from edpipe.params.recipe import RecipeKnobs
from edpipe.runtime import signals
from edpipe.runtime.distributed import Group
from edpipe.runtime.signals import Interrupted
from edpipe.training import resumable
from edpipe.training.loop import Budget, Training
from edpipe.training.resumable import CHECKPOINT_VARIABLE, ResumableTraining, checkpoint_seconds

torch.set_num_threads(1)
BATCH, ITERATIONS = 4, 6
BUDGET = Budget(BATCH * ITERATIONS, 0.05)
IMAGES = torch.randn(BATCH * ITERATIONS, 3, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(len(IMAGES)) % 5
RECIPES = {
    "sgd": {"weight_decay": 5e-4, "schedule": "cosine", "warmup": 0.2},
    "plain descent": {"momentum": 0.0, "schedule": "step"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.05},
    "clipped one cycle": {"clip_norm": 0.5, "decay": "matrices", "schedule": "one_cycle", "warmup": 0.3},
    "sgd with a running mean": {"ema_decay": 0.9},
}
EVERYTHING = {"optimizer": "adamw", "ema_decay": 0.99, "precision": "bfloat16"}
RECIPES["everything"] = RECIPES["clipped one cycle"] | EVERYTHING


def make_network():
    """Every kind of layer whose state or chance must come back: batch normalisation, dropout, odd shapes of weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.Dropout2d(0.2),
            nn.Conv2d(8, 6, 1, bias=False),
            nn.BatchNorm2d(6, momentum=None),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(6, 5),
        )
    return network.to(memory_format=torch.channels_last)


def make_training(recipe="sgd", group=None):
    knobs = RecipeKnobs(batch_size=BATCH, **RECIPES[recipe])
    return Training(make_network(), knobs, BUDGET, 3, group or Group())


def learning(training, before_iteration=lambda iteration: None):
    """The task of telling the labels of the images; `before_iteration` is called with 1 for the first."""

    def loss(network, start, stop):
        before_iteration(start // BATCH + 1)
        images = IMAGES[start:stop].to(memory_format=torch.channels_last)
        return nn.functional.cross_entropy(
            forward(network, images, training.recipe), LABELS[start:stop], reduction="none"
        )

    return Positions(loss)


def bits(training):
    """All that the network holds."""
    return {name: value.clone() for name, value in training.network.state_dict().items()}


@cache
def undisturbed(recipe="sgd"):
    """Weights and mean loss of the last tenth, of training that nothing is asked of in between."""
    training = make_training(recipe)
    list(training.run(learning(training)))
    training.finish()
    return bits(training), training.mean_tail_loss


def check_equal(training, loss, recipe="sgd"):
    weights, expected_loss = undisturbed(recipe)
    found = bits(training)
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(found[name], value), name
    assert loss == expected_loss


def signalling(at, number=signal.SIGTERM):
    """Sends this process a signal in each of these iterations."""
    return lambda iteration: os.kill(os.getpid(), number) if iteration in at else None


class Folder:
    """Where one artifact is made, in one call of Fitting after the other."""

    def __init__(self, root):
        self.out = root / "seed0" / "1_primary.safetensors"
        self.resume = self.out.parent / ".resume"

    def fit(self, recipe="sgd", before_iteration=lambda iteration: None, facts="facts", training=None):
        """One call, undisturbed or to its interruption; the training and its loss, None if it was interrupted."""
        training = training or make_training(recipe)
        self.fitting = ResumableTraining("primary", training, self.out, facts, len(IMAGES))
        try:
            return training, self.fitting.run(learning(training, before_iteration))
        except Interrupted:
            return training, None

    def iterations(self):
        """Of the checkpoints that lie there."""
        return sorted(int(path.name[:10]) for path in self.resume.glob("*/*/*.safetensors"))

    def newest(self):
        return max(self.resume.glob("*/*/*.safetensors"))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def every_iteration(monkeypatch):
    """A checkpoint after each iteration, whatever it costs."""
    monkeypatch.setenv(CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(resumable, "MOST_COST", math.inf)


class KilledError(Exception):
    """Stands for the sudden end of a process."""


def killing(at):
    """Ends this process, so to speak, in this iteration."""

    def kill(iteration):
        if iteration == at:
            raise KilledError

    return kill


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_resumed_after_any_iteration_the_weights_are_those_of_one_go(tmp_path, recipe, capsys):
    for iteration in range(1, ITERATIONS + 1):
        folder = Folder(tmp_path / str(iteration))
        assert folder.fit(recipe, signalling([iteration]))[1] is None
        assert folder.iterations() == [iteration]
        capsys.readouterr()
        check_equal(*folder.fit(recipe), recipe)
        goes_on, last = capsys.readouterr().err.splitlines()
        assert goes_on == f"primary: goes on after iteration {iteration} of 6, from {folder.newest()}"
        assert last.startswith("primary: 24/24 images, ")


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(RECIPES)), st.sets(st.integers(1, ITERATIONS)), st.sampled_from(["SIGTERM", "SIGINT"]))
def test_interrupted_any_number_of_times_the_weights_are_those_of_one_go(recipe, iterations, name):
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root))
        for iteration in sorted(iterations):
            _, loss = folder.fit(recipe, signalling([iteration], signal.Signals[name]))
            assert loss is None
            assert folder.iterations()[-1] == iteration
        check_equal(*folder.fit(recipe), recipe)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["sgd", "everything"])
def test_killed_in_any_iteration_it_goes_on_from_the_checkpoint_before(tmp_path, recipe, every_iteration):
    for iteration in range(1, ITERATIONS + 1):
        folder = Folder(tmp_path / str(iteration))
        with pytest.raises(KilledError):
            folder.fit(recipe, killing(iteration))
        assert folder.iterations() == [i for i in (iteration - 2, iteration - 1) if i > 0]
        begun = []
        check_equal(*folder.fit(recipe, begun.append), recipe)
        assert begun == list(range(iteration, ITERATIONS + 1))


def test_writing_checkpoints_changes_nothing(folder, every_iteration):
    check_equal(*folder.fit("everything"), "everything")
    assert folder.iterations() == [ITERATIONS - 1, ITERATIONS]


FACTS = {
    "knobs": {"recipe": {"momentum": 0.9}},
    "inputs": {"previous": "aa", "soft_labels": [{"digest": "b"}]},
    "seed": 1,
}


@pytest.mark.parametrize(
    "other",
    [
        FACTS | {"knobs": {"recipe": {"momentum": 0.8}}},
        FACTS | {"inputs": FACTS["inputs"] | {"previous": "ab"}},
        FACTS | {"inputs": FACTS["inputs"] | {"soft_labels": [{"digest": "c"}]}},
        FACTS | {"seed": 2},
        FACTS | {"code": "d"},
    ],
)
def test_other_facts_start_anew(folder, capsys, other):
    folder.fit(before_iteration=signalling([3]), facts=FACTS)
    begun = []
    check_equal(*folder.fit(before_iteration=begun.append, facts=other))
    assert begun == [1, 2, 3, 4, 5, 6]
    assert "goes on" not in capsys.readouterr().err
    begun.clear()
    check_equal(*folder.fit(before_iteration=begun.append, facts=dict(reversed(FACTS.items()))))
    assert begun == [4, 5, 6]


@pytest.mark.parametrize(
    ("num_damaged", "begins_with", "goes_on"), [(1, 4, ["primary: goes on after iteration 3 of 6"]), (2, 1, [])]
)
def test_damaged_checkpoints_are_named_and_training_goes_on_from_before_them(
    folder, every_iteration, capsys, num_damaged, begins_with, goes_on
):
    with pytest.raises(KilledError):
        folder.fit(before_iteration=killing(5))
    damaged = sorted(folder.resume.glob("*/*/*"), reverse=True)[:num_damaged]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    begun = []
    check_equal(*folder.fit(before_iteration=begun.append))
    said = [line for line in capsys.readouterr().err.splitlines() if "images/s" not in line]
    assert said[:num_damaged] == [f"primary: {path} is damaged and left out" for path in damaged]
    assert [line.partition(",")[0] for line in said[num_damaged:]] == goes_on
    assert begun == list(range(begins_with, ITERATIONS + 1))


def test_where_no_checkpoint_can_be_written_training_goes_on_and_says_so(folder, every_iteration, capsys):
    folder.out.parent.mkdir()
    folder.resume.write_text("in the way")
    check_equal(*folder.fit())
    lines = [line for line in capsys.readouterr().err.splitlines() if "images/s" not in line]
    line = r"primary: checkpoint: .*/\d{10}-[0-9a-f]{16}\.safetensors: cannot be written: .*; training goes on"
    assert len(lines) == ITERATIONS
    assert all(re.fullmatch(line, each) for each in lines)
    assert folder.fit(before_iteration=signalling([2]))[1] is None


def breaking(at):
    """Makes the loss of this iteration, and of every later one, infinite."""

    def loss(network, start, stop):
        factor = math.inf if start // BATCH + 1 >= at else 1.0
        return factor * nn.functional.cross_entropy(network(IMAGES[start:stop]), LABELS[start:stop], reduction="none")

    return Positions(loss)


def failure(folder, task, training=None):
    """The one line of the error."""
    fit = ResumableTraining("primary", training or make_training(), folder.out, "facts", len(IMAGES))
    with pytest.raises(TrainingError) as caught:
        fit.run(task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_broken_loss_names_the_last_good_checkpoint(folder, every_iteration):
    line = failure(folder, breaking(at=4))
    assert line.startswith("primary: loss became inf at iteration 4 of 6 (learning rate ")
    assert line.endswith(f"; the last good checkpoint is {folder.newest()}")
    assert folder.iterations() == [2, 3]
    folder.newest().write_bytes(b"")
    assert failure(folder, breaking(at=3)).endswith(f"; the last good checkpoint is {min(folder.resume.glob('*/*/*'))}")


def test_without_a_checkpoint_a_broken_loss_names_none(folder):
    line = failure(folder, breaking(at=4))
    assert line.endswith("or use precision: float32")


def test_weights_that_are_no_numbers_are_not_written(folder, every_iteration):
    training = make_training()

    def spoil(iteration):
        if iteration == 3:
            with torch.no_grad():
                training.network[1].running_mean.fill_(math.nan)

    line = failure(folder, learning(training, spoil), training)
    assert line.startswith("primary: weight 1.running_mean is no longer finite at iteration 3 of 6; ")
    assert line.endswith(f"; the last good checkpoint is {folder.newest()}")
    assert folder.iterations() == [1, 2]


class Clock:
    """Time passes in iterations, a second each, and where checkpoints are written."""

    def __init__(self, patch, cost_s):
        self.now_s, self.written = 100.0, []
        write = resumable.Checkpoints.write

        def slow_write(checkpoints, tensors, facts):
            write(checkpoints, tensors, facts)
            self.written.append(facts["iteration"])
            self.now_s += cost_s

        patch.setattr(resumable.Checkpoints, "write", slow_write)
        patch.setattr(resumable, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def tick(self, _):
        self.now_s += 1


@pytest.mark.parametrize(
    ("every_s", "cost_s", "written"),
    [
        ("2", 0.0, [2, 4, 6]),
        ("2.5", 0.0, [3, 6]),
        ("0", 0.0, [1, 2, 3, 4, 5, 6]),
        ("6", 0.0, [6]),
        ("7", 0.0, []),
        ("1", 2**-6, [1, 2, 3, 4, 5, 6]),
        # An eighth of a second may be spent every six and a quarter, a thirty-second every one and a half.
        ("1", 0.125, [1]),
        ("1", 2**-5, [1, 3, 5]),
    ],
)
def test_checkpoints_are_written_as_often_as_asked_for_if_that_takes_a_fiftieth_of_the_time(
    folder, monkeypatch, every_s, cost_s, written
):
    monkeypatch.setenv(CHECKPOINT_VARIABLE, every_s)
    clock = Clock(monkeypatch, cost_s)
    folder.fit(before_iteration=clock.tick)
    assert clock.written == written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_training_after_its_iteration(folder, number):
    with pytest.raises(Interrupted) as raised:
        ResumableTraining("primary", training := make_training(), folder.out, "facts", 24).run(
            learning(training, signalling([2], number))
        )
    assert raised.value.number == number
    assert training.iteration == 2
    assert folder.iterations() == [2]


def test_a_second_signal_ends_training_at_once(folder, monkeypatch):
    monkeypatch.setattr(signals, "SAME_S", 0.0)
    training, loss = folder.fit(before_iteration=lambda i: [signalling([3])(i) for _ in range(2)])
    assert loss is None
    assert training.iteration == 2
    assert folder.iterations() == []


def test_a_signal_after_the_last_iteration_is_not_lost(folder):
    training = make_training("sgd with a running mean")
    run = training.run

    def run_and_signal(task):
        yield from run(task)
        os.kill(os.getpid(), signal.SIGTERM)

    training.run = run_and_signal
    assert folder.fit(training=training)[1] is None
    assert folder.iterations() == [ITERATIONS]
    check_equal(*folder.fit("sgd with a running mean"), "sgd with a running mean")


class SecondProcess(Group):
    """Stands for one that trains together with others."""

    is_main = False


def test_only_the_first_of_several_processes_writes_and_removes(folder, every_iteration):
    folder.fit(training=make_training(group=SecondProcess()))
    assert not folder.resume.exists()
    folder.fit(before_iteration=signalling([2]))
    folder.fit(training=make_training(group=SecondProcess()))
    folder.fitting.finish()
    assert folder.iterations() == [1, 2]


def test_checkpoints_are_removed_at_the_end(folder, every_iteration):
    folder.fit(facts="of an earlier attempt")
    folder.fit()
    assert len(folder.iterations()) == 4
    folder.fitting.finish()
    assert list(folder.out.parent.iterdir()) == []


def test_checkpoints_that_cannot_be_removed_are_no_failure(folder, tmp_path, capsys):
    folder.fit()
    folder.resume.mkdir(parents=True)
    (folder.resume / "1_primary").symlink_to(tmp_path)
    folder.fitting.finish()
    path = folder.resume / "1_primary"
    line = f"primary: {path}: cannot be removed: Cannot call rmtree on a symbolic link; remove it by hand"
    assert capsys.readouterr().err.splitlines()[-1] == line


@pytest.mark.parametrize(("text", "seconds"), [(None, 60), ("", 60), ("0", 0), ("2.5", 2.5), ("1e3", 1000)])
def test_seconds_between_checkpoints_come_from_the_environment(monkeypatch, text, seconds):
    monkeypatch.delenv(CHECKPOINT_VARIABLE, raising=False)
    if text is not None:
        monkeypatch.setenv(CHECKPOINT_VARIABLE, text)
    assert checkpoint_seconds() == seconds


@pytest.mark.parametrize("text", ["often", "-1", "nan", "inf", "1e400", "60 s", " "])
def test_seconds_that_are_none_are_refused_before_training(folder, monkeypatch, text):
    monkeypatch.setenv(CHECKPOINT_VARIABLE, text)
    with pytest.raises(EdpipeError) as caught:
        folder.fit()
    line = f"EDPIPE_CHECKPOINT_SECONDS={text!r}: must be a number of seconds from 0 on; mend or unset it"
    assert str(caught.value) == line
