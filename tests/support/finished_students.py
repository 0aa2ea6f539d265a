"""A project folder with finished students: of digits (two seeds), and of photographs, a network of timm in bfloat16."""

import atexit
import shutil
import tempfile
from contextlib import chdir
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from layouts import make_image_folder
from project import as_yaml, tiny_params

from edpipe.datasets.dataset_file import open_dataset
from edpipe.models.zoo.build import build_network
from edpipe.params.load import load_params
from edpipe.params.recipe import RecipeKnobs
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.results.measures.predictions import PlainImages, plain_logits
from edpipe.storage.records import made_by
from edpipe.storage.weights import read_weights

DIGITS, PHOTOS = "ce", "photos_ce"
TIMM = "test_resnet"
"""A network of timm with 0.5 M parameters, made for tests."""
STUDENTS = {DIGITS: ("digits", 0), PHOTOS: ("photos", 3)}
"""For each experiment its data set and its first seed."""


def params():
    """The two experiments, in seconds of work."""
    raw = tiny_params()
    raw["datasets"]["photos"] = {
        "reader": "folder",
        "root": "photos",
        "image_size": 32,
        "encoding": "jpeg",
        "stored_side": 40,
        "val_fraction": 0,
    }
    raw["recipes"]["brief"] = {"batch_size": 16, "precision": "bfloat16"}
    raw["students"]["timm"] = {"model": f"timm:{TIMM}"}
    raw["soft_labels"]["photos"] = raw["soft_labels"]["digits"]
    ce = raw["experiments"][DIGITS] | {"seeds": [0, 1]}
    own = {"dataset": "photos", "student": "timm", "recipe": "brief", "seeds": [3]}
    return raw | {"experiments": {DIGITS: ce, PHOTOS: ce | own}, "tracked": []}


@cache
def _template():
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make_image_folder(folder / "photos", ("cat", "dog", "owl", "yak"), 8, size=(60, 44), suffix=".jpg")
    (folder / "params.yaml").write_text(as_yaml(params()), encoding="utf-8")
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        for job in jobs_of(load_params(), STUDENTS):
            if job.step != "report":
                with made_by(job.units):
                    more = {"costs": ()} if job.step == "result" else {}
                    import_module(f"edpipe.steps.{job.step}").run(job, **more)
    return folder


def make_finished(folder):
    """A copy of the folder, made once for all tests of a process."""
    shutil.copytree(_template(), folder, dirs_exist_ok=True)
    return Path(folder)


def dataset_of(experiment):
    """The packed images of an experiment, in the present folder."""
    return open_dataset(Path(f"artifacts/datasets/{STUDENTS[experiment][0]}.h5"))


def evaluated_logits(experiment, sample_ids):
    """What the pipeline's evaluation computes for these samples with the student of the first seed."""
    path = next(Path(f"artifacts/students/{experiment}/seed{STUDENTS[experiment][1]}").glob("*.safetensors"))
    dataset, (weights, record) = dataset_of(experiment), read_weights(path)
    network = build_network(record["knobs"]["student"]["model"], dataset.num_classes, dataset.channels, 7)
    network.load_state_dict(weights)
    recipe = RecipeKnobs.model_validate(record["knobs"]["recipe"])
    return plain_logits(network, recipe, PlainImages(dataset, dataset.mean, dataset.std), np.asarray(sample_ids))
