"""What a partition holds, in words, as JSON, and as pictures that need nothing else."""

import base64
import io
import json

import numpy as np
import pytest
from layouts import class_image
from PIL import Image
from project import as_yaml, tiny_params

from edpipe.cli.commands.partition import lines_of, page
from edpipe.cli.main import main
from edpipe.datasets.dataset_file import DatasetHeader, open_dataset
from edpipe.datasets.dataset_writer import StoredImage, write_dataset
from edpipe.datasets.partition import Partition
from edpipe.params.partition import PartitionKnobs
from edpipe.pipeline.jobs import paths
from edpipe.results.page.sample_sheet import GAP, TILE, TILES, chosen_samples, sheet_png, strips
from edpipe.steps.partition_dataset import partition_dataset

NAMES = ("cat", "<b>dog</b>", "owl", "yak")
HALVES = PartitionKnobs(subsets=("primary", "middle"), ratio=(1, 1))


def write_images(path, num_each=5, names=NAMES, channels=3):
    """As many train images of each class, one val and two test images."""
    parts = ["train"] * num_each + ["val", "test", "test"]
    labels = [label for label in range(len(names)) for _ in parts]
    images = (
        StoredImage(np.atleast_3d(class_image(label, row, (8, 8), channels)).transpose(2, 0, 1))
        for row, label in enumerate(labels)
    )
    header = DatasetHeader("digits", names, "raw", 8, channels, 8)
    sources = [str(row) for row in range(len(labels))]
    write_dataset(path, header, labels, parts * len(names), sources, images)
    return open_dataset(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with dataset and partition made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(as_yaml(tiny_params()))
    write_images(paths.dataset_path("digits"))
    partition_dataset(paths.dataset_path("digits"), HALVES, paths.partition_path("digits", "halves"))
    return tmp_path


def show(*words):
    return main(["partition", "show", "digits", "halves", *words])


def test_each_subset_is_a_line_with_its_counts_and_the_sum_is_one_more(folder, capsys):
    assert show() == 0
    assert capsys.readouterr().out.splitlines() == [
        "digits / halves",
        "subset   classes  train  val  test",
        "primary        2     10    2     4  cat, <b>dog</b>",
        "middle         2     10    2     4  owl, yak",
        "all            4     20    4     8",
    ]


def test_many_class_names_are_cut_short():
    subset = {"name": "all", "class_names": [str(i) for i in range(11)], "samples": {"train": 1, "val": 2, "test": 3}}
    assert lines_of("t", [subset])[2].endswith("0, 1, 2, 3, 4, 5, 6, 7 … 3 more")


def test_json_has_everything(folder, capsys):
    assert show("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dataset"], found["partition"]) == ("digits", "halves")
    assert found["subsets"][0] == {
        "name": "primary",
        "class_ids": [0, 1],
        "class_names": ["cat", "<b>dog</b>"],
        "samples": {"train": 10, "val": 2, "test": 4},
    }


def test_a_page_shows_each_subset_and_needs_nothing_else(folder, capsys):
    assert show("--pictures", "out/sheet.html") == 0
    text = (folder / "out/sheet.html").read_text(encoding="utf-8")
    assert "primary        2" in capsys.readouterr().out
    assert "<b>dog</b>" not in text
    assert text.count('<img src="data:image/jpeg;base64,') == 2
    assert "http" not in text.replace("http-equiv", "")
    assert len(text) < 40_000
    first = Image.open(io.BytesIO(base64.b64decode(text.split("base64,")[1].split('"')[0])))
    assert first.size == (10 * (TILE + GAP) - GAP, TILE)
    assert (folder / "out/sheet.html").read_bytes() == page_again(folder)


def page_again(folder):
    assert show("--pictures", "again.html") == 0
    return (folder / "again.html").read_bytes()


def test_a_png_holds_all_strips(folder):
    assert show("--pictures", "sheet.png") == 0
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.height > 2 * TILE


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_are_the_images_of_the_subset_in_order(tmp_path, channels):
    dataset = write_images(tmp_path / "a.h5", channels=channels)
    partition = Partition(dataset.digest, ("first", "second"), {"first": (0, 2), "second": (1, 3)})
    for strip, class_ids in zip(strips(dataset, partition), [(0, 2), (1, 3)], strict=True):
        ids = chosen_samples(dataset, class_ids)
        assert strip.class_names == tuple(NAMES[dataset.labels[i]] for i in ids)
        for place, sample_id in enumerate(ids):
            shown = np.asarray(strip.picture)[4::8, place * (TILE + GAP) + 4 : place * (TILE + GAP) + TILE : 8]
            expected = dataset.decode(sample_id).transpose(1, 2, 0)
            np.testing.assert_array_equal(shown, np.broadcast_to(expected, (8, 8, 3)))


