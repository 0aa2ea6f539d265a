"""Packing: raw images of every reader become a checked file and its record, the same bytes every time."""

import json
import os
import signal
import subprocess
import sys
from http.client import IncompleteRead
from pathlib import Path

import h5py
import numpy as np
import pytest
from layouts import make_fashion_mnist, make_food101, make_image_folder
from PIL import Image

from edpipe.datasets.images import open_image, to_square
from edpipe.errors import CorruptFileError, DataError, OverwriteError
from edpipe.params.dataset import DatasetKnobs
from edpipe.steps import pack_dataset as step
from edpipe.steps.pack_dataset import pack_dataset
from edpipe.storage.dataset_file import SPLITS, open_dataset
from edpipe.storage.records import read_record, record_path


def knobs(reader="folder", **values):
    return DatasetKnobs(reader=reader, **({"image_size": 8, "download": False} | values))


def pack(root, path, **values):
    pack_dataset("pets", knobs(**values), root, path)
    return open_dataset(path)


@pytest.fixture
def root(tmp_path):
    return make_image_folder(tmp_path / "raw", per_class=6)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_packed_pixels_are_those_of_the_raw_images(root, tmp_path):
    dataset = pack(root, tmp_path / "pets.h5")
    assert dataset.class_names == ("cat", "dog", "owl")
    for sample_id, source in enumerate(dataset.sources):
        expected = to_square(open_image(root / source.decode()), 8, 3)
        np.testing.assert_array_equal(dataset.decode(sample_id), expected)
        assert source.decode().startswith(dataset.class_names[dataset.labels[sample_id]] + "/")


def test_mapped_pixels_are_those_that_h5py_reads(root, tmp_path):
    dataset = pack(root, tmp_path / "pets.h5")
    with h5py.File(tmp_path / "pets.h5") as file:
        np.testing.assert_array_equal(dataset.images(np.arange(dataset.num_samples)), file["images"][:])


