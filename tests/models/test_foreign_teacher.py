"""A teacher of another program's checkpoint, for more classes and under other names, through the command line."""

import copy
import hashlib
from pathlib import Path

import pytest
import torch
from project import as_yaml, tiny_params

from edpipe.cli.main import main
from edpipe.models.pretrained.classifier import classifier_weights
from edpipe.models.zoo.build import build_network
from edpipe.params.load import load_params
from edpipe.pipeline.jobs import data, teachers
from edpipe.storage.weights import read_weights

pytestmark = pytest.mark.slow
THEIR_NAMES = ("twelve", "nine", "eight", "seven", "six", "five", "four", "three", "two", "one", "zero", "eleven")
CLASS_MAP = dict(zip("9876543210", THEIR_NAMES[1:11], strict=True))


def their_network():
    """With batch statistics that a pass in training mode would change."""
    network = build_network("resnet8", num_classes=len(THEIR_NAMES), channels=1, seed=3)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "running_mean" in name:
                value += 0.1
    return network


def teacher(location, epochs=0, layers="all", **network):
    sha256 = hashlib.sha256(Path(location).read_bytes()).hexdigest()
    file = {"model": "resnet8", "source": "file", "location": str(location), "sha256": sha256, "rename": "by_order"}
    fitting = {"recipe": "tiny", "epochs": epochs, "learning_rate": 0.05, "layers": layers}
    return {"network": file | network, "fitting": fitting, "min_top1": 0.0}


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """Makes these teachers; weights and record of each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    monkeypatch.setenv("EDPIPE_DEVICE", "cpu")
    monkeypatch.delenv("DVC_STAGE", raising=False)
    weights = {f"_layer{number}": value for number, value in enumerate(their_network().state_dict().values())}
    torch.save({"state_dict": weights, "epoch": 90}, "theirs.pth")

    def make(teachers):
        raw = copy.deepcopy(tiny_params())
        raw["datasets"]["digits"]["max_per_class"] = 8
        raw["teachers"] |= teachers
        Path("params.yaml").write_text(as_yaml(raw), encoding="utf-8")
        for job in (data.pack_dataset(load_params(), "digits"), *map(_job, teachers)):
            assert main(job.command.split()[1:]) == 0, job.command
        return {name: read_weights(Path(f"artifacts/teachers/digits/{name}/all.safetensors")) for name in teachers}

    return make


def _job(name):
    return teachers.make_teacher(load_params(), "digits", name, "all")


def test_as_they_are_its_outputs_for_our_classes_are_theirs(fetched):
    known = {"class_names": list(THEIR_NAMES), "class_map": CLASS_MAP, "mean": [0.25], "std": [0.5]}
    weights, record = fetched({"theirs": teacher("theirs.pth", **known)})["theirs"]
    expected = their_network().state_dict()
    rows = [THEIR_NAMES.index(CLASS_MAP[str(digit)]) for digit in range(10)]
    for name, value in weights.items():
        wanted = expected[name][rows] if name.startswith("fc.") else expected[name]
        assert torch.equal(value, wanted), name
    assert (record["mean"], record["std"], record["fresh_classifier"]) == ([0.25], [0.5], False)
    assert "images_seen" not in record


def test_a_probe_changes_the_last_layer_and_nothing_else(fetched, capfd):
    found = fetched(
        {
            "probe": teacher("theirs.pth", epochs=2, layers="classifier"),
            "tuned": teacher("theirs.pth", epochs=2),
        }
    )
    expected = their_network().state_dict()
    last = set(classifier_weights(their_network()))
    probe, record = found["probe"]
    assert record["fresh_classifier"]
    assert record["images_seen"] > 0
    drawn = build_network("resnet8", 10, 1, seed=0).state_dict()
    for name, value in probe.items():
        if name in last:
            assert not torch.equal(value, drawn[name]), name
        else:
            assert torch.equal(value, expected[name]), name
    tuned, _ = found["tuned"]
    changed = {name for name in tuned if name not in last and not torch.equal(tuned[name], expected[name])}
    assert changed == tuned.keys() - last


def test_without_names_a_teacher_of_other_classes_needs_training(fetched, capsys):
    with pytest.raises(AssertionError):
        fetched({"theirs": teacher("theirs.pth")})
    assert capsys.readouterr().err.splitlines()[-1] == (
        "edpipe: teacher theirs/all: the fetched 'resnet8' does not have 10 classes, so its classifier is untrained; "
        "set fitting.epochs above 0 to fine-tune it, or name its classes in class_names"
    )


def test_a_class_that_they_do_not_have_is_one_line(fetched, capsys):
    known = {"class_names": list(THEIR_NAMES), "class_map": CLASS_MAP | {"3": "thre"}}
    with pytest.raises(AssertionError):
        fetched({"theirs": teacher("theirs.pth", **known)})
    assert capsys.readouterr().err.splitlines()[-1] == (
        "edpipe: teacher theirs/all: network.class_names has no 'thre' for class '3'; name it in "
        "network.class_map; did you mean 'three'?"
    )
