"""The dataset file: what is written is read, equal content gives equal bytes, and anything else is refused by name."""

import hashlib
import itertools
import json
import os
import pickle
import re
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import class_image
from PIL import Image

from edpipe.datasets.dataset_file import (
    SPLITS,
    SPOT_CHECKS,
    DatasetHeader,
    decode_jpeg,
    key_of,
    open_dataset,
    sample_key,
)
from edpipe.datasets.dataset_writer import StoredImage, mean_and_std, write_dataset
from edpipe.datasets.images import to_jpeg, to_square
from edpipe.errors import CorruptFileError

LABELS = [0, 1, 2, 0, 1, 2, 0, 1, 2]
PARTS = ["train"] * 3 + ["val"] * 3 + ["test"] * 3
SOURCES = [f"c{label}/ä{row}.png" for row, label in enumerate(LABELS)]


def images_of(encoding, channels=3, labels=LABELS):
    for row, label in enumerate(labels):
        image = class_image(label, row, (9, 7), channels)
        if encoding == "raw":
            yield StoredImage(to_square(image, 5, channels))
        else:
            data = to_jpeg(image, 6, channels, 95)
            yield StoredImage(decode_jpeg(data), data)


def header_of(encoding="raw", channels=3, name="tiny"):
    return DatasetHeader(name, ("a", "b", "ü"), encoding, 5, channels, 5 if encoding == "raw" else 6)


def write_tiny(path, encoding="raw", channels=3, name="tiny", labels=LABELS):
    write_dataset(path, header_of(encoding, channels, name), labels, PARTS, SOURCES, images_of(encoding, channels))
    return path


@pytest.fixture(scope="module")
def tiny_paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {encoding: write_tiny(folder / f"{encoding}.h5", encoding) for encoding in ("raw", "jpeg")}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_what_is_written_is_read(tmp_path, encoding, channels):
    dataset = open_dataset(write_tiny(tmp_path / "tiny.h5", encoding, channels))
    pixels = [image.pixels for image in images_of(encoding, channels)]
    assert (dataset.name, dataset.class_names, dataset.encoding) == ("tiny", ("a", "b", "ü"), encoding)
    assert (dataset.image_size, dataset.channels, dataset.num_classes, dataset.num_samples) == (5, channels, 3, 9)
    assert dataset.labels.tolist() == LABELS
    assert [SPLITS[split] for split in dataset.splits] == PARTS
    assert [source.decode() for source in dataset.sources] == SOURCES
    assert dataset.sample_keys.tolist() == [sample_key(each) for each in pixels]
    for sample_id, expected in enumerate(pixels):
        np.testing.assert_array_equal(dataset.decode(sample_id), expected)
    dataset.check_pixels(np.arange(9))
    dataset.check_stored(np.arange(9))


@given(st.lists(st.integers(0, 8), max_size=12))
def test_images_are_gathered_in_the_asked_order(tiny_paths, rows):
    dataset = open_dataset(tiny_paths["raw"])
    sample_ids = np.array(rows, dtype=np.int64)
    expected = [dataset.decode(row) for row in rows]
    gathered = dataset.images(sample_ids)
    assert gathered.shape == (len(rows), 3, 5, 5)
    assert all((a == b).all() for a, b in zip(gathered, expected, strict=True))
    assert type(gathered) is np.ndarray
    assert gathered.flags.writeable


def test_pixels_are_an_ordinary_uncompressed_hdf5_array(tiny_paths):
    with h5py.File(tiny_paths["raw"]) as file:
        assert (file["images"].chunks, file["images"].compression) == (None, None)
        np.testing.assert_array_equal(file["images"][:], open_dataset(tiny_paths["raw"]).images(np.arange(9)))
        assert h5py.check_string_dtype(file["source"].dtype).encoding == "utf-8"


def test_moments_are_those_of_the_train_pixels(tiny_paths):
    dataset = open_dataset(tiny_paths["raw"])
    train = dataset.images(dataset.sample_ids("train")) / 255
    np.testing.assert_allclose(dataset.mean, train.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, train.std(axis=(0, 2, 3)), rtol=1e-12)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=50))
def test_moments_agree_with_numpy(values):
    mean, std = mean_and_std(np.bincount(np.array(values), minlength=256))
    assert mean == pytest.approx(np.mean(values) / 255)
    assert std == pytest.approx(max(np.std(values), 1) / 255)


