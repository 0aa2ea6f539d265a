"""`edpipe.load_student`, and that importing edpipe stays light."""

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_students import DIGITS, PHOTOS, STUDENTS, dataset_of, evaluated_logits, make_finished
from PIL import Image

import edpipe
from edpipe.errors import ExportError, UsageError
from edpipe.export.finished import find_student
from edpipe.export.folder import export_student

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(make_finished(tmp_path))


def raw_images(experiment, ids):
    """Images as a user has them: files of photographs, or digits as pictures."""
    dataset = dataset_of(experiment)
    if experiment == DIGITS:
        return [Image.fromarray(dataset.decode(int(i))[0]) for i in ids]
    return [Image.open(Path("photos") / dataset.sources[i].decode()) for i in ids]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", STUDENTS)
def test_raw_images_give_the_logits_of_the_evaluation(folder, experiment):
    ids = dataset_of(experiment).sample_ids("test")[:20]
    student = edpipe.load_student(f"results/{experiment}.json")
    images = torch.stack([student.transform(image) for image in raw_images(experiment, ids)])
    with torch.inference_mode():
        assert np.array_equal(student(images).numpy(), evaluated_logits(experiment, ids))
    assert student.classes == dataset_of(experiment).class_names
    assert not student.training
    assert not any(module.training for module in student.modules())


@pytest.mark.slow
def test_a_seed_is_chosen(folder):
    first, other = (edpipe.load_student(Path("results/ce.json"), seed=seed) for seed in (0, 1))
    default = edpipe.load_student(DIGITS)
    assert torch.equal(default.network.fc.weight, first.network.fc.weight)
    assert not torch.equal(default.network.fc.weight, other.network.fc.weight)
    with pytest.raises(UsageError, match="seed 5: not one of ce; allowed: 0, 1"):
        edpipe.load_student(DIGITS, seed=5)


@pytest.mark.slow
def test_a_folder_is_of_one_seed_and_needs_weights(folder):
    out = export_student(find_student(PHOTOS), ("safetensors",))
    assert edpipe.load_student(out).classes == ("cat", "dog", "owl", "yak")
    assert edpipe.load_student(str(out), seed=3).description.seed == 3
    with pytest.raises(UsageError, match=r"--seed 0: exports/photos_ce_seed3 holds the student of seed 3; leave"):
        edpipe.load_student(out, seed=0)


@pytest.mark.slow
def test_a_folder_with_onnx_alone_says_what_to_do(folder, monkeypatch):
    from edpipe.export import folder as folders
    from edpipe.export.description import ExportedFile

    monkeypatch.setattr(
        folders,
        "_write_files",
        lambda *_: {"onnx": ExportedFile(digest="0" * 16, checked_images=9, max_difference=0.0)},
    )
    out = Path("out")
    out.mkdir()
    export_student(find_student(DIGITS), ("safetensors",), out)
    with pytest.raises(ExportError, match=r"out: holds onnx alone; add weights with `edpipe export ce --seed 0 --out"):
        edpipe.load_student(out)


@pytest.mark.slow
def test_the_transform_goes_to_loader_processes(folder):
    transform = pickle.loads(pickle.dumps(edpipe.load_student(DIGITS).transform))
    image = Image.new("RGB", (30, 20), "red")
    assert torch.equal(transform(image), edpipe.load_student(DIGITS).transform(image))
    assert transform(image).shape == (1, 8, 8)


@pytest.mark.slow
def test_a_damaged_image_is_one_line(folder):
    stream = io.BytesIO()
    Image.effect_noise((60, 60), 50).save(stream, "JPEG")
    image = Image.open(io.BytesIO(stream.getvalue()[:400]))
    with pytest.raises(OSError, match="truncated"):
        edpipe.load_student(PHOTOS).transform(image)


def test_importing_edpipe_imports_next_to_nothing():
    heavy = "[m for m in sys.modules if m.startswith(('edpipe', 'torch', 'numpy'))]"
    code = f"import sys, edpipe; edpipe.__version__; dir(edpipe); print({heavy})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "['edpipe']"
