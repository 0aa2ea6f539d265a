"""`edpipe export`, `predict` and `evaluate_model`: what they print, and what they refuse."""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from finished_students import DIGITS, PHOTOS, dataset_of, evaluated_logits, make_finished
from PIL import Image

from edpipe.cli.main import main
from edpipe.pipeline.jobs.paths import evaluation_path
from edpipe.results.result_file import read_result
from edpipe.storage.records import read_record

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(make_finished(tmp_path))


def refusal(capsys, *words):
    """The lines that the command ended with."""
    assert main(list(words)) == 2
    return [line.removeprefix("edpipe: ") for line in capsys.readouterr().err.splitlines() if "edpipe: " in line]


def printed(capsys, *words):
    assert main(list(words)) == 0
    return capsys.readouterr()


def photographs(split="test"):
    dataset = dataset_of(PHOTOS)
    ids = dataset.sample_ids(split)
    return ids, [f"photos/{dataset.sources[i].decode()}" for i in ids]


def test_export_then_predict_names_what_the_evaluation_names(folder, capsys):
    out = printed(capsys, "export", PHOTOS).out
    assert out.splitlines()[0] == "exports/photos_ce_seed3: photos_ce seed 3, 4 classes"
    assert re.search(r"model.safetensors: [\d,]+ bytes", out)
    assert "`edpipe predict exports/photos_ce_seed3 IMAGE` uses it" in out
    ids, names = photographs()
    wanted = evaluated_logits(PHOTOS, ids).astype(np.float64)
    shares = np.exp(wanted) / np.exp(wanted).sum(axis=1, keepdims=True)
    for model in ("exports/photos_ce_seed3", "results/photos_ce.json", PHOTOS):
        found = printed(capsys, "predict", model, *names, "--json", "--top", "9")
        rows = [json.loads(line) for line in found.out.splitlines()]
        assert [row["image"] for row in rows] == names
        assert re.search(rf"{len(names)}/{len(names)} images in [\d.]+ s, [\d,]+ images/s\n$", found.err)
        for row, share in zip(rows, shares, strict=True):
            given = {one["class"]: one["probability"] for one in row["predictions"]}
            assert list(given.values()) == sorted(given.values(), reverse=True)
            assert [given[name] for name in ("cat", "dog", "owl", "yak")] == pytest.approx(share.tolist(), rel=1e-12)
        # The page counts over what the evaluation keeps.
        kept = read_record(evaluation_path(PHOTOS, 3))["predictions"]
        first = [row["predictions"][0] for row in rows]
        assert [one["class"] for one in first] == [("cat", "dog", "owl", "yak")[c] for c in kept["class_ids"]]
        assert [one["probability"] for one in first] == pytest.approx(kept["confidences"], abs=5.1e-5)


def test_a_table_has_the_most_probable_classes_of_each_image(folder, capsys):
    lines = printed(capsys, "predict", PHOTOS, "photos/owl", "--top", "2", "--batch-size", "3").out.splitlines()
    rows = [line.split() for line in lines if "%" in line]
    assert len(rows) == 2 * 8
    assert [row[0] for row in rows[::2]] == [f"photos/owl/{number:04}.jpg" for number in range(8)]
    assert {len(row) for row in rows[1::2]} == {3}


def test_a_broken_image_is_named_and_the_others_are_predicted(folder, capsys):
    Path("photos/cat/0001.jpg").write_bytes(b"")
    lines = refusal(capsys, "predict", PHOTOS, "photos/cat", "nowhere.png")
    assert lines == [
        "photos/cat/0001.jpg: cannot be read as an image (the file is empty); the other images were predicted",
        "nowhere.png: cannot be read: No such file or directory; the other images were predicted",
    ]
    assert main(["predict", PHOTOS, "photos/cat", "nowhere.png", "--json"]) == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 9
    assert [row["image"] for row in rows if "error" in row] == ["photos/cat/0001.jpg", "nowhere.png"]


def test_standard_input_is_one_image(folder, capsys, monkeypatch):
    data = Path("photos/yak/0000.jpg").read_bytes()
    by_name = json.loads(printed(capsys, "predict", PHOTOS, "photos/yak/0000.jpg", "--json").out)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    by_stream = json.loads(printed(capsys, "predict", PHOTOS, "-", "--json").out)
    assert by_stream == by_name | {"image": "-"}


def test_names_cannot_obey_a_terminal(folder, capsys):
    name = "photos/owl/\x1b[2J.png"
    Image.new("RGB", (20, 20)).save(name)
    out = printed(capsys, "predict", PHOTOS, name).out
    assert "\x1b" not in out
    assert r"\u001b[2J.png" in out


def test_evaluate_model_gives_what_the_result_has(folder, capsys):
    for experiment in (DIGITS, PHOTOS):
        dataset = dataset_of(experiment).name
        found = json.loads(printed(capsys, "evaluate_model", experiment, "--dataset", dataset, "--json").out)
        wanted = read_result(Path(f"results/{experiment}.json")).seeds[0].metrics
        assert (found["top1"], found["top5"], found["ece"]) == (wanted.top1, wanted.top5, wanted.ece)
        assert (found["images"], found["split"], found["dataset"]) == (wanted.test_samples, "test", dataset)
    assert found["nll"] > 0


def test_evaluate_model_prints_four_measures(folder, capsys):
    lines = printed(capsys, "evaluate_model", PHOTOS, "--dataset", "artifacts/datasets/photos.h5", "--split", "train")
    names = [line.split()[0] for line in lines.out.splitlines()]
    assert names == ["photos,", "top1", "top5", "NLL", "ECE"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "photos_xe"], "'photos_xe': neither an experiment of this folder, "),
        (["export", DIGITS, "--seed", "9"], "seed 9: not one of ce; allowed: 0, 1"),
        (["export", DIGITS, "--format", "torch", "--int8"], "--int8: is made from onnx, but --format is torch; add "),
        (["export", DIGITS, "--format", "tflite"], "export: argument --format: invalid choice: 'tflite'"),
        (["export", DIGITS, "--out", "photos"], "photos: holds 'cat' and no model; name another folder with --out"),
        (["predict", PHOTOS, "-", "-"], "predict: - (standard input) is named twice; name it once"),
        (["predict", PHOTOS, "x", "--top", "0"], "predict: argument --top: invalid whole number from 1 to 1,000,000 v"),
        (["predict", "photos", "x"], "photos: holds no config.json; name a folder that `edpipe export` has written"),
        (["predict", PHOTOS, "logs"], "logs: holds no image ("),
        (
            ["predict", PHOTOS, "x", "--format", "torch"],
            "--format torch: belongs to an exported folder; photos_ce is",
        ),
        (
            ["evaluate_model", PHOTOS, "--dataset", "photo"],
            "artifacts/datasets/photo.h5: no such packed data set; make it with `snakemake artifacts/datasets/photo.h5`"
            "; did you mean 'photos'?",
        ),
        (
            ["evaluate_model", PHOTOS, "--dataset", "digits"],
            "artifacts/datasets/digits.h5: holds images of 1×8², the model takes 3×32²; pack a data set with channels",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, capsys, words, message):
    Path("logs").mkdir()
    lines = refusal(capsys, *words)
    assert len(lines) == 1
    assert lines[0].startswith(message)
