"""A teacher's trajectory: what it said of each sample in each epoch is read back, whatever the batches were."""

import numpy as np
import pytest
import tasks
import torch
import torch.nn.functional as F

from edpipe.errors import OtherViewsError
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StorageKnobs
from edpipe.soft_labels.file.format import Header, Provenance
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.writer import create_soft_labels
from edpipe.soft_labels.trajectory import TrajectoryRecorder, trajectory_header
from edpipe.training.loop import Budget
from edpipe.training.sample_stream import SampleStream, stream_text
from edpipe.views.spec import ViewRange

NUM_SAMPLES, NUM_CLASSES, NUM_EPOCHS, BATCH = 23, 4, 3, 5
PROVENANCE = Provenance("old", "all", "0" * 16, "1" * 16, "", "{}", "2" * 16)
IDS = np.arange(NUM_SAMPLES, dtype=np.int64) * 3 + 1
VIEWS_HEADER = Header(
    provenance=PROVENANCE,
    storage=StorageKnobs(precision="float32"),
    views=ViewRange(0, 8),
    sample_ids=IDS,
    sample_keys=IDS.astype(np.uint64),
    labels=(IDS % NUM_CLASSES).astype(np.int32),
    class_ids=np.arange(NUM_CLASSES, dtype=np.int32),
)
HEADER = trajectory_header(VIEWS_HEADER, stream_text(7, BATCH, "random"), NUM_EPOCHS)


def train_and_record(path):
    """Trains a linear teacher with the real loop; every (epoch, sample) with what it said then."""
    torch.manual_seed(0)
    images = torch.randn(int(IDS.max()) + 1, 6)
    network = torch.nn.Linear(6, NUM_CLASSES)
    stream = SampleStream(7, (IDS,), "mixed")
    said = {}
    with create_soft_labels(path, HEADER, "code") as writer:
        recorder = TrajectoryRecorder(writer, HEADER)

        def loss(network, start, stop):
            epochs, ids = stream.slice(start, stop)
            logits = network(images[ids])
            values = logits.detach().numpy().copy()
            recorder.record(epochs, ids, values)
            said.update({(e, i): row for e, i, row in zip(epochs.tolist(), ids.tolist(), values, strict=True)})
            return F.cross_entropy(logits, torch.from_numpy(ids % NUM_CLASSES), reduction="none")

        budget = Budget(NUM_EPOCHS * NUM_SAMPLES, 0.1)
        tasks.train(network, RecipeKnobs(batch_size=BATCH), budget, tasks.Positions(loss))
    return said


def test_every_epoch_of_every_sample_is_read_as_the_teacher_said_it(tmp_path):
    said = train_and_record(tmp_path / "all/trajectory.h5")
    labels = open_soft_labels(tmp_path / "all/trajectory.h5", HEADER.provenance)
    assert len(said) == NUM_EPOCHS * NUM_SAMPLES
    for (epoch, sample), row in said.items():
        found = labels.logits(np.array([sample]), np.array([epoch]))
        assert np.array_equal(found[0], row)


def test_epochs_differ_because_the_teacher_learns(tmp_path):
    train_and_record(tmp_path / "all/trajectory.h5")
    labels = open_soft_labels(tmp_path / "all/trajectory.h5")
    first, last = (labels.logits(IDS, np.full(NUM_SAMPLES, epoch)) for epoch in (0, NUM_EPOCHS - 1))
    assert np.abs(first - last).max() > 0.05


def test_a_trajectory_is_not_taken_for_views_nor_for_that_of_another_stream(tmp_path):
    path = tmp_path / "all/trajectory.h5"
    train_and_record(path)
    with pytest.raises(OtherViewsError, match="was made with stream"):
        open_soft_labels(path, PROVENANCE)
    other = trajectory_header(VIEWS_HEADER, stream_text(8, BATCH, "random"), NUM_EPOCHS)
    with pytest.raises(OtherViewsError, match="was made with stream"):
        open_soft_labels(path, other.provenance)


def recorder_of(tmp_path):
    return create_soft_labels(tmp_path / "all/trajectory.h5", HEADER, "code")


def test_a_sample_twice_in_an_epoch_is_refused(tmp_path):
    logits = np.zeros((2, NUM_CLASSES), np.float32)
    with pytest.raises(ValueError, match="recorded twice in epoch 1"), recorder_of(tmp_path) as writer:
        TrajectoryRecorder(writer, HEADER).record(np.array([1, 1]), IDS[[2, 2]], logits)
    assert not (tmp_path / "all/trajectory.h5").exists()


def test_a_sample_that_is_not_in_the_file_is_refused(tmp_path):
    logits = np.zeros((1, NUM_CLASSES), np.float32)
    for sample in (0, 2, 10_000):
        with pytest.raises(ValueError, match="not all in the trajectory"), recorder_of(tmp_path) as writer:
            TrajectoryRecorder(writer, HEADER).record(np.array([0]), np.array([sample]), logits)
    assert not (tmp_path / "all/trajectory.h5").exists()
