"""Packing: raw images become one file and its record, the same each time, and never a half."""

import json
import subprocess
import sys

import numpy as np
import pytest
from layouts import FOOD101_CLASSES, class_image, make_fashion_mnist, make_food101, make_image_folder

from edpipe.datasets.dataset_file import SPLITS, open_dataset
from edpipe.datasets.packed_blocks import PackedBlocks
from edpipe.errors import DataError, OverwriteError
from edpipe.params.dataset import DatasetKnobs
from edpipe.steps import pack_dataset as step
from edpipe.steps.pack_dataset import pack_dataset
from edpipe.storage.records import record_path


def knobs(reader="folder", **values):
    return DatasetKnobs(reader=reader, **({"image_size": 8, "download": False} | values))


def pack(root, out_path, reader="folder", **values):
    pack_dataset("tiny", knobs(reader, **values), root, out_path)
    return open_dataset(out_path)


@pytest.mark.slow
def test_digits_are_packed_whole(tmp_path):
    dataset = pack(tmp_path / "absent", tmp_path / "digits.h5", "digits", channels=1)
    assert (dataset.num_samples, dataset.num_classes, dataset.channels) == (1797, 10, 1)
    counts = [len(dataset.sample_ids(split)) for split in SPLITS]
    assert sum(counts) == 1797
    assert counts[2] == pytest.approx(0.2 * 1797, abs=5)
    assert counts[1] == pytest.approx(0.1 * 0.8 * 1797, abs=5)


def test_fashion_mnist_at_its_own_size_keeps_its_pixels_and_order(tmp_path):
    dataset = pack(make_fashion_mnist(tmp_path), tmp_path / "a.h5", "fashion_mnist", image_size=28, channels=1)
    expected = [class_image(row % 10, row, (28, 28), 1) for row in range(60)]
    np.testing.assert_array_equal(dataset.images(np.arange(60))[:, 0], np.stack(expected))
    assert dataset.sample_ids("test").tolist() == list(range(40, 60))
    assert dataset.labels.tolist() == [row % 10 for row in range(60)]


def test_food101_is_packed_as_jpeg_with_its_aspect(tmp_path):
    root = make_food101(tmp_path, num_train=2, num_test=1)
    values = {"image_size": 16, "encoding": "jpeg", "stored_side": 18, "val_fraction": 0.5}
    dataset = pack(root, tmp_path / "food101.h5", "food101", **values)
    assert dataset.class_names == FOOD101_CLASSES
    assert [len(dataset.sample_ids(split)) for split in SPLITS] == [101, 101, 101]
    assert dataset.decode(7).shape == (3, 18, 21)
    assert dataset.stored_side == 18
    source = dataset.sources[7].decode()
    shown = class_image(FOOD101_CLASSES.index(source.split("/")[0]), 1, (24, 20))
    assert np.abs(dataset.decode(7).mean(axis=(1, 2)) - shown.mean(axis=(0, 1))).max() < 6