def test_sample_key_is_the_start_of_sha256():
    # sha256 of one zero byte begins 6e340b9cffb37a98.
    assert sample_key(np.zeros((1, 1, 1), np.uint8)) == 0x6E340B9CFFB37A98


def test_sample_ids_are_ascending_and_of_the_asked_split_and_classes(tiny_paths):
    dataset = open_dataset(tiny_paths["raw"])
    assert dataset.sample_ids("val").tolist() == [3, 4, 5]
    assert dataset.sample_ids("test", (2, 0)).tolist() == [6, 8]
    assert dataset.sample_ids("test", ()).tolist() == []
    with pytest.raises(ValueError, match=r"split must be one of .*, got 'dev'"):
        dataset.sample_ids("dev")


def test_callers_mistakes_are_value_errors(tiny_paths):
    raw, jpeg = (open_dataset(tiny_paths[encoding]) for encoding in ("raw", "jpeg"))
    for sample_id in (-1, 9):
        with pytest.raises(ValueError, match=f"sample ids must be from 0 to 8, got {sample_id}"):
            raw.images(np.array([sample_id]))
        with pytest.raises(ValueError, match=f"sample ids must be from 0 to 8, got {sample_id}"):
            jpeg.decode(sample_id)
    with pytest.raises(ValueError, match="holds JPEG images; use decode"):
        jpeg.images(np.array([0]))


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_opened_dataset_travels_to_another_process_without_its_pixels(tiny_paths, encoding):
    dataset = open_dataset(tiny_paths[encoding])
    data = pickle.dumps(dataset)
    assert len(data) < 400
    np.testing.assert_array_equal(pickle.loads(data).decode(4), dataset.decode(4))


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_writing_twice_gives_equal_bytes(tiny_paths, tmp_path, encoding):
    assert write_tiny(tmp_path / "again.h5", encoding).read_bytes() == tiny_paths[encoding].read_bytes()


def test_digest_tells_content_apart_but_not_names_or_places(tiny_paths, tmp_path):
    digest = open_dataset(tiny_paths["raw"]).digest
    assert open_dataset(write_tiny(tmp_path / "a.h5", name="other")).digest == digest
    others = [
        write_tiny(tmp_path / "b.h5", labels=[1, *LABELS[1:]]),
        write_tiny(tmp_path / "c.h5", channels=1),
        tiny_paths["jpeg"],
    ]
    assert len({digest, *(open_dataset(path).digest for path in others)}) == 4


def test_no_text_lies_in_hdf5s_heap_which_has_no_checksum(tiny_paths):
    # A flipped size in it makes HDF5 loop for ever; GCOL is the heap's signature (HDF5 file format, III.E).
    assert all(b"GCOL" not in path.read_bytes() for path in tiny_paths.values())


def test_many_and_long_class_names_fit(tmp_path):
    names = tuple(f"class number {number}" for number in range(9000))
    header = DatasetHeader("many", names, "raw", 5, 3, 5)
    write_dataset(tmp_path / "many.h5", header, LABELS, PARTS, SOURCES, images_of("raw"))
    assert open_dataset(tmp_path / "many.h5").class_names == names


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("number", [8, 10])
def test_writer_refuses_another_number_of_images_and_leaves_no_file(tmp_path, encoding, number):
    images = list(images_of(encoding, labels=[*LABELS, 0]))[:number]
    with pytest.raises(ValueError, match=r"8 images for 9 labels|more images than the 9 labels"):
        write_dataset(tmp_path / "tiny.h5", header_of(encoding), LABELS, PARTS, SOURCES, images)
    assert list(tmp_path.iterdir()) == []


def test_writer_refuses_columns_of_unequal_length(tmp_path):
    with pytest.raises(ValueError, match="9 labels, 8 splits, 9 sources: must be equal and not 0"):
        write_dataset(tmp_path / "tiny.h5", header_of(), LABELS, PARTS[1:], SOURCES, [])


# refusals


