"""Food-101 from its folder to a result, with the shipped params.yaml and with a shrunk one."""

import hashlib
import json
import re

import numpy as np
import pytest
import safetensors.torch
from layouts import FOOD101_CLASSES, make_food101
from project import ROOT, make_project

from edpipe.datasets.dataset_file import open_dataset
from edpipe.models.zoo.build import build_network
from edpipe.params.yaml_file import load_raw
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.storage.weights import read_weights

pytestmark = pytest.mark.slow

SUBSETS = ("primary", "middle", "university")
SIDES = {
    "primary": 16,
    "middle": 16,
    "university_112": 16,
    "university_160": 24,
    "university_192": 28,
    "university": None,
}
"""By level, where images of full size have 32 pixels."""
TEACHER = "food101_teacher"
FULL_JOB = {
    "pack_dataset": 1,
    "partition_dataset": 1,
    "fetch_teacher": 1,
    "dump_soft_labels": 1,
    "verify_soft_labels": 1,
    "evaluate_teacher": 1,
    "run_stage": 18,
    "evaluate": 3,
    "result": 1,
    "total": 28,
}
TRAIN_IMAGES, TEST_IMAGES, FOREIGN_CLASSES = 3, 2, 7


def shrunk_params(root, weights):
    """The shipped params with small images, few of them, one seed, and teachers from a local file."""
    params = load_raw(ROOT / "params.yaml")
    params["datasets"]["food101"] |= {"root": str(root), "download": False, "image_size": 32, "stored_side": 36}
    params["recipes"]["photographs"] |= {"batch_size": 32, "precision": "float32", "weight_decay": 1e-4}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    network = {"model": "resnet8", "source": "file", "location": str(weights), "sha256": digest}
    fitting = {"recipe": "photographs", "epochs": 0.5, "learning_rate": 0.02}
    params["teachers"][TEACHER] |= {"network": network, "fitting": fitting, "min_top1": 0.0}
    params["soft_labels"]["food101"]["views"]["number"] = 2
    stages = {level: {"images": 64} | ({"image_size": side} if side else {}) for level, side in SIDES.items()}
    params["experiments"]["food101_ed"] |= {"seeds": [0], "stages": stages}
    return params


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project folder in which the whole experiment ran."""
    folder = tmp_path_factory.mktemp("food101")
    raw = make_food101(folder / "raw", TRAIN_IMAGES, TEST_IMAGES)
    weights = folder / "teacher.safetensors"
    safetensors.torch.save_file(build_network("resnet8", FOREIGN_CLASSES, 3, 0).state_dict(), weights)
    project = make_project(folder / "project", shrunk_params(raw, weights))
    ran = project.snakemake("--", "results/food101_ed.json")
    assert ran.rc == 0, ran.err
    assert planned_jobs(ran) == FULL_JOB | {"run_stage": 6, "evaluate": 1, "total": 14}
    return project


def planned_jobs(ran):
    """Snakemake's table of job counts."""
    table = (ran.out + ran.err).partition("Job stats:")[2].partition("\n\n")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)", table, re.MULTILINE)}


def test_shipped_params_plan_the_full_job(tmp_path):
    ran = make_project(tmp_path / "project").snakemake("-n", "--", "results/food101_ed.json")
    assert ran.rc == 0, ran.err
    assert planned_jobs(ran) == FULL_JOB


def test_dataset_has_the_classes_and_counts_of_the_folder(finished):
    dataset = open_dataset(finished.root / "artifacts/datasets/food101.h5")
    assert dataset.class_names == FOOD101_CLASSES
    assert (dataset.encoding, dataset.image_size, dataset.channels) == ("jpeg", 32, 3)
    in_test = dataset.splits == 2
    assert np.bincount(dataset.labels[in_test]).tolist() == [TEST_IMAGES] * 101
    assert np.bincount(dataset.labels[~in_test]).tolist() == [TRAIN_IMAGES] * 101


def test_labels_are_those_of_the_images_folders(finished):
    """Images of one class are alike: each stored test image is nearest to the training images of its own class."""
    dataset = open_dataset(finished.root / "artifacts/datasets/food101.h5")
    pixels = np.stack([dataset.decode(i)[:, 4:36:9, 4:43:10].reshape(-1) for i in range(dataset.num_samples)])
    train, test = dataset.sample_ids("train"), dataset.sample_ids("test")
    distances = np.abs(pixels[test, None].astype(int) - pixels[None, train].astype(int)).sum(axis=2)
    assert (dataset.labels[train[distances.argmin(axis=1)]] == dataset.labels[test]).all()


def test_partition_deals_every_class_to_one_level(finished):
    subsets = finished.read_json("results/food101_ed.json")["data"]["subsets"]
    assert [subset["name"] for subset in subsets] == list(SUBSETS)
    assert [len(subset["class_ids"]) for subset in subsets] in ([34, 34, 33], [33, 34, 34], [34, 33, 34])
    assert sorted(c for subset in subsets for c in subset["class_ids"]) == list(range(101))


def test_the_teacher_is_fetched_and_gets_a_fresh_classifier(finished):
    weights, record = read_weights(finished.root / f"artifacts/teachers/food101/{TEACHER}/all.safetensors")
    assert record["step"] == "fetch_teacher"
    assert record["fresh_classifier"] is True
    assert record["class_ids"] == list(range(101))
    build_network("resnet8", 101, 3, 0).load_state_dict(weights)


def test_soft_labels_cover_the_training_images(finished):
    dataset = open_dataset(finished.root / "artifacts/datasets/food101.h5")
    labels = open_soft_labels(finished.root / f"artifacts/soft_labels/food101/{TEACHER}/all/views_0-1.h5")
    assert labels.class_ids.tolist() == list(range(101))
    assert labels.sample_ids.tolist() == dataset.sample_ids("train").tolist()
    assert labels.views.num_views == 2


def test_students_know_all_classes_from_the_first_level_and_grow(finished):
    sizes = []
    for number, level in enumerate(SIDES, 1):
        path = finished.root / f"artifacts/students/food101_ed/seed0/{number}_{level}.safetensors"
        weights, record = read_weights(path)
        assert record["known_class_ids"] == list(range(101))
        sizes.append(sum(name.endswith("conv1.weight") for name in weights))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_result_is_measured_on_the_official_test_images(finished):
    evaluation = finished.read_json("artifacts/evaluations/food101_ed/seed0.json")
    assert evaluation["metrics"]["test_samples"] == 101 * TEST_IMAGES
    assert evaluation["data"]["class_names"] == list(FOOD101_CLASSES)
    assert [stage["images_seen"] for stage in evaluation["stages"]] == [64] * 6
    assert 0 <= evaluation["metrics"]["top1"] <= 1
    assert "food101" in json.dumps(finished.read_json("results/food101_ed.json"))
