"""ONNX files of a student: their outputs, their accuracy, any batch size, 8-bit integers."""

import sys
from pathlib import Path

import numpy as np
import pytest
from finished_students import DIGITS, PHOTOS, dataset_of, evaluated_logits, make_finished

from edpipe.errors import CorruptFileError, ExportError
from edpipe.export.comparison import TOLERANCE, largest_difference, plain_batches
from edpipe.export.description import CONFIG, read_description
from edpipe.export.finished import find_student
from edpipe.export.folder import CARD, export_student
from edpipe.export.onnx_file import OnnxPredictor, need
from edpipe.export.open_model import load, open_predictor

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A project in which both students are exported, that of digits in 8 bits too."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    folder = make_finished(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        export_student(find_student(DIGITS), ("int8",))
        export_student(find_student(PHOTOS), ("onnx",))
    return folder


@pytest.fixture
def folder(exported, monkeypatch):
    monkeypatch.chdir(exported)
    return exported


@pytest.mark.parametrize(("experiment", "out"), [(DIGITS, "exports/ce_seed0"), (PHOTOS, "exports/photos_ce_seed3")])
def test_logits_are_those_of_the_student_in_float32(folder, experiment, out):
    dataset = dataset_of(experiment)
    pixels = plain_batches(dataset).plain(dataset.sample_ids("test"))
    student = load(experiment)
    wanted = student.network(student.transform.normalised(pixels)).detach().numpy()
    predictor = open_predictor(out)
    found = predictor.logits(pixels)
    assert largest_difference(found, wanted) <= TOLERANCE
    one_by_one = np.concatenate([predictor.logits(pixels[i : i + 1]) for i in range(3)])
    assert np.allclose(one_by_one, found[:3], atol=1e-5)
    described = read_description(Path(out)).files["onnx"]
    assert described.max_difference <= TOLERANCE
    assert described.checked_images == min(100, len(dataset.sample_ids("test")))


def test_integers_are_close_and_their_accuracy_is_stated(folder):
    dataset = dataset_of(DIGITS)
    ids = dataset.sample_ids("test")
    predictor = open_predictor("exports/ce_seed0", form="int8")
    logits = predictor.logits(plain_batches(dataset).plain(ids))
    assert largest_difference(logits, evaluated_logits(DIGITS, ids)) < 0.1
    stated = read_description(Path("exports/ce_seed0")).files["int8"]
    assert stated.test_top1 == (logits.argmax(axis=1) == dataset.labels[ids]).mean()
    assert stated.calibration_images == min(512, len(dataset.sample_ids("train")))
    card = Path("exports/ce_seed0", CARD).read_text(encoding="utf-8")
    assert f"int8: top1 on the test split is {stated.test_top1 * 100:.2f} %, that of the float32 ONNX file" in card


def test_a_file_that_is_no_onnx_is_one_line(folder, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(CorruptFileError, match=r"model.onnx: onnxruntime cannot read it \(.*\); export the student ag"):
        OnnxPredictor(path, read_description(Path("exports/ce_seed0")))


def test_a_file_that_gives_something_else_is_not_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "edpipe.export.onnx_file.OnnxPredictor.logits", lambda _, pixels: np.ones((len(pixels), 10), np.float32)
    )
    with pytest.raises(ExportError, match=r"a logit differs by \S+ of the largest logit, allowed is 0.0001; nothing w"):
        export_student(find_student(DIGITS), ("onnx",), tmp_path / "out")
    assert not (tmp_path / "out" / CONFIG).exists()
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_without_packed_images_no_onnx_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(make_finished(tmp_path))
    monkeypatch.setattr("edpipe.export.onnx_file.need", lambda _: None)
    Path("artifacts/datasets/digits.h5").unlink()
    with pytest.raises(CorruptFileError, match=r"digits.h5: the packed images are not there, and an ONNX file is comp"):
        export_student(find_student(DIGITS), ("onnx",))


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"onnx: needs onnxruntime, not installed here; `pip install onnxruntime`"):
        need(("onnxruntime", "json"))
