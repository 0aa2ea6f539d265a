"""Raw files that lie beside a project are found from the folders that DVC makes for its experiments."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edpipe.datasets.dataset_file import open_dataset
from edpipe.models.pretrained.saved_weights import read_file
from edpipe.params.load import parse_params
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.jobs.data import pack_dataset
from edpipe.steps import pack_dataset as step
from edpipe.storage.given_files import EXPERIMENT_FOLDERS, given_path
from edpipe.storage.records import made_by


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """The folder of an experiment of the project in tmp_path/project, and the working folder."""
    folder = tmp_path.joinpath("project", *EXPERIMENT_FOLDERS, "one")
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_relative_paths_count_from_the_project(experiment, tmp_path):
    assert given_path(Path("data/raw/a")) == tmp_path / "project/data/raw/a"
    assert given_path(Path("/data")) == Path("/data")


def test_what_lies_in_the_experiment_is_taken_from_there(experiment):
    (experiment / "data").mkdir()
    assert given_path(Path("data")) == Path("data")


@pytest.mark.parametrize("depth", range(len(EXPERIMENT_FOLDERS) + 1))
def test_other_folders_are_no_experiments(tmp_path, monkeypatch, depth):
    folder = tmp_path.joinpath("project", *EXPERIMENT_FOLDERS[:depth])
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert given_path(Path("data")) == Path("data")


def test_weights_of_a_file_are_found(experiment, tmp_path):
    (tmp_path / "project/mine.pt").write_bytes(b"weights")
    assert read_file("mine.pt") == b"weights"


def test_images_beside_the_project_are_packed(experiment, tmp_path):
    for number in range(8):
        path = tmp_path / f"images/class_{number % 2}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(path)
    raw = load_raw(Path(__file__).resolve().parents[2] / "params.yaml")
    raw["datasets"]["digits"] |= {"reader": "folder", "root": "../images", "test_fraction": 0.5, "val_fraction": 0.5}
    job = pack_dataset(parse_params(raw), "digits")
    with made_by(job.units):
        step.run(job)
    assert open_dataset(job.outputs[0]).num_samples == 8
