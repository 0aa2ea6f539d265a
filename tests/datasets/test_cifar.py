"""CIFAR-10 and CIFAR-100, small but in their published layouts: folders and archives, bytes and pickles."""

import dataclasses
import os
import pickle
import re
import tarfile
from urllib.error import URLError

import numpy as np
import pytest
from cifar_examples import CLASSES, PER_PART, PUBLISHED, expected_samples, md5, small_publication, with_digests_of
from layouts import (
    CIFAR10_CLASSES,
    cifar_files,
    cifar_folder,
    cifar_image,
    make_cifar,
)

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.readers import cifar
from edpipe.datasets.readers.by_name import read_raw
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs
from edpipe.steps.pack_dataset import pack_dataset

pytestmark = pytest.mark.usefixtures("no_network")

VERSIONS = [(number, python) for number in PUBLISHED for python in (False, True)]


class Malice:
    """Runs code when it is unpickled without care."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a pickle was run')",))


@pytest.fixture
def accept(monkeypatch):
    """Makes what lies in a root the published data set: the sizes of `make_cifar`, the MD5 of its own files."""

    def accepting(number, root):
        monkeypatch.setattr(cifar, f"CIFAR{number}", small_publication(number, root))

    return accepting


def read(number, root, **values):
    return read_raw(
        root, DatasetKnobs(reader=f"cifar{number}", **({"image_size": 32, "channels": 3, "download": False} | values))
    )


def refusal(number, root, text, **values):
    with pytest.raises(DataError, match=text) as error:
        read(number, root, **values)
    assert "\n" not in str(error.value)
    return str(error.value)


def contents(raw):
    return raw.class_names, [(s.source, s.split, s.label, s.load().tobytes()) for s in raw.samples]


# what is read


@pytest.mark.parametrize(("number", "python"), VERSIONS)
def test_every_image_and_label_is_read_in_the_published_order(tmp_path, accept, number, python):
    root = make_cifar(tmp_path, number, PER_PART, python)
    accept(number, root)
    raw = read(number, root)
    assert contents(raw) == (CLASSES[number], expected_samples(number))
    assert raw.samples[0].load().shape == (32, 32, 3)


@pytest.mark.parametrize(("number", "python"), VERSIONS)
def test_folder_itself_may_be_the_root(tmp_path, accept, number, python):
    root = make_cifar(tmp_path, number, PER_PART, python)
    accept(number, root)
    assert contents(read(number, root / cifar_folder(number, python))) == contents(read(number, root))


@pytest.mark.parametrize(("number", "python"), VERSIONS)
def test_archive_is_read_alike_and_not_unpacked(tmp_path, monkeypatch, number, python):
    digests = with_digests_of(PUBLISHED[number].python, make_cifar(tmp_path / "folder", number, PER_PART, True)).md5
    root = make_cifar(tmp_path / "archive", number, PER_PART, python, archive=True)
    publication = small_publication(number, root)
    known = dataclasses.replace(publication, python=dataclasses.replace(publication.python, md5=digests))
    monkeypatch.setattr(cifar, f"CIFAR{number}", known)
    assert contents(read(number, root)) == (CLASSES[number], expected_samples(number))
    assert [path.name for path in root.iterdir()] == [f"cifar-{number}-{'python' if python else 'binary'}.tar.gz"]


@pytest.mark.parametrize(("number", "label_bytes"), [(10, [7]), (100, [19, 83])])
def test_pixels_are_three_planes_row_by_row_after_the_labels(tmp_path, accept, number, label_bytes):
    root = make_cifar(tmp_path, number, PER_PART)
    accept(number, root)
    path = root / cifar_folder(number, False) / ("data_batch_1.bin" if number == 10 else "train.bin")
    planes = bytearray(3072)
    planes[0], planes[1024 + 31], planes[2048 + 32] = 11, 22, 33  # red top left, green top right, blue below the first
    path.write_bytes(bytes(label_bytes) + bytes(planes) + path.read_bytes()[len(label_bytes) + 3072 :])
    sample = read(number, root).samples[0]
    expected = np.zeros((32, 32, 3), np.uint8)
    expected[0, 0, 0], expected[0, 31, 1], expected[1, 0, 2] = 11, 22, 33
    assert sample.label == label_bytes[-1]
    np.testing.assert_array_equal(sample.load(), expected)


@pytest.mark.parametrize("number", [10, 100])
def test_torchvision_reads_the_same(tmp_path, accept, monkeypatch, number):
    from torchvision import datasets

    root = make_cifar(tmp_path, number, PER_PART, python=True)
    accept(number, root)
    library = getattr(datasets, f"CIFAR{number}")
    monkeypatch.setattr(f"{library.__module__}.check_integrity", lambda *_: True)
    pickled_load = pickle.load
    monkeypatch.setattr(pickle, "load", lambda file, encoding: in_todays_numpy(pickled_load, file, encoding))
    oracle = [library(str(root), train=is_train) for is_train in (True, False)]
    raw = read(number, root)
    assert list(raw.class_names) == oracle[0].classes
    pairs = [pair for dataset in oracle for pair in dataset]
    assert [(label, np.asarray(image).tobytes()) for image, label in pairs] == [
        (sample.label, sample.load().tobytes()) for sample in raw.samples
    ]


def in_todays_numpy(load, file, encoding):
    """NumPy warns of the old name of a module and of old flags, both of which torchvision leaves to it."""
    import warnings

    with warnings.catch_warnings(action="ignore"):
        return load(file, encoding=encoding)


@pytest.mark.parametrize("number", [10, 100])
def test_published_facts_are_torchvisions(number):
    from torchvision import datasets

    library, version = getattr(datasets, f"CIFAR{number}"), PUBLISHED[number].python
    parts = {name: "train" for name, _ in library.train_list} | {name: "test" for name, _ in library.test_list}
    assert (version.folder, version.archive) == (library.base_folder, library.filename)
    assert version.archive_md5 == library.tgz_md5
    assert library.url == cifar.ADDRESS + version.archive
    assert list(version.parts.items()) == list(parts.items())
    of_names = (library.meta["filename"], library.meta["md5"])
    assert version.md5 == dict([*library.train_list, *library.test_list, of_names])
    assert version.names == library.meta["filename"]
    assert version.keys[1].decode() == library.meta["key"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "sizes"),
    [
        (10, dict.fromkeys([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"], 30_730_000)),
        (100, {"train.bin": 153_700_000, "test.bin": 30_740_000}),
    ],
)
def test_files_of_the_published_size_hold_all_images(tmp_path, number, sizes):
    folder = make_cifar(tmp_path, number) / cifar_folder(number, False)
    for name, size in sizes.items():
        (folder / name).write_bytes(b"")
        os.truncate(folder / name, size)  # a hole in the file: takes no room on the disk
    splits = [sample.split for sample in read(number, tmp_path).samples]
    assert (splits.count("train"), splits.count("test")) == (50_000, 10_000)


def test_packed_file_holds_the_pixels(tmp_path, accept):
    root = make_cifar(tmp_path / "raw", 10, PER_PART)
    accept(10, root)
    knobs = DatasetKnobs(reader="cifar10", image_size=32, channels=3)
    pack_dataset("cifar10", knobs, root, tmp_path / "cifar10.h5")
    dataset = open_dataset(tmp_path / "cifar10.h5")
    expected = [cifar_image(10, row)[1].transpose(2, 0, 1) for row in range(6 * PER_PART)]
    np.testing.assert_array_equal(dataset.images(np.arange(6 * PER_PART)), np.stack(expected))
    assert dataset.sample_ids("test").tolist() == list(range(5 * PER_PART, 6 * PER_PART))
    assert len(dataset.sample_ids("val")) == 5 * PER_PART / 10


# what is refused


@pytest.mark.parametrize("number", [10, 100])
def test_missing_files_are_asked_for(tmp_path, number):
    root = tmp_path / "raw"
    folder, archive = cifar_folder(number, False), f"cifar-{number}-binary.tar.gz"
    line = refusal(number, root, f"raw: CIFAR-{number} is not here and download is false; put ")
    address = f"https://www.cs.toronto.edu/~kriz/{archive}"
    assert line.endswith(f"put {archive} (from {address}) or the folder {folder} into {root}, or set download: true")
    assert not root.exists()


@pytest.mark.parametrize("number", [10, 100])
def test_no_network_is_one_line_that_says_what_to_put_where(tmp_path, monkeypatch, number):
    def unreachable(*_args, **_kwargs):
        raise URLError("no route\nto host")

    monkeypatch.setattr("edpipe.storage.download.urlopen", unreachable)
    line = refusal(number, tmp_path, r"could not be fetched \(<urlopen error no route to host>\)", download=True)
    assert re.search(
        rf"; put cifar-{number}-binary.tar.gz \(from https://\S+\) or the folder \S+ into {tmp_path}$", line
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "python"), VERSIONS)
def test_incomplete_folder_names_what_lacks(tmp_path, accept, number, python):
    root = make_cifar(tmp_path, number, PER_PART, python)
    accept(number, root)
    folder = root / cifar_folder(number, python)
    named = [path for path in folder.iterdir() if path.name.startswith(("batches", "fine", "meta"))]
    lost = [*folder.glob("test*"), *named]
    for path in lost:
        path.unlink()
    names = ", ".join(path.name for path in lost)
    refusal(number, root, f"{folder}: CIFAR-{number} is incomplete; put {names} beside the other files$", download=True)


@pytest.mark.parametrize("number", [10, 100])
@pytest.mark.parametrize(
    ("damage", "size"),
    [
        (lambda data, row: data[:-1], -1),
        (lambda data, row: data[:-row], -3072),
        (lambda data, row: data + b"\0", 1),
        (lambda data, row: data + data[:row], 3072),
        (lambda data, row: b"", None),
    ],
)
def test_binary_file_of_another_size_is_named(tmp_path, accept, number, damage, size):
    root = make_cifar(tmp_path, number, PER_PART)
    accept(number, root)
    path = root / cifar_folder(number, False) / ("test_batch.bin" if number == 10 else "test.bin")
    row = 3072 + number // 100 + 1
    path.write_bytes(damage(path.read_bytes(), row))
    held = {None: 0, 3072: (PER_PART + 1) * row, -3072: (PER_PART - 1) * row}.get(size, PER_PART * row + (size or 0))
    refusal(number, root, f"{path}: holds {held:,} bytes, must be {PER_PART * row:,} for 20 images; fetch it again$")


@pytest.mark.parametrize(
    ("number", "column", "value", "most"), [(10, 0, 10, 9), (10, 0, 255, 9), (100, 0, 20, 19), (100, 1, 100, 99)]
)
def test_labels_must_fit(tmp_path, accept, number, column, value, most):
    root = make_cifar(tmp_path, number, PER_PART)
    accept(number, root)
    path = root / cifar_folder(number, False) / ("data_batch_3.bin" if number == 10 else "train.bin")
    data = bytearray(path.read_bytes())
    data[5 * (3073 + number // 100) + column] = most
    path.write_bytes(data)
    read(number, root)
    data[5 * (3073 + number // 100) + column] = value
    path.write_bytes(data)
    refusal(number, root, f"{path}: holds label {value}, allowed are 0 to {most}; fetch it again$")


@pytest.mark.parametrize("number", [10, 100])
@pytest.mark.parametrize(
    ("damage", "difference", "lines"),
    [
        (lambda names: names[:-1], -1, -1),
        (lambda names: [*names, "more"], 1, 1),
        (lambda names: [names[0], *names[:-1]], -1, 0),
        (lambda names: [], None, None),
    ],
)
def test_class_names_must_be_as_many_as_classes(tmp_path, accept, number, damage, difference, lines):
    root = make_cifar(tmp_path, number, PER_PART)
    accept(number, root)
    path = root / cifar_folder(number, False) / ("batches.meta.txt" if number == 10 else "fine_label_names.txt")
    path.write_text("\n".join(damage(CLASSES[number])))
    different, listed = (0, 0) if lines is None else (number + difference, number + lines)
    refusal(
        number,
        root,
        f"{path}: names {different} different classes on {listed} lines, must name {number}; fetch it again$",
    )


def test_file_that_cannot_be_read_is_named(tmp_path, accept, monkeypatch):
    root = make_cifar(tmp_path, 10, PER_PART)
    accept(10, root)

    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", fail)
    refusal(10, root, r"data_batch_1.bin: cannot be read \(Input/output error\); put it here again$")


# archives


@pytest.mark.parametrize(("number", "python"), VERSIONS)
def test_archive_that_is_not_the_published_one_is_refused(tmp_path, number, python):
    root = make_cifar(tmp_path, number, PER_PART, python, archive=True)
    (path,) = root.iterdir()
    version = PUBLISHED[number].python if python else PUBLISHED[number].binary
    text = f"{path}: has MD5 {md5(path)}, but {version.archive_md5} is published; fetch this file again$"
    refusal(number, root, text)


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_archive_that_cannot_be_read_is_named(tmp_path, accept, keep):
    root = make_cifar(tmp_path, 10, PER_PART, archive=True)
    path = root / "cifar-10-binary.tar.gz"
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    accept(10, root)
    refusal(10, root, rf"{path}: cannot be read \(.+\); fetch this file again$")


def test_names_in_an_archive_never_become_paths(tmp_path, accept):
    root = make_cifar(tmp_path / "raw", 10, PER_PART)
    folder, path = root / "cifar-10-batches-bin", root / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for file in folder.iterdir():
            tar.add(file, f"../../{file.name}")
        link = tarfile.TarInfo("cifar-10-batches-bin/extra")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    accept(10, root)
    assert contents(read(10, root)) == (CIFAR10_CLASSES, expected_samples(10))
    assert [p.name for p in tmp_path.rglob("*")] == ["raw", path.name]


def test_archive_without_a_file_is_incomplete(tmp_path, accept):
    root = make_cifar(tmp_path, 100, PER_PART)
    folder, path = root / "cifar-100-binary", root / "cifar-100-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder / "train.bin", "cifar-100-binary/train.bin")
    for file in folder.iterdir():
        file.unlink()
    accept(100, root)
    refusal(100, root, f"{path}: CIFAR-100 is incomplete; put test.bin, fine_label_names.txt beside the other files$")


# pickles


@pytest.mark.parametrize("number", [10, 100])
def test_pickle_that_is_not_the_published_one_is_never_opened(tmp_path, monkeypatch, number):
    root = make_cifar(tmp_path, number, PER_PART, python=True)
    folder = root / cifar_folder(number, True)
    for path in folder.iterdir():
        path.write_bytes(pickle.dumps(Malice()))
    monkeypatch.setattr("edpipe.datasets.readers.cifar.load_pickled_arrays", lambda *_: pytest.fail("opened"))
    line = refusal(number, root, "pickles of others are not opened, as they can run code", download=True)
    first = next(iter(cifar_files(number, 1)))
    published = PUBLISHED[number].python.md5[first]
    assert line.startswith(f"{folder / first}: has MD5 {md5(folder / first)}, but {published} is published, and ")
    assert line.endswith(
        f"put cifar-{number}-binary.tar.gz or the folder {cifar_folder(number, False)} in place of this version"
    )


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_no_pickle_is_opened_while_one_is_not_the_published_one(tmp_path, accept, monkeypatch, name):
    root = make_cifar(tmp_path, 10, PER_PART, python=True)
    accept(10, root)
    path = root / "cifar-10-batches-py" / name
    path.write_bytes(path.read_bytes() + b"\0")
    monkeypatch.setattr("edpipe.datasets.readers.cifar.load_pickled_arrays", lambda *_: pytest.fail("opened"))
    refusal(10, root, f"{path}: has MD5 {md5(path)}, but ")


def test_code_in_a_pickle_is_not_run_even_if_the_digest_fits(tmp_path, accept):
    root = make_cifar(tmp_path, 10, PER_PART, python=True)
    path = root / "cifar-10-batches-py" / "batches.meta"
    path.write_bytes(pickle.dumps(Malice(), protocol=2))
    accept(10, root)
    refusal(10, root, rf"{path}: cannot be unpickled \(it names __builtin__.exec, which is no part of an array\); use ")
