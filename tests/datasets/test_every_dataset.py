"""Each data set, small but in its published layout, from raw files to a student."""

import json
from dataclasses import dataclass, replace
from functools import partial

import pytest
from cifar_examples import PER_PART, small_publication
from layouts import make_cifar, make_fashion_mnist, make_food101, make_image_folder
from published_examples import accept_files
from published_layouts import make_caltech101, make_caltech256, make_imagenet, make_svhn, make_tiny_imagenet
from small_world import SHIFTS, TRAINING, World

from edpipe.datasets.dataset_file import SPLITS, open_dataset
from edpipe.datasets.readers import cifar
from edpipe.datasets.readers.by_name import READERS
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.partition import PartitionKnobs
from edpipe.params.soft_labels import ViewSpace, ViewUse
from edpipe.params.teacher import FittingKnobs, NetworkKnobs
from edpipe.soft_labels.teacher_outputs import TeacherFiles
from edpipe.steps.pack_dataset import pack_dataset
from edpipe.steps.partition_dataset import partition_dataset
from edpipe.steps.run_stage import run_stage
from edpipe.steps.train_teacher import train_teacher
from edpipe.storage.records import record_path
from edpipe.training.teacher import open_teacher_setup

pytestmark = pytest.mark.slow


ONE, ONCE = ViewSpace(augment=SHIFTS), ViewUse(number=1, per_file=1)
"""One drawn view of each image."""


@dataclass(frozen=True)
class Example:
    """How a data set is made in small, and what must come of each class: images in train with val, and in test."""

    make: object
    num_classes: int
    train: int
    test: int
    knobs: tuple = ()


def make_hugging_face(root):
    pytest.importorskip("datasets")
    from hugging_face_examples import save, split_of

    return save(root, train=split_of(24), test=split_of(6, 24))


def make_no_files(root):
    return root / "absent"


EXAMPLES = {
    "caltech101": Example(partial(make_caltech101, per_class=10, archive="zip"), 4, 8, 2),
    "caltech256": Example(partial(make_caltech256, per_class=10, archive=True), 4, 8, 2),
    "cifar10": Example(partial(make_cifar, number=10, per_part=PER_PART), 10, PER_PART // 2, PER_PART // 10),
    "cifar100": Example(partial(make_cifar, number=100, per_part=200), 100, 2, 2),
    "digits": Example(make_no_files, 10, 20, 10, (("max_per_class", 10),)),
    "fashion_mnist": Example(make_fashion_mnist, 10, 4, 2),
    "folder": Example(partial(make_image_folder, splits={"train": 8, "test": 3}), 3, 8, 3),
    "food101": Example(partial(make_food101, num_train=2, num_test=1, archive=True), 101, 2, 1),
    "huggingface": Example(make_hugging_face, 3, 8, 2),
    "imagenet": Example(make_imagenet, 4, 6, 3, (("encoding", "jpeg"), ("stored_side", 18))),
    "svhn": Example(partial(make_svhn, num_train=60, num_test=20, num_extra=20), 10, 8, 2, (("extra", True),)),
    "tiny_imagenet": Example(partial(make_tiny_imagenet, archive=True), 4, 6, 3),
}


def test_every_reader_has_an_example():
    assert set(EXAMPLES) == set(READERS)


def publish(monkeypatch, reader, root):
    """Makes the small files the published ones, where there is a publication."""
    if reader.startswith("cifar"):
        number = int(reader.removeprefix("cifar"))
        images = dict.fromkeys(SPLITS, {10: PER_PART, 100: 200}[number])
        monkeypatch.setattr(cifar, reader.upper(), replace(small_publication(number, root), images=images))
    elif reader not in ("digits", "folder", "huggingface"):
        accept_files(monkeypatch, reader, root)


@pytest.fixture(params=sorted(EXAMPLES))
def packed(request, tmp_path, monkeypatch):
    """The name of a reader, and a world with what it packed."""
    reader, example = request.param, EXAMPLES[request.param]
    root = example.make(tmp_path / "raw")
    publish(monkeypatch, reader, root)
    channels = 1 if reader in ("digits", "fashion_mnist") else 3
    knobs = {"image_size": 8, "channels": channels, "download": False, "val_fraction": 0.1} | dict(example.knobs)
    world = World(tmp_path, tmp_path / "dataset.h5", tmp_path / "partition.json")
    pack_dataset(reader, DatasetKnobs(reader=reader, **knobs), root, world.dataset)
    partition_dataset(world.dataset, PartitionKnobs(subsets=("primary", "middle")), world.partition)
    return reader, world


def test_a_student_is_taught_from_each_data_set(packed):
    reader, world = packed
    example, dataset = EXAMPLES[reader], open_dataset(world.dataset)
    check_counts(example, dataset, json.loads(record_path(world.dataset).read_text()))
    teacher = train(world)
    knobs, files = world.stage([teacher], world.store(teacher, ONE, ONCE), ONE, ONCE)
    run_stage("student", 0, knobs, files)
    record = json.loads(record_path(files.out).read_text())
    assert record["known_class_ids"] == list(range(example.num_classes))
    assert record["images_seen"] == len(dataset.sample_ids("train"))


def check_counts(example, dataset, record):
    """Of each class, in the file as in its record."""
    assert dataset.num_classes == example.num_classes
    each = [list(record["counts"][split].values()) for split in SPLITS]
    assert [train + val for train, val in zip(each[0], each[1], strict=True)] == [example.train] * example.num_classes
    assert each[2] == [example.test] * example.num_classes
    for split, counts in zip(SPLITS, each, strict=True):
        assert sorted(dataset.labels[dataset.sample_ids(split)].tolist()) == [
            label for label, count in enumerate(counts) for _ in range(count)
        ]


def train(world):
    fitting = FittingKnobs(recipe="any", epochs=1.0, learning_rate=0.05)
    setup = open_teacher_setup("teacher", world.dataset, None, "all", SHIFTS, fitting, TRAINING)
    path = world.root / "teachers" / "general" / "all.safetensors"
    train_teacher(setup, NetworkKnobs(model="resnet8"), path)
    return TeacherFiles("general", "all", world.dataset, None, path)