def test_jpeg_keeps_the_aspect_and_is_close_to_the_raw_image(tmp_path):
    root = make_image_folder(tmp_path / "raw", per_class=4, size=(48, 40))
    dataset = pack(root, tmp_path / "pets.h5", encoding="jpeg", stored_side=40, jpeg_quality=100)
    for sample_id, source in enumerate(dataset.sources):
        raw = np.asarray(open_image(root / source.decode())).transpose(2, 0, 1)
        pixels = dataset.decode(sample_id)
        assert pixels.shape == (3, 40, 48)
        assert np.abs(pixels.astype(int) - raw).mean() < 2
    assert (dataset.image_size, dataset.stored_side) == (8, 40)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_packing_gives_the_same_bytes_whatever_the_number_of_threads(root, tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(step, "BATCH", 3)
    contents = set()
    for number in ("1", "1", "4"):
        monkeypatch.setenv("EDPIPE_THREADS", number)
        pack(root, tmp_path / "out/pets.h5", encoding=encoding)
        contents.add(((tmp_path / "out/pets.h5").read_bytes(), (tmp_path / "out/pets.json").read_bytes()))
    assert len(contents) == 1
    assert names(tmp_path / "out") == ["pets.h5", "pets.json"]


def test_record_counts_classes_and_vouches_for_the_file(root, tmp_path, capsys):
    dataset = pack(root, tmp_path / "pets.h5", test_fraction=0.5, val_fraction=0.34)
    record = read_record(record_path(tmp_path / "pets.h5"))
    assert record["counts"] == {
        split: dict.fromkeys(dataset.class_names, number) for split, number in zip(SPLITS, (2, 1, 3), strict=True)
    }
    assert (record["digest"], record["num_samples"], record["dataset"]) == (dataset.digest, 18, "pets")
    assert (tuple(record["mean"]), tuple(record["std"])) == (dataset.mean, dataset.std)
    assert record["knobs"]["dataset"]["test_fraction"] == 0.5
    assert str(tmp_path) not in json.dumps(record)
    assert "3 classes, 6 train, 3 val, 9 test" in capsys.readouterr().err


def test_every_reader_can_be_packed(tmp_path):
    make_fashion_mnist(tmp_path / "fashion", 40, 20)
    fashion = knobs("fashion_mnist", channels=1, image_size=28)
    digits = knobs("digits", channels=1, max_per_class=3)
    for name, chosen, number in (("fashion", fashion, 60), ("digits", digits, 90)):
        pack_dataset(name, chosen, tmp_path / name, tmp_path / f"{name}.h5")
        dataset = open_dataset(tmp_path / f"{name}.h5")
        assert (dataset.num_samples, dataset.num_classes, dataset.channels) == (number, 10, 1)


def test_unreadable_image_is_named_and_leaves_nothing(root, tmp_path):
    pack(root, tmp_path / "out/pets.h5")
    (root / "dog/0003.png").write_bytes((root / "dog/0003.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"dog/0003.png: cannot be read as an image") as error:
        pack(root, tmp_path / "out/pets.h5")
    assert "\n" not in str(error.value)
    assert names(tmp_path / "out") == ["pets.h5"]  # the old file without a record is not taken for complete


def test_connection_that_breaks_off_is_one_line_for_either_download(tmp_path, monkeypatch):
    def break_off(*_args, **_kwargs):
        raise IncompleteRead(b"half")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", break_off)
    monkeypatch.setattr("torchvision.datasets.utils.download_url", break_off)
    for reader in ("fashion_mnist", "food101"):
        with pytest.raises(DataError, match=r"is not here and could not be fetched \(IncompleteRead.*; put ") as error:
            pack(tmp_path / reader, tmp_path / "out/a.h5", reader=reader, download=True)
        assert "\n" not in str(error.value)
        assert names(tmp_path / reader) == []


def test_unreadable_list_of_food101_classes_is_named(tmp_path):
    root = make_food101(tmp_path, num_train=1, num_test=1, size=(6, 5))
    (root / "food-101/meta/classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"classes.txt: cannot be read \(.*put Food-101's own file here"):
        pack(root, tmp_path / "a.h5", reader="food101")


def test_image_without_a_range_is_named(root, tmp_path):
    Image.new("F", (9, 9)).save(root / "owl/0002.tiff")
    with pytest.raises(DataError, match=r"owl/0002.tiff: cannot be packed: images of mode F have no fixed range"):
        pack(root, tmp_path / "pets.h5")


def test_full_disk_is_one_line_and_leaves_nothing(root, tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, before[1]))
    try:
        with pytest.raises(OverwriteError, match=r"pets.h5: cannot be written: File too large; nothing was changed$"):
            pack(root, tmp_path / "out/pets.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path / "out") == []


def test_pixels_that_the_disk_gives_back_altered_are_noticed(tmp_path, monkeypatch):
    root = make_image_folder(tmp_path / "raw", per_class=20)

    def altered(path):
        with h5py.File(path, "r+") as file:
            file["images"][1, 0, 0, 0] ^= 1
        return open_dataset(path)

    monkeypatch.setattr(step, "open_dataset", altered)
    with pytest.raises(CorruptFileError, match=r"pixels of sample 1 \(cat/0001.png\) are not those that were packed"):
        pack(root, tmp_path / "pets.h5")
    assert not record_path(tmp_path / "pets.h5").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from edpipe.params.dataset import DatasetKnobs
from edpipe.steps import pack_dataset as step

step.BATCH = 2
convert, calls = step.to_square, []

def to_square(*arguments):
    calls.append(1)
    if len(calls) > 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return convert(*arguments)

step.to_square = to_square
knobs = DatasetKnobs(reader="folder", image_size=8)
step.pack_dataset("pets", knobs, Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_pack_leaves_no_file_of_that_name_and_a_rerun_succeeds(root, tmp_path):
    path = tmp_path / "out/pets.h5"
    environment = os.environ | {"EDPIPE_THREADS": "1", "PYTHONPATH": str(Path(step.__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, str(root), str(path)]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert [name for name in names(path.parent) if not name.endswith(".partial")] == []
    assert names(path.parent) != []
    assert pack(root, path).num_samples == 18
    assert [name for name in names(path.parent) if not name.endswith(".partial")] == ["pets.h5", "pets.json"]
