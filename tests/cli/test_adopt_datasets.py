"""`edpipe adopt` of datasets: raw files decide, and what is not there is not fetched."""

import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from layouts import make_image_folder
from made_project import edit_record, find_in, read, run_job, tiny_params, write_params
from PIL import Image

from edpipe.cli.adoption import datasets
from edpipe.cli.adoption.claim import Claim, UnshownError
from edpipe.cli.commands import adopt
from edpipe.errors import MismatchError
from edpipe.params.dataset import DatasetKnobs, PackKnobs
from edpipe.storage.job import Job
from edpipe.storage.records import record_path

OTHER_CODE = {"steps.pack_dataset": "0+0123456789abcdef"}
ENCODINGS = {"raw": {"encoding": "raw"}, "jpeg": {"encoding": "jpeg", "stored_side": 20}}


@pytest.fixture(scope="module", params=ENCODINGS)
def template(request, tmp_path_factory):
    """A folder of images of our own, one of them none, packed raw or as JPEG files, as if by other code."""
    folder = tmp_path_factory.mktemp("template")
    raw = tiny_params()
    knobs = {"reader": "folder", "root": "images", "image_size": 16, "channels": 3, "unreadable": "leave_aside"}
    raw["datasets"]["digits"] = knobs | ENCODINGS[request.param]
    with chdir(folder):
        make_image_folder(folder / "images", per_class=8)
        Path("images/owl/9999.png").write_bytes(b"no image")
        write_params(raw)
        run_job(job := find_in("pack_dataset", "ce"))
        edit_record(job, lambda record: record.update(code=OTHER_CODE))
    return folder


@pytest.fixture
def packed(template, tmp_path, monkeypatch):
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return find_in("pack_dataset", "ce")


def refusal(job, capsys):
    capsys.readouterr()
    with pytest.raises(MismatchError, match=r"1 of 1 artifacts cannot be adopted"):
        adopt.run([str(job.outputs[0])], dry_run=False, other_machine=False)
    return capsys.readouterr().out.splitlines()[0]


def kept_image():
    """A raw file whose image is among those drawn: all are, of so few."""
    return Path("images/cat/0003.png")


@pytest.mark.slow
def test_with_its_raw_files_a_dataset_is_taken_over(packed, capsys):
    adopt.run([str(packed.outputs[0])], dry_run=False, other_machine=False)
    assert "24 images packed again are equal bit for bit, so are names, labels and splits of all 24" in (
        capsys.readouterr().out
    )
    shown = read(packed)["adopted"]
    assert (shown["compared_samples"], shown["packed_again"], shown["unreadable_again"]) == (24, 24, 1)
    is_raw = packed.knobs.dataset.encoding == "raw"
    assert shown["pixel_statistics"] == ("computed again" if is_raw else "not compared")


@pytest.mark.slow
def test_without_its_raw_files_it_is_refused(packed, capsys):
    shutil.rmtree("images")
    assert ".h5: can be compared only with its raw files: " in refusal(packed, capsys)


def paint(path):
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[10, 12] ^= 255
    Image.fromarray(pixels).save(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: paint(kept_image()), "(cat/0003.png) is packed otherwise now: its raw file, the code"),
        (lambda: kept_image().unlink(), "its number of samples is 24, made again it is 23"),
        (lambda: kept_image().rename("images/dog/0003b.png"), "its source of sample "),
        (lambda: kept_image().write_bytes(b"no image"), "cat/0003.png was packed, but cannot be read now"),
        (lambda: shutil.copy(kept_image(), "images/owl/9999.png"), "owl/9999.png was left aside as unreadable, but"),
        (lambda: Path("images/owl/9999.png").unlink(), "its number of unreadable files is 1, made again it is 0"),
        (lambda: Path("images/note.txt").write_text("a"), "its left_aside.not_images is [], made again it is ["),
        (lambda: shutil.copytree("images/cat", "images/cow"), "its class names is ('cat', 'dog', 'owl'), made again"),
    ],
    ids=["pixel", "gone", "moved", "unreadable", "readable", "odd one gone", "note", "class"],
)
def test_other_raw_files(packed, capsys, change, words):
    change()
    assert words in refusal(packed, capsys)


@pytest.mark.slow
def test_a_record_without_what_was_left_aside(packed, capsys):
    edit_record(packed, lambda record: record.pop("left_aside"))
    name = record_path(packed.outputs[0])
    assert f"{name}: has no 'left_aside', so there is nothing to compare with" in refusal(packed, capsys)


def test_what_is_not_there_is_not_fetched(tmp_path):
    knobs = DatasetKnobs(reader="cifar10", image_size=32, mirror="http://127.0.0.1:9")
    job = Job("pack_dataset", {"dataset": "cifar10"}, PackKnobs(knobs), {}, (Path("cifar10.h5"),))
    with pytest.raises(UnshownError, match=r"^cifar10\.h5: can be compared only with its raw files: .*download is"):
        datasets._read(Claim(job, {}, tmp_path, False), knobs)
