"""Which student a result or an experiment stands for, and what is refused."""

import json
from pathlib import Path

import pytest
from finished_students import DIGITS, PHOTOS, make_finished

from edpipe.errors import CorruptFileError, MismatchError, MissingFileError, UsageError
from edpipe.export.finished import find_student
from edpipe.models.zoo.names import is_known
from edpipe.storage.records import read_record, record_path, write_record
from edpipe.storage.weights import read_weights, write_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
STUDENT = Path("artifacts/students/ce/seed0/1_only.safetensors")
DATASET_RECORD = Path("artifacts/datasets/digits.json")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(make_finished(tmp_path))
    return tmp_path


def test_the_first_seed_is_meant_where_none_is_named(folder):
    assert find_student(DIGITS).path == STUDENT
    assert find_student(PHOTOS).seed == 3
    assert find_student(DIGITS, 1).path == Path("artifacts/students/ce/seed1/1_only.safetensors")


def test_a_result_is_found_from_outside_its_project(folder, monkeypatch):
    monkeypatch.chdir("/")
    found = find_student(str(folder / "results" / "ce.json"))
    assert found.root == folder
    assert found.path == folder / STUDENT


def test_the_packed_images_need_not_be_there(folder):
    Path("artifacts/datasets/digits.h5").unlink()
    assert find_student(DIGITS).description.preprocessing.image_size == 8


@pytest.mark.parametrize(
    ("word", "seed", "error", "message"),
    [
        (DIGITS, 7, UsageError, "seed 7: not one of ce; allowed: 0, 1"),
        (
            "photos_ed",
            None,
            UsageError,
            "'photos_ed': neither an experiment of this folder, nor a results/<experiment>.json, nor an exported "
            "folder; did you mean 'photos_ce'?",
        ),
        ("results/cc.json", None, CorruptFileError, "results/cc.json: no such file; name a results/<experiment>.json"),
        ("params.yaml", None, CorruptFileError, "params.yaml: not a readable record"),
    ],
)
def test_what_is_no_student_is_one_line(folder, word, seed, error, message):
    with pytest.raises(error) as raised:
        find_student(word, seed)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_an_experiment_that_did_not_run_yet_says_how(folder):
    Path("results/ce.json").unlink()
    with pytest.raises(MissingFileError, match=r"results/ce.json: not there yet; make it with `snakemake results/ce.j"):
        find_student(DIGITS)


def test_without_params_the_results_that_are_there_are_known(folder):
    Path("params.yaml").unlink()
    with pytest.raises(UsageError, match=r"did you mean 'photos_ce'\?"):
        find_student("photos_cd")


def test_a_student_that_is_not_there_says_where_to_get_it(folder):
    STUDENT.unlink()
    with pytest.raises(MissingFileError, match=rf"{STUDENT}: the student that results/ce.json measured is not there"):
        find_student(DIGITS)


def test_a_student_that_was_trained_again_is_refused(folder):
    weights, record = read_weights(STUDENT)
    weights["fc.bias"] += 1
    write_weights(STUDENT, weights, record)
    with pytest.raises(MismatchError, match=r"is not the student that results/ce.json measured .* --force results/ce"):
        find_student(DIGITS)


def test_weights_that_are_not_those_of_their_record_are_refused(folder):
    data = STUDENT.read_bytes()
    STUDENT.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(MismatchError, match=r"1_only.safetensors: content has digest [0-9a-f]{16}, its record says"):
        find_student(DIGITS)


def test_an_altered_record_is_refused(folder):
    path = record_path(STUDENT)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"known_class_ids": [0]}))
    with pytest.raises(CorruptFileError, match="altered since written"):
        find_student(DIGITS)


def test_other_packed_images_are_refused(folder):
    record = read_record(DATASET_RECORD)
    write_record(DATASET_RECORD, record | {"digest": "0123456789abcdef"})
    with pytest.raises(
        MismatchError, match=r"digits.json: packed images have digest 0123456789abcdef, results/ce.json"
    ):
        find_student(DIGITS)


PLUGIN = """
import torch
import edpipe

@edpipe.network("tiny_plugin_net")
def build(num_classes, channels):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64 * channels, num_classes))
"""


def test_networks_of_plugins_are_known_also_from_outside_the_project(folder, monkeypatch):
    (folder / "export_test_plugin.py").write_text(PLUGIN)
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(f"{text}plugins: [export_test_plugin.py]\n")
    monkeypatch.chdir("/")
    find_student(str(folder / "results" / "ce.json"))
    assert is_known("tiny_plugin_net")