def refused(path):
    with pytest.raises(CorruptFileError) as error:
        open_dataset(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert "snakemake" in text
    return text


def test_missing_file_is_refused(tmp_path):
    assert "no such file; make it with `snakemake " in refused(tmp_path / "absent.h5")


@pytest.mark.parametrize("content", [b"", b"no HDF5", bytes(4096)])
def test_foreign_bytes_are_refused(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    assert "not a whole dataset file" in refused(tmp_path / "a.h5")


def test_foreign_hdf5_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    assert "an HDF5 file, but not of format edpipe-dataset" in refused(tmp_path / "a.h5")


def altered(tiny_paths, tmp_path, change, encoding="raw"):
    path = tmp_path / "altered.h5"
    shutil.copyfile(tiny_paths[encoding], path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def test_other_version_is_refused(tiny_paths, tmp_path):
    path = altered(tiny_paths, tmp_path, lambda file: file.attrs.modify("format_version", 1))
    assert "has format version 1, this edpipe reads 2" in refused(path)


@pytest.mark.parametrize(
    "name", ["name", "class_names", "image_size", "mean", "std", "digest", "header_digest", "encoding"]
)
def test_altered_attribute_is_refused(tiny_paths, tmp_path, name):
    def change(file):
        value = file.attrs[name]
        file.attrs[name] = value[:-1] + b"x" if isinstance(value, bytes) else value + 1

    refused(altered(tiny_paths, tmp_path, change))


@pytest.mark.parametrize("name", ["label", "split", "sample_key", "source"])
def test_altered_column_is_refused(tiny_paths, tmp_path, name):
    def change(file):
        file[name][0] = file[name][1] if name != "split" else 1

    assert "header, labels or keys are altered since written" in refused(altered(tiny_paths, tmp_path, change))


@pytest.mark.parametrize("name", ["label", "images"])
def test_missing_column_is_refused(tiny_paths, tmp_path, name):
    assert "not a whole dataset file" in refused(altered(tiny_paths, tmp_path, lambda file: file.pop(name)))


def test_pixels_that_are_not_a_plain_array_are_refused(tiny_paths, tmp_path):
    def change(file):
        pixels = file.pop("images")[:]
        file.create_dataset("images", data=pixels, compression="gzip")

    assert "pixels are cut off" in refused(altered(tiny_paths, tmp_path, change))


@pytest.mark.parametrize(("encoding", "name"), [("raw", "images"), ("jpeg", "jpeg")])
def test_fewer_pixels_than_labels_are_refused(tiny_paths, tmp_path, encoding, name):
    def change(file):
        pixels = file.pop(name)[:-1]
        file[name] = pixels

    assert "do not belong together" in refused(altered(tiny_paths, tmp_path, change, encoding))


def test_digest_of_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("edpipe.datasets.dataset_writer.content_digest", lambda *_: "0" * 16)
    assert "digest 0000000000000000 is not that of its labels and keys" in refused(write_tiny(tmp_path / "a.h5"))


def test_altered_pixels_are_refused_naming_sample_and_source(tiny_paths, tmp_path):
    def change(file):
        file["images"][4, 0, 0, 0] ^= 1

    text = refused(altered(tiny_paths, tmp_path, change))
    assert "sample 4 (c1/ä4.png) is not the image that was packed: altered since" in text


def test_altered_jpeg_is_refused_naming_the_sample(tiny_paths, tmp_path):
    def change(file):
        file["jpeg"][file["jpeg_offset"][3]] = 0

    text = refused(altered(tiny_paths, tmp_path, change, "jpeg"))
    assert "sample 3 (c0/ä3.png) is not the image that was packed: altered since" in text


def write_noise(path, encoding):
    """Forty images, of which opening the file looks at sixteen."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (3, 5, 5), dtype=np.uint8) for _ in range(40)]
    jpegs = [to_jpeg(Image.fromarray(each.transpose(1, 2, 0)), 6, 3, 95) for each in pixels]
    stored = {
        "raw": [StoredImage(each) for each in pixels],
        "jpeg": [StoredImage(decode_jpeg(data), data) for data in jpegs],
    }
    columns = [0] * 40, ["train"] * 40, [f"{number}.png" for number in range(40)]
    write_dataset(path, header_of(encoding), *columns, stored[encoding])
    return path


def blank(path, encoding, sample_ids):
    """Zeros in the place of the stored bytes; nothing else is touched, not even the time."""
    status = path.stat()
    with h5py.File(path, "r+") as file:
        for number in sample_ids:
            if encoding == "raw":
                file["images"][number] = 0
            else:
                start, stop = file["jpeg_offset"][number : number + 2]
                file["jpeg"][start + 200 : stop] = 0
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_what_is_read_is_compared_sample_by_sample(tmp_path, encoding):
    path = write_noise(tmp_path / "noise.h5", encoding)
    looked_at = np.unique(np.linspace(0, 39, SPOT_CHECKS).astype(np.int64))
    others = np.setdiff1d(np.arange(40), looked_at)
    blank(path, encoding, others[:3])
    dataset = open_dataset(path)
    dataset.check_stored(np.setdiff1d(np.arange(40), others[:3]))
    dataset.decode(int(others[3]))
    said = f"sample {others[1]} ({others[1]}.png) is not the image that was packed: altered since; make it again with"
    with pytest.raises(CorruptFileError, match=re.escape(said)):
        dataset.decode(int(others[1]))
    said = f"sample {others[0]} ({others[0]}.png) is not the image that was packed, and 2 more: altered since; "
    with pytest.raises(CorruptFileError, match=re.escape(said)):
        dataset.check_stored(np.array([5, *others[:3][::-1], others[4]]))
    if encoding == "raw":
        with pytest.raises(CorruptFileError, match=rf"sample {others[2]} "):
            dataset.images(np.array([0, others[2], 5]))


def test_each_image_is_compared_once(tiny_paths, monkeypatch):
    compared = []
    monkeypatch.setattr("edpipe.datasets.dataset_file.key_of", lambda data: compared.append(0) or key_of(data))
    dataset = open_dataset(tiny_paths["raw"])
    compared.clear()
    dataset._is_checked[:] = False
    for ids in ([1, 2], [2, 3], [1, 2, 3]):
        dataset.images(np.array(ids))
    assert len(compared) == 3


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_the_digest_follows_from_the_stored_bytes(tiny_paths, encoding):
    """All of it is redone here from the file, with nothing but h5py and hashlib."""
    with h5py.File(tiny_paths[encoding]) as file:
        if encoding == "raw":
            parts = [row.tobytes() for row in file["images"]]
        else:
            bounds = file["jpeg_offset"][:]
            parts = [file["jpeg"][a:b].tobytes() for a, b in itertools.pairwise(bounds)]
        keys = b"".join(hashlib.sha256(part).digest()[:8][::-1] for part in parts)
        assert keys == file["sample_key" if encoding == "raw" else "jpeg_key"][:].tobytes()
        facts = json.dumps([["a", "b", "ü"], encoding, 5, 3], separators=(",", ":"), ensure_ascii=False)
        columns = [file[name][:].tobytes() for name in ("sample_key", "label", "split")]
        state = hashlib.sha256(b"".join([facts.encode(), *columns, *([keys] if encoding == "jpeg" else [])]))
        assert file.attrs["digest"].decode() == state.hexdigest()[:16]


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_the_digest_of_the_frame_is_of_all_other_bytes(tiny_paths, tmp_path, encoding):
    path = tmp_path / "frame.h5"
    shutil.copyfile(tiny_paths[encoding], path)
    with h5py.File(path) as file:
        images = file["images" if encoding == "raw" else "jpeg"]
        start, stop = images.id.get_offset(), images.id.get_offset() + images.nbytes
    data = path.read_bytes()
    dataset = open_dataset(path)
    assert dataset.frame_digest() == hashlib.sha256(data[:start] + data[stop:]).hexdigest()[:16]
    path.unlink()
    with pytest.raises(CorruptFileError, match="cannot be read: No such file"):
        dataset.frame_digest()


@settings(max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True), encoding=st.sampled_from(["raw", "jpeg"]))
def test_truncated_file_is_refused(tiny_paths, share, encoding):
    data = tiny_paths[encoding].read_bytes()
    path = tiny_paths[encoding].with_name("truncated.h5")
    path.write_bytes(data[: int(len(data) * share)])
    refused(path)


@pytest.mark.slow
@settings(max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), encoding=st.sampled_from(["raw", "jpeg"]))
def test_flipped_bit_is_refused_or_changes_nothing(tiny_paths, place, bit, encoding):
    data = bytearray(tiny_paths[encoding].read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path = tiny_paths[encoding].with_name("flipped.h5")
    path.write_bytes(data)
    try:
        dataset = open_dataset(path)
    except CorruptFileError:
        return
    assert_equal_datasets(dataset, open_dataset(tiny_paths[encoding]))


def assert_equal_datasets(one, other):
    for name in ("name", "class_names", "encoding", "image_size", "channels", "stored_side", "digest", "mean", "std"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("labels", "splits", "sample_keys", "sources"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for sample_id in range(other.num_samples):
        np.testing.assert_array_equal(one.decode(sample_id), other.decode(sample_id))