@pytest.mark.parametrize("num_classes", [1, 2, 5, 12, 13, 60])
def test_classes_are_spread_evenly_and_only_train_images_shown(tmp_path, num_classes):
    dataset = write_images(tmp_path / "a.h5", 4, tuple(f"c{i}" for i in range(num_classes)))
    ids = chosen_samples(dataset, tuple(range(num_classes)))
    assert set(ids) <= set(dataset.sample_ids("train").tolist())
    assert len(ids) == len(set(ids)) == min(TILES, 4 * num_classes)
    labels = sorted({int(dataset.labels[i]) for i in ids})
    assert len(labels) >= min(num_classes, TILES // 3)
    assert labels[0] == 0


def test_long_images_are_cut_to_their_middle(tmp_path):
    # A JPEG dataset keeps the aspect: the middle of a tall image, black at both ends, is white.
    pixels = np.zeros((3, 32, 8), np.uint8)
    pixels[:, 8:24] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(stream, "JPEG", quality=100)
    image = StoredImage(pixels, stream.getvalue())
    header = DatasetHeader("tall", ("a",), "jpeg", 8, 3, 8)
    path = tmp_path / "a.h5"
    with Image.open(stream) as decoded:
        stored = StoredImage(np.asarray(decoded).transpose(2, 0, 1).copy(), image.jpeg)
    write_dataset(path, header, [0], ["train"], ["a"], [stored])
    dataset = open_dataset(path)
    [strip] = strips(dataset, Partition(dataset.digest, ("all_of_it",), {"all_of_it": (0,)}))
    assert np.asarray(strip.picture).min() > 240


# refusals


def refused(capsys, *words):
    assert main(list(words)) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_a_partition_that_is_not_made_yet_names_the_command(folder, capsys):
    paths.partition_path("digits", "halves").unlink()
    path = "artifacts/partitions/digits/halves.json"
    assert refused(capsys, "partition", "show", "digits", "halves") == (
        f"edpipe: {path}: is not made yet; make it with `snakemake --cores 2 {path}`"
    )


def test_pictures_without_the_dataset_name_the_command(folder, capsys):
    paths.dataset_path("digits").unlink()
    line = refused(capsys, "partition", "show", "digits", "halves", "--pictures", "a.html")
    assert (
        line
        == "edpipe: artifacts/datasets/digits.h5: no such file; make it with `snakemake artifacts/datasets/digits.h5`"
    )
    assert not (folder / "a.html").exists()


def test_other_kinds_of_pictures_and_unknown_names_are_refused(folder, capsys):
    line = refused(capsys, "partition", "show", "digits", "halves", "--pictures", "a.pdf")
    assert line == "edpipe: --pictures a.pdf: must end in .html or .png"
    assert "no entry named 'halfs'; did you mean 'halves'?" in refused(capsys, "partition", "show", "digits", "halfs")
    assert "datasets: no entry named 'digit'" in refused(capsys, "partition", "show", "digit", "halves")


def test_an_altered_partition_is_refused(folder, capsys):
    path = paths.partition_path("digits", "halves")
    path.write_text(path.read_text().replace("cat", "cow"))
    assert "altered since written" in refused(capsys, "partition", "show", "digits", "halves")


def test_a_sheet_is_as_wide_as_its_longest_strip(tmp_path):
    dataset = write_images(tmp_path / "a.h5", 2)
    partition = Partition(dataset.digest, ("one", "three"), {"one": (0,), "three": (1, 2, 3)})
    found = strips(dataset, partition)
    sheet = Image.open(io.BytesIO(sheet_png(found)))
    assert sheet.width == found[1].picture.width > found[0].picture.width
    subsets = [
        {"name": s.subset, "class_names": ["a"], "samples": dict.fromkeys(("train", "val", "test"), 1)} for s in found
    ]
    assert page("t", subsets, found).count("<img") == 2