@pytest.mark.parametrize("encoding", [{}, {"encoding": "jpeg"}])
def test_mean_and_std_are_those_of_the_train_images_alone(tmp_path, encoding):
    root = make_image_folder(tmp_path / "raw", splits={"train": 6, "test": 2})
    dataset = pack(root, tmp_path / "tiny.h5", val_fraction=0.5, **encoding)
    pixels = [dataset.decode(number).reshape(3, -1) / 255 for number in dataset.sample_ids("train").tolist()]
    train = np.concatenate(pixels, axis=1)
    np.testing.assert_allclose(dataset.mean, train.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(dataset.std, train.std(axis=1), rtol=1e-9)


def test_record_says_what_the_file_holds(tmp_path):
    root = make_image_folder(tmp_path / "raw", splits={"train": 6, "test": 2})
    dataset = pack(root, tmp_path / "tiny.h5", val_fraction=0.5)
    record = json.loads(record_path(tmp_path / "tiny.h5").read_text())
    each = dict.fromkeys(("cat", "dog", "owl"), 3)
    assert record["counts"] == {"train": each, "val": each, "test": dict.fromkeys(each, 2)}
    assert record["step"] == "pack_dataset"
    assert record["dataset"] == "tiny"
    assert record["digest"] == dataset.digest
    assert record["num_samples"] == 24
    assert record["class_names"] == ["cat", "dog", "owl"]
    assert (tuple(record["mean"]), tuple(record["std"])) == (dataset.mean, dataset.std)
    assert record["knobs"]["dataset"] == json.loads(knobs(val_fraction=0.5).model_dump_json())
    assert "numpy" in record["versions"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_packing_twice_gives_equal_bytes_whatever_the_place_and_the_threads(tmp_path, monkeypatch, encoding):
    outcomes = []
    for threads in ("1", "3"):
        monkeypatch.setenv("EDPIPE_THREADS", threads)
        root = make_image_folder(tmp_path / f"raw{threads}", per_class=70)
        pack(root, tmp_path / threads / "tiny.h5", encoding=encoding)
        outcomes.append({path.name: path.read_bytes() for path in (tmp_path / threads).iterdir()})
    assert sorted(outcomes[0]) == ["tiny.h5", "tiny.json"]
    assert outcomes[0] == outcomes[1]


def test_grey_images_become_three_equal_channels(tmp_path):
    dataset = pack(make_fashion_mnist(tmp_path), tmp_path / "a.h5", "fashion_mnist", image_size=28, channels=3)
    images = dataset.images(np.arange(60))
    assert images.shape == (60, 3, 28, 28)
    assert (images == images[:, :1]).all()


def test_failed_pack_leaves_the_old_file_and_no_partial_one(tmp_path):
    root = make_image_folder(tmp_path / "raw")
    pack(root, tmp_path / "out/tiny.h5")
    before = (tmp_path / "out/tiny.h5").read_bytes()
    (root / "dog/0005.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dog/0005.png: cannot be read as an image") as error:
        pack(root, tmp_path / "out/tiny.h5")
    assert "\n" not in str(error.value)
    assert (tmp_path / "out/tiny.h5").read_bytes() == before
    # Its record is gone, so that no tool takes the old file for what was asked.
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny.h5"]


def test_first_unreadable_image_in_reading_order_is_named_whatever_the_threads(tmp_path, monkeypatch):
    monkeypatch.setenv("EDPIPE_THREADS", "4")
    monkeypatch.setattr(step, "BLOCK", 2)
    root = make_image_folder(tmp_path / "raw")
    for name in ("owl/0001.png", "dog/0002.png", "cat/0009.png"):
        (root / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cat/0009.png"):
        pack(root, tmp_path / "tiny.h5")


def test_image_of_a_mode_without_range_is_named(tmp_path):
    from PIL import Image

    root = make_image_folder(tmp_path / "raw")
    Image.new("F", (8, 8)).save(root / "cat/0000.tiff")
    with pytest.raises(DataError, match=r"cat/0000.tiff: cannot be packed: images of mode F have no fixed range"):
        pack(root, tmp_path / "tiny.h5")


def test_only_a_few_images_are_held_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("EDPIPE_THREADS", "2")
    monkeypatch.setattr(step, "BLOCK", 1)
    made, most_ahead = [], []
    make_block, append = step.make_block, PackedBlocks.append

    def appending(blocks, *block):
        most_ahead.append(len(made) - len(blocks.done))
        append(blocks, *block)

    monkeypatch.setattr(step, "make_block", lambda *block: made.append(1) or make_block(*block))
    monkeypatch.setattr(PackedBlocks, "append", appending)
    pack(make_image_folder(tmp_path / "raw", per_class=30), tmp_path / "tiny.h5")
    assert len(made) == 90
    assert max(most_ahead) <= 2 + 2


def test_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OverwriteError, match=r"tiny.json: cannot be written: Not a directory; nothing was changed"):
        pack(make_image_folder(tmp_path / "raw"), tmp_path / "file/tiny.h5")


@pytest.mark.slow
def test_packing_needs_no_torch(tmp_path):
    make_image_folder(tmp_path / "raw")
    program = (
        "import sys; from pathlib import Path; from edpipe.params.dataset import DatasetKnobs;"
        "from edpipe.steps.pack_dataset import pack_dataset; from edpipe.steps import partition_dataset;"
        "knobs = DatasetKnobs(reader='folder', image_size=8);"
        "pack_dataset('tiny', knobs, Path(sys.argv[1]), Path(sys.argv[2]));"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "raw"), str(tmp_path / "tiny.h5")]
    subprocess.run(command, check=True, capture_output=True)
    assert open_dataset(tmp_path / "tiny.h5").num_samples == 30
