"""Exported folders: what is written, that it gives the student's outputs bit for bit, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from finished_students import DIGITS, PHOTOS, STUDENTS, TIMM, dataset_of, evaluated_logits, make_finished

from edpipe.errors import CorruptFileError, ExportError, OverwriteError
from edpipe.export.comparison import plain_batches
from edpipe.export.description import CONFIG, FILES, read_description, sealed
from edpipe.export.finished import find_student
from edpipe.export.folder import CARD, export_student, file_of
from edpipe.export.open_model import load, open_predictor
from edpipe.storage.digests import digest_file, digest_json
from edpipe.storage.records import SEAL, without_seal

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(make_finished(tmp_path))


def export(experiment, *formats, seed=None, out=None):
    return export_student(find_student(experiment, seed), formats or ("safetensors",), out)


@pytest.mark.parametrize("experiment", STUDENTS)
def test_every_way_to_the_weights_gives_the_logits_of_the_evaluation_bit_for_bit(folder, experiment):
    dataset = dataset_of(experiment)
    ids = dataset.sample_ids("test")
    wanted, pixels = evaluated_logits(experiment, ids), plain_batches(dataset).plain(ids)
    out = str(export(experiment, "safetensors", "torch"))
    ways = [(f"results/{experiment}.json", None), (experiment, None), (out, None), (out, "torch")]
    for word, form in ways:
        assert np.array_equal(open_predictor(word, None, form).logits(pixels), wanted), (word, form)
    for word in (f"results/{experiment}.json", out):
        student = load(word)
        with torch.inference_mode():
            assert np.array_equal(student(student.transform.normalised(pixels)).numpy(), wanted), word


def test_the_folder_holds_what_the_hub_wants(folder):
    out = export(PHOTOS)
    assert out == Path("exports/photos_ce_seed3")
    assert sorted(path.name for path in out.iterdir()) == [CARD, CONFIG, "model.safetensors"]
    config = json.loads((out / CONFIG).read_text())
    assert config["architecture"] == TIMM
    assert config["num_classes"] == 4
    assert config["label_names"] == ["cat", "dog", "owl", "yak"]
    described = read_description(out)
    assert described.classes == ("cat", "dog", "owl", "yak")
    assert described.precision == "bfloat16"
    assert described.preprocessing.mean == dataset_of(PHOTOS).mean
    assert config["pretrained_cfg"]["std"] == list(dataset_of(PHOTOS).std)
    assert described.files["safetensors"].digest == digest_file(out / "model.safetensors")


def test_a_student_of_timm_loads_with_timm_alone(folder):
    import timm

    out = export(PHOTOS)
    ours = load(PHOTOS).network.to(memory_format=torch.contiguous_format)
    from_file = timm.create_model(TIMM, checkpoint_path=out / "model.safetensors", num_classes=4)
    from_folder = timm.create_model(f"local-dir:{out}", pretrained=True)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        wanted = ours(images)
        for network in (from_file, from_folder):
            assert torch.equal(network.eval()(images), wanted)
    data = timm.data.resolve_model_data_config(from_folder)
    assert timm.data.resolve_model_data_config(from_folder, use_test_size=True) == data
    assert data["input_size"] == (3, 32, 32)
    assert tuple(data["mean"]) == dataset_of(PHOTOS).mean
    assert (data["crop_pct"], data["interpolation"]) == (1.0, "bilinear")


def test_a_grey_student_of_timm_has_one_channel_there(folder, monkeypatch):
    from edpipe.export.hub_config import hub_config
    from edpipe.models.zoo.build import build_network

    described = find_student(DIGITS).description.model_copy(update={"model": f"timm:{TIMM}"})
    config = hub_config(described, build_network(f"timm:{TIMM}", 10, 1, 0))
    assert config["model_args"]["in_chans"] == 1
    assert config["pretrained_cfg"]["input_size"] == [1, 8, 8]


def test_the_program_needs_no_code_of_edpipe(folder):
    out = export(DIGITS, "torch")
    program = torch.export.load(out / "model.pt2").module()
    images = torch.rand(5, 1, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(program(images), load(DIGITS).network(images), atol=1e-6)
    assert np.array_equal(
        load(str(out)).network.state_dict()["fc.weight"], load(DIGITS).network.state_dict()["fc.weight"]
    )


def test_an_export_in_another_format_is_added(folder):
    out = export(DIGITS)
    before = (out / "model.safetensors").read_bytes()
    export(DIGITS, "torch")
    assert list(read_description(out).files) == ["safetensors", "torch"]
    assert (out / "model.safetensors").read_bytes() == before
    assert file_of(out, read_description(out), None)[0] == "safetensors"


def test_equal_exports_give_equal_bytes(folder):
    one, other = (export(DIGITS, out=Path(name)) for name in ("one", "other"))
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_a_folder_of_another_student_is_refused_and_unchanged(folder):
    out = export(DIGITS, seed=0)
    before = (out / CONFIG).read_bytes()
    with pytest.raises(OverwriteError, match=r"holds another student \(ce seed 0, weights [0-9a-f]{16}\); name an"):
        export(DIGITS, seed=1, out=out)
    assert (out / CONFIG).read_bytes() == before


def test_a_folder_of_something_else_is_refused(folder):
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("…")
    with pytest.raises(OverwriteError, match=r"thesis: holds 'chapter.tex' and no model; name another folder"):
        export(DIGITS, out=Path("thesis"))
    with pytest.raises(OverwriteError, match=r"params.yaml: is a file; name a folder with --out"):
        export(DIGITS, out=Path("params.yaml"))


def test_what_a_killed_export_left_is_no_hindrance(folder):
    out = export(DIGITS)
    (out / CONFIG).unlink()
    assert read_description(export(DIGITS)).experiment == DIGITS


def test_an_altered_file_is_refused(folder):
    out = export(DIGITS)
    path = out / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(CorruptFileError, match=r"model.safetensors: is not the file that was written; export the stud"):
        open_predictor(str(out))
    path.unlink()
    with pytest.raises(CorruptFileError, match=r"model.safetensors: is missing; export the student again"):
        open_predictor(str(out))


def test_an_altered_description_is_refused(folder):
    out = export(DIGITS)
    config = json.loads((out / CONFIG).read_text())
    config["edpipe"]["preprocessing"]["mean"] = [0.5]
    (out / CONFIG).write_text(json.dumps(config))
    with pytest.raises(CorruptFileError, match=r"config.json: 'edpipe' was altered since written; export the student"):
        read_description(out)


def test_the_keys_of_others_may_be_edited(folder):
    out = export(DIGITS)
    config = json.loads((out / CONFIG).read_text())
    (out / CONFIG).write_text(json.dumps({**config, "note": "mine"}))
    assert read_description(out).experiment == DIGITS


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (None, "no model of edpipe"),
        (
            {"format": "edpipe-model", "format_version": 9},
            "format version 9, this edpipe reads 1; export the",
        ),
    ],
)
def test_other_folders_are_refused(tmp_path, section, message):
    (tmp_path / CONFIG).write_text(json.dumps({"edpipe": section} if section else {}))
    with pytest.raises(ExportError, match=message):
        read_description(tmp_path)


def test_an_experiment_may_be_called_as_a_folder_of_images_is(folder):
    Path(DIGITS).mkdir()
    assert open_predictor(DIGITS).description.experiment == DIGITS
    assert load(DIGITS).description.experiment == DIGITS
    with pytest.raises(ExportError, match=r"photos: holds no config.json; name a folder"):
        load("photos")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"holds no config.json; name a folder that `edpipe export` has written"):
        read_description(tmp_path)


def test_a_description_of_another_shape_is_refused(folder):
    out = export(DIGITS)
    plain = without_seal(sealed(read_description(out))) | {"seed": "zero"}
    wrong = plain | {SEAL: digest_json(plain)}
    (out / CONFIG).write_text(json.dumps({"edpipe": wrong}))
    with pytest.raises(CorruptFileError, match=r"config.json: edpipe.seed: .*; export the student again"):
        read_description(out)


def test_a_format_that_the_folder_lacks_is_named(folder):
    out = export(DIGITS)
    with pytest.raises(ExportError, match=r"has no onnx; allowed: safetensors; `edpipe export` adds formats"):
        open_predictor(str(out), form="onnx")


def test_weights_of_another_network_are_refused(folder):
    from edpipe.errors import MismatchError
    from edpipe.export.network import network_with

    out = export(DIGITS)
    weights = safetensors.torch.load_file(out / FILES["safetensors"])
    weights.pop("fc.weight")
    with pytest.raises(MismatchError, match=r"here: weights do not fit 'resnet8' \(RuntimeError: "):
        network_with(read_description(out), weights, "here")


def test_a_damaged_program_is_one_line(tmp_path):
    from edpipe.export.network import read_program, read_safetensors

    path = tmp_path / "model.pt2"
    path.write_bytes(b"no program")
    with pytest.raises(CorruptFileError, match=r"model.pt2: torch \S+ cannot load it \(.*\); export the student again"):
        read_program(path)
    with pytest.raises(CorruptFileError, match=r"model.pt2: not a safetensors file \(.*\); export the student again"):
        read_safetensors(path)


def test_without_the_packages_onnx_says_what_to_install(folder, monkeypatch):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExportError, match=r"onnx: needs onnx and onnxscript and onnxruntime, .*pip install onnx onnxs"):
        export(DIGITS, "safetensors", "onnx")
    assert not Path("exports").exists()
