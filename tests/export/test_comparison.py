"""Measures of a model on packed images, and classes that are found by name."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from layouts import make_image_folder

from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import ExportError, MismatchError
from edpipe.export.comparison import (
    check_difference,
    columns_of,
    largest_difference,
    measure,
    measures_of,
    negative_log_likelihood,
    spread_over,
)
from edpipe.params.dataset import DatasetKnobs
from edpipe.steps.pack_dataset import pack_dataset


@dataclass
class ByBrightness:
    """A model whose logits depend on the mean pixel alone, with classes in some order."""

    classes: tuple[str, ...]
    image_size: int = 8
    channels: int = 3

    @property
    def description(self):
        return SimpleNamespace(classes=self.classes, preprocessing=self)

    def logits(self, pixels):
        mean = pixels.float().mean(dim=(1, 2, 3)) / 255
        order = torch.tensor([sum(map(ord, name)) % 7 for name in self.classes]) / 7
        return (mean[:, None] * order).numpy()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("packed")
    make_image_folder(root / "raw", ("cat", "dog", "owl"), 10)
    pack_dataset("pets", DatasetKnobs(reader="folder", image_size=8), root / "raw", root / "pets.h5")
    return open_dataset(root / "pets.h5")


def test_measures_of_hand_made_logits():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], np.float32))
    found = measures_of(logits, np.array([0, 2, 0]))
    assert (found.images, found.top1, found.top5) == (3, 2 / 3, 1.0)
    assert found.nll == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.6)) / 3, rel=1e-6)
    assert found.ece == pytest.approx((0.3 + 0.5 + 0.4) / 3, rel=1e-6)


def test_likelihood_is_that_of_torch_and_does_not_overflow():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 300, (50, 7)).astype(np.float32), rng.integers(0, 7, 50)
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels))
    assert negative_log_likelihood(logits, labels) == pytest.approx(float(wanted))


def test_classes_in_another_order_give_the_same_measures(dataset):
    one = measure(ByBrightness(("cat", "dog", "owl")), dataset, "test")
    other = measure(ByBrightness(("owl", "cat", "dog")), dataset, "test")
    assert one == other
    assert one.images == len(dataset.sample_ids("test"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            ByBrightness(("cat", "dog", "yak")),
            "other classes than the model's: 1 only in the data set, first 'owl'; 1 only in the model, first 'yak'",
        ),
        (ByBrightness(("cat", "dog", "owl", "owl")), "a class name is there twice"),
        (
            ByBrightness(("cat", "dog", "owl"), channels=1),
            "holds images of 3×8², the model takes 1×8²; pack a data set with channels: 1 and image_size: 8",
        ),
        (ByBrightness(("cat", "dog", "owl"), image_size=9), "holds images of 3×8², the model takes 3×9²"),
    ],
)
def test_another_data_set_is_refused(dataset, model, message):
    with pytest.raises(MismatchError) as raised:
        columns_of(model, dataset)
    assert str(raised.value).startswith(f"{dataset.path}: {message}")


def test_a_split_without_images_is_refused(dataset, monkeypatch):
    monkeypatch.setattr(type(dataset), "sample_ids", lambda *_: np.empty(0, np.int64))
    with pytest.raises(MismatchError, match=r"split val has no image; choose another --split"):
        measure(ByBrightness(("cat", "dog", "owl")), dataset, "val")


@pytest.mark.parametrize(("largest", "difference"), [(20.0, 0.01 / 20), (0.5, 0.01)])
def test_a_difference_is_relative_to_large_logits(largest, difference):
    wanted = np.array([[largest, 0.0]], np.float32)
    assert largest_difference(wanted + np.float32(0.01), wanted) == pytest.approx(difference, rel=1e-3)


@pytest.mark.parametrize("difference", [1.1e-4, float("nan")])
def test_a_file_that_differs_is_refused(difference):
    check_difference(1e-4, 100)
    with pytest.raises(ExportError, match=r"onnx: on 100 test images a logit differs by \S+ of the largest logit"):
        check_difference(difference, 100)


def test_chosen_samples_are_spread_evenly():
    assert spread_over(np.arange(10, 110), 3).tolist() == [10, 59, 109]
    assert spread_over(np.arange(2), 3).tolist() == [0, 1]
