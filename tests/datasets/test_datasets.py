"""Readers of raw data, image conversion, and which samples become train, val and test."""

import gzip
import os
import shutil
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import (
    FASHION_MNIST_FILES,
    FOOD101_CLASSES,
    class_image,
    make_fashion_mnist,
    make_food101,
    make_image_folder,
    write_idx,
)
from PIL import Image
from published_layouts import md5

from edpipe.datasets.dataset_file import decode_jpeg
from edpipe.datasets.images import open_image, to_jpeg, to_square
from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers import fashion_mnist, folder, food101
from edpipe.datasets.readers.by_name import read_raw
from edpipe.datasets.splits import assign_splits
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

pytestmark = pytest.mark.usefixtures("no_network")


def knobs(reader="folder", **values):
    return DatasetKnobs(reader=reader, **({"image_size": 8, "download": False} | values))


def fetched_nothing(*_args, **_kwargs):
    raise URLError("no route\nto host")


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def food101_folder(tmp_path_factory):
    return make_food101(tmp_path_factory.mktemp("food"), num_train=1, num_test=1, size=(6, 5))


@pytest.fixture
def accept_food101(monkeypatch):
    """Makes the archive that lies in a root the published one."""

    def accepting(root):
        monkeypatch.setattr(food101, "ARCHIVE", replace(food101.ARCHIVE, md5=md5(root / "food-101.tar.gz")))

    return accepting


@pytest.fixture
def food101_copy(food101_folder, tmp_path):
    shutil.copytree(food101_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


# digits


def test_digits_are_the_librarys_images_stretched_to_255(tmp_path):
    from sklearn.datasets import load_digits

    raw = read_raw(tmp_path / "absent", knobs("digits"))
    oracle = load_digits()
    images = np.stack([sample.load() for sample in raw.samples])
    assert raw.class_names == tuple("0123456789")
    assert [sample.label for sample in raw.samples] == oracle.target.tolist()
    assert {sample.split for sample in raw.samples} == {None}
    assert (images.min(), images.max()) == (0, 255)
    assert np.abs(images / 255 - oracle.images / 16).max() <= 0.5 / 255


# Fashion-MNIST


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("torchvision_folders", [True, False])
def test_fashion_mnist_is_read_wherever_and_however_it_is_kept(tmp_path, compressed, torchvision_folders):
    root = make_fashion_mnist(tmp_path, 20, 10, compressed, torchvision_folders)
    raw = read_raw(root, knobs("fashion_mnist"))
    assert [sample.split for sample in raw.samples] == ["train"] * 20 + ["test"] * 10
    assert [sample.label for sample in raw.samples] == [*range(10)] * 3
    for row, sample in enumerate(raw.samples):
        np.testing.assert_array_equal(sample.load(), class_image(sample.label, row, (28, 28), 1))


def test_fashion_mnist_reads_what_torchvision_reads(tmp_path):
    from torchvision.datasets import FashionMNIST

    root = make_fashion_mnist(tmp_path, 20, 10, compressed=False, torchvision_folders=True)
    raw = read_raw(root, knobs("fashion_mnist"))
    oracle = [FashionMNIST(str(root), train=is_train) for is_train in (True, False)]
    assert list(raw.class_names) == FashionMNIST.classes
    pairs = [pair for dataset in oracle for pair in dataset]
    assert [label for _, label in pairs] == [sample.label for sample in raw.samples]
    assert all(
        (np.asarray(image) == sample.load()).all() for (image, _), sample in zip(pairs, raw.samples, strict=True)
    )


def test_missing_fashion_mnist_names_the_four_files_and_the_folder(tmp_path):
    root = tmp_path / "fashion"
    with pytest.raises(DataError, match="is not here and download is false; put ") as error:
        read_raw(root, knobs("fashion_mnist"))
    assert all(f"{name}.gz" in one_line(error) for name in FASHION_MNIST_FILES)
    assert f"into {root}, or set download: true" in one_line(error)


def test_fashion_mnist_that_cannot_be_fetched_names_the_four_files_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("edpipe.storage.download.urlopen", fetched_nothing)
    with pytest.raises(DataError, match=r"could not be fetched .*no route") as error:
        read_raw(tmp_path, knobs("fashion_mnist", download=True))
    assert all(f"{name}.gz" in one_line(error) for name in FASHION_MNIST_FILES)
    assert list(tmp_path.iterdir()) == []


def test_fashion_mnist_with_a_file_missing_names_that_file(tmp_path):
    make_fashion_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"incomplete; put t10k-labels-idx1-ubyte.gz beside the other files"):
        read_raw(tmp_path, knobs("fashion_mnist"))


def test_published_facts_of_fashion_mnist_and_food101_are_torchvisions():
    from torchvision.datasets import FashionMNIST, Food101

    assert [(file.name, file.md5) for file in fashion_mnist.FILES] == FashionMNIST.resources
    assert FashionMNIST.mirrors == [fashion_mnist.ADDRESS]
    assert (food101.ARCHIVE.address, food101.ARCHIVE.md5) == (Food101._URL, Food101._MD5)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda data: data[:-30], "cannot be read"),
        (lambda data: b"no gzip", "cannot be read"),
        (lambda data: data[:40] + bytes([data[40] ^ 255]) + data[41:], "fetch this file again"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), "holds 31359 elements, but its header says 31360"),
        (
            lambda data: gzip.compress(b"\0\0\x0d\x03" + gzip.decompress(data)[4:]),
            "not an IDX file of bytes with 3 axes",
        ),
        (lambda data: gzip.compress(b""), "not an IDX file of bytes with 3 axes"),
    ],
)
def test_damaged_idx_file_is_named(tmp_path, damage, text):
    path = make_fashion_mnist(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=text) as error:
        read_raw(tmp_path, knobs("fashion_mnist"))
    assert str(path) in one_line(error)


def test_fashion_mnist_labels_must_fit(tmp_path):
    make_fashion_mnist(tmp_path, 20, 10)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.full(20, 10, np.uint8))
    with pytest.raises(DataError, match="holds label 10, allowed are 0 to 9"):
        read_raw(tmp_path, knobs("fashion_mnist"))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(19, np.uint8))
    with pytest.raises(DataError, match=r"holds 20 images, but train-labels-idx1-ubyte.gz holds 19 labels"):
        read_raw(tmp_path, knobs("fashion_mnist"))


# Food-101


def test_food101_has_its_classes_and_official_splits(food101_folder):
    raw = read_raw(food101_folder, knobs("food101"))
    assert raw.class_names == FOOD101_CLASSES
    assert len(FOOD101_CLASSES) == 101
    assert [sample.split for sample in raw.samples] == ["train"] * 101 + ["test"] * 101
    assert all(sample.source.startswith(FOOD101_CLASSES[sample.label] + "/") for sample in raw.samples)
    assert raw.samples[5].load().size == (6, 5)


def test_food101_reads_what_torchvision_reads(food101_folder):
    from torchvision.datasets import Food101

    raw = read_raw(food101_folder, knobs("food101"))
    oracle = [pair for split in ("train", "test") for pair in Food101(str(food101_folder), split)]
    assert [label for _, label in oracle] == [sample.label for sample in raw.samples]
    assert all(
        image.tobytes() == sample.load().tobytes() for (image, _), sample in zip(oracle, raw.samples, strict=True)
    )


def test_food101_folder_itself_may_be_the_root(food101_folder):
    sources = [
        [s.source for s in read_raw(root, knobs("food101")).samples]
        for root in (food101_folder, food101_folder / "food-101")
    ]
    assert sources[0] == sources[1]


def test_food101_archive_is_unpacked_once_and_read_alike(food101_folder, tmp_path, accept_food101):
    root = make_food101(tmp_path, num_train=1, num_test=1, size=(6, 5), archive=True)
    accept_food101(root)
    assert [path.name for path in root.iterdir()] == ["food-101.tar.gz"]
    raws = [read_raw(path, knobs("food101")) for path in (root, root, food101_folder)]
    assert sorted(path.name for path in root.iterdir()) == ["food-101", "food-101.tar.gz"]
    assert len({tuple((s.source, s.label, s.load().tobytes()) for s in raw.samples) for raw in raws}) == 1


def test_food101_archive_that_is_not_the_published_one_is_not_unpacked(tmp_path):
    archive = make_food101(tmp_path, num_train=1, num_test=1, size=(6, 5), archive=True) / "food-101.tar.gz"
    text = rf"^{archive}: has MD5 {md5(archive)}, but {food101.ARCHIVE.md5} is published; fetch this file again$"
    with pytest.raises(DataError, match=text):
        read_raw(tmp_path, knobs("food101"))
    assert [path.name for path in tmp_path.iterdir()] == ["food-101.tar.gz"]


def test_missing_food101_says_what_to_put_where(tmp_path):
    root = tmp_path / "food"
    with pytest.raises(DataError, match="Food-101 is not here and download is false") as error:
        read_raw(root, knobs("food101"))
    remedy = (
        f"put food-101.tar.gz or the folder food-101 (with images and meta in it) into {root}, or set download: true"
    )
    assert remedy in one_line(error)


def test_food101_that_cannot_be_fetched_says_what_to_put_where_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("edpipe.storage.download.urlopen", fetched_nothing)
    with pytest.raises(
        DataError, match=r"could not be fetched \(<urlopen error no route to host>\); put food-101"
    ) as error:
        read_raw(tmp_path, knobs("food101", download=True))
    assert one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_image_named_in_meta_but_missing_is_named(food101_copy):
    for name in ("hot_dog/1055000.jpg", "pizza/1076001.jpg"):
        (food101_copy / "food-101/images" / name).unlink()
    with pytest.raises(DataError, match=r"images/hot_dog/1055000.jpg: is named in meta but missing \(2 such images\)"):
        read_raw(food101_copy, knobs("food101"))


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("train.json", None, "train.json: cannot be read"),
        ("train.json", "{", "train.json: cannot be read"),
        ("test.json", '["pizza"]', "test.json: must map each class to a list of image names"),
        ("test.json", '{"pizza": [1]}', "test.json: must map each class to a list of image names"),
        ("test.json", '{"pizza": []}', "test.json: class apple_pie is named only here or only in train.json"),
        ("classes.txt", "haggis", "classes.txt: class apple_pie is named only here or only in train.json"),
    ],
)
def test_damaged_food101_meta_is_named(food101_copy, file, content, text):
    path = food101_copy / "food-101/meta" / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(DataError, match=text) as error:
        read_raw(food101_copy, knobs("food101"))
    assert one_line(error)


# a folder of class folders


def test_folder_gives_sorted_classes_and_files(tmp_path):
    make_image_folder(tmp_path, ("dog", "cat"), per_class=3)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat/Thumbs.db").write_text("")
    (tmp_path / "cat/.hidden.png").write_text("")
    raw = read_raw(tmp_path, knobs())
    assert raw.class_names == ("cat", "dog")
    assert [s.source for s in raw.samples] == [f"{c}/000{i}.png" for c in ("cat", "dog") for i in range(3)]
    assert {s.split for s in raw.samples} == {None}
    np.testing.assert_array_equal(np.asarray(raw.samples[4].load()), class_image(0, 1))


def test_folder_with_splits_keeps_them(tmp_path):
    make_image_folder(tmp_path, splits={"train": 3, "val": 1, "test": 2})
    raw = read_raw(tmp_path, knobs())
    assert [s.split for s in raw.samples] == ["train"] * 9 + ["val"] * 3 + ["test"] * 6
    assert raw.samples[-1].source == "test/owl/0001.png"
    assert assign_splits(raw, knobs(val_fraction=0.5)).samples == list(raw.samples)


def test_missing_folder_says_how_to_arrange_the_images(tmp_path):
    with pytest.raises(
        DataError, match="photos: there is no such folder; make it and put the images there as <class>/<image>"
    ):
        read_raw(tmp_path / "photos", knobs())


def test_folder_without_class_folders_says_how_to_arrange_the_images(tmp_path):
    (tmp_path / "a.png").write_text("")
    with pytest.raises(DataError, match="holds no class folders; arrange the images as <class>/<image>"):
        read_raw(tmp_path, knobs())


@pytest.mark.parametrize(
    ("splits", "missing"), [({"train": 1}, "test"), ({"train": 1, "val": 1}, "test"), ({"test": 1}, "train")]
)
def test_missing_split_is_named(tmp_path, splits, missing):
    make_image_folder(tmp_path, splits=splits)
    with pytest.raises(DataError, match=rf"but no {missing}; add .*/{missing} \(val may be left out"):
        read_raw(tmp_path, knobs())


def test_empty_class_is_named(tmp_path):
    make_image_folder(tmp_path)
    (tmp_path / "bat").mkdir()
    with pytest.raises(DataError, match=r"bat: class bat has no image \(.*\.bmp, .*\); add some or remove it"):
        read_raw(tmp_path, knobs())


def test_folder_inside_a_class_folder_is_named(tmp_path):
    make_image_folder(tmp_path)
    (tmp_path / "dog/puppies").mkdir()
    with pytest.raises(DataError, match=r"dog/puppies: a folder inside a class folder; move its images up to .*dog"):
        read_raw(tmp_path, knobs())


def test_name_that_is_not_utf8_is_refused(tmp_path):
    make_image_folder(tmp_path)
    try:
        os.rename(os.fsencode(tmp_path / "dog/0000.png"), os.fsencode(tmp_path) + b"/dog/\xff.png")
    except OSError:
        pytest.skip("this file system refuses such names itself")
    with pytest.raises(DataError, match=r"\\udcff.png': this name is not UTF-8; rename the file"):
        read_raw(tmp_path, knobs())


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_unreadable_image_is_named(tmp_path, content, suffix):
    path = make_image_folder(tmp_path, suffix=suffix) / f"dog/0003{suffix}"
    path.write_bytes(path.read_bytes()[:-300] if content == "truncated" else content)
    raw = read_raw(tmp_path, knobs())
    with pytest.raises(DataError, match=r"cannot be read as an image \(.+\); replace or remove this file") as error:
        [sample.load() for sample in raw.samples]
    assert one_line(error).startswith(str(path))


# conversion


def test_image_of_the_right_shape_keeps_its_pixels():
    pixels = class_image(0, 0, (8, 8))
    np.testing.assert_array_equal(to_square(Image.fromarray(pixels), 8, 3), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(to_square(pixels[..., 0], 8, 1), pixels[None, ..., 0])
    np.testing.assert_array_equal(to_square(pixels[..., 0], 8, 3), np.stack([pixels[..., 0]] * 3))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 24), st.sampled_from([1, 3]))
def test_square_is_that_of_torchvisions_resize_and_centre_crop(width, height, side, channels):
    from torchvision.transforms import v2

    image = Image.fromarray(class_image(0, 0, (width, height), channels))
    oracle = v2.Compose([v2.Resize(side, v2.InterpolationMode.BICUBIC), v2.CenterCrop(side)])(image)
    expected = np.asarray(oracle).reshape(side, side, channels).transpose(2, 0, 1)
    np.testing.assert_array_equal(to_square(image, side, channels), expected)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 24), st.sampled_from([1, 3]))
def test_jpeg_has_the_short_side_and_keeps_the_aspect(width, height, side, channels):
    pixels = decode_jpeg(to_jpeg(class_image(0, 0, (width, height), channels), side, channels, 95))
    assert pixels.shape[0] == channels
    assert min(pixels.shape[1:]) == side
    assert max(pixels.shape[1:]) == side * max(width, height) // min(width, height)
    if abs(width - height) > min(width, height):
        assert (pixels.shape[1] > pixels.shape[2]) == (height > width)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "HSV", "LAB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_the_asked_channels_without_change_of_a_plain_white(mode, channels):
    image = Image.new("RGB", (8, 8), "white")
    image = image.convert("RGBA").convert("LA") if mode == "LA" else image if mode == "LAB" else image.convert(mode)
    np.testing.assert_array_equal(to_square(image, 8, channels), np.full((channels, 8, 8), 255, np.uint8))


def test_transparent_pixels_are_white_whatever_colour_hides_in_them(tmp_path):
    np.testing.assert_array_equal(to_square(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), 8, 3), np.full((3, 8, 8), 255))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(tmp_path / "a.png", transparency=1)
    np.testing.assert_array_equal(to_square(open_image(tmp_path / "a.png"), 8, 3), np.full((3, 8, 8), 255))


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(to_square(open_image(tmp_path / "a.png"), 8, 1)[0], values // 257)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_mode_without_a_range_is_refused(mode):
    with pytest.raises(ValueError, match=f"images of mode {mode} have no fixed range; save them with 8 or 16 bits"):
        to_square(Image.new(mode, (8, 8)), 8, 3)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        to_square(Image.new("L", (8, 8)), 8, 2)


def exif_of(tag, value):
    exif = Image.Exif()
    exif[tag] = value
    return exif


def test_exif_orientation_is_applied(tmp_path):
    pixels = class_image(0, 0, (8, 6))
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif_of(0x0112, 6))  # rotated by a quarter turn
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "a.png")), np.rot90(pixels, -1))


def test_unreadable_exif_leaves_the_image_as_it_is(tmp_path):
    Image.fromarray(class_image(0, 0)).save(tmp_path / "a.jpg", exif=b"Exif\0\0damaged")
    assert open_image(tmp_path / "a.jpg").size == (24, 20)


def test_jpeg_carries_no_metadata(tmp_path):
    Image.fromarray(class_image(0, 0)).save(tmp_path / "a.jpg", comment=b"secret", exif=exif_of(0x010E, "secret"))
    assert b"secret" not in to_jpeg(open_image(tmp_path / "a.jpg"), 20, 3, 95)


# splits


def raw_of(class_sizes, split=None, prefix=""):
    return [
        RawSample(label, split, f"{prefix}{label}/{number}", lambda: np.zeros((4, 4), np.uint8))
        for label, size in enumerate(class_sizes)
        for number in range(size)
    ]


def raw_dataset(samples):
    return RawDataset(tuple(f"c{i}" for i in range(1 + max(s.label for s in samples))), samples)


def split_by_source(raw):
    return {sample.source: sample.split for sample in raw.samples}


SIZES = st.lists(st.integers(6, 30), min_size=1, max_size=4)


@given(SIZES, st.integers(0, 9), st.floats(0.1, 0.5), st.floats(0, 0.5))
def test_drawn_splits_are_stratified_and_keep_every_sample_in_order(sizes, seed, test_fraction, val_fraction):
    raw = raw_dataset(raw_of(sizes))
    given_knobs = knobs(seed=seed, test_fraction=test_fraction, val_fraction=val_fraction)
    drawn = assign_splits(raw, given_knobs)
    assert [s.source for s in drawn.samples] == [s.source for s in raw.samples]
    for label, size in enumerate(sizes):
        counts = [
            [s.split for s in drawn.samples if s.label == label].count(split) for split in ("train", "val", "test")
        ]
        num_test = round(size * test_fraction)
        num_val = round((size - num_test) * val_fraction)
        assert counts == [size - num_test - num_val, num_val, num_test]


@pytest.mark.slow
@given(SIZES, st.integers(0, 9), st.randoms(use_true_random=False))
def test_what_is_drawn_depends_on_names_and_seed_alone(sizes, seed, random):
    samples = raw_of(sizes)
    shuffled = random.sample(samples, len(samples))
    drawn = [split_by_source(assign_splits(raw_dataset(order), knobs(seed=seed))) for order in (samples, shuffled)]
    assert drawn[0] == drawn[1]


def test_seed_changes_what_is_drawn():
    raw = raw_dataset(raw_of([50, 50]))
    assert split_by_source(assign_splits(raw, knobs(seed=0))) != split_by_source(assign_splits(raw, knobs(seed=1)))


def test_official_splits_stay_and_val_is_cut_from_train_only():
    raw = raw_dataset(raw_of([20, 20], "train", "train/") + raw_of([10, 10], "test", "test/"))
    drawn = assign_splits(raw, knobs(val_fraction=0.25)).samples
    assert all((s.split == "test") == s.source.startswith("test/") for s in drawn)
    assert [[s.split for s in drawn if s.label == label].count("val") for label in (0, 1)] == [5, 5]


def test_max_per_class_keeps_the_first_of_each_split_and_moves_none():
    raw = raw_dataset(raw_of([20, 20]))
    everything = split_by_source(assign_splits(raw, knobs()))
    limited = assign_splits(raw, knobs(max_per_class=3)).samples
    assert all(everything[s.source] == s.split for s in limited)
    for label in (0, 1):
        for split, number in (("train", 3), ("val", 2), ("test", 3)):
            members = [s.source for s in raw.samples if s.label == label and everything[s.source] == split]
            assert [s.source for s in limited if s.label == label and s.split == split] == members[:number]


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (
            raw_of([10, 1]),
            "class c1 has 1 train, 0 val, 0 test images; each class needs at least 1 train and 1 test image",
        ),
        (raw_of([2, 2], "train") + raw_of([2], "test", "t"), "class c1 has 2 train, 0 val, 0 test images"),
        (raw_of([2], "train") + raw_of([2, 2], "test", "t"), "class c1 has 0 train, 0 val, 2 test images"),
    ],
)
def test_class_without_train_or_test_image_is_named_with_its_counts(samples, text):
    with pytest.raises(DataError, match=text) as error:
        assign_splits(raw_dataset(samples), knobs())
    assert one_line(error)


@pytest.mark.parametrize("names", [("Train", "Test"), ("train", "validation", "test"), ("test", "train", "unlabeled")])
def test_folders_that_look_like_splits_are_not_taken_for_classes(tmp_path, names):
    for name in names:
        make_image_folder(tmp_path / name, ("a", "b"), per_class=1)
    with pytest.raises(DataError, match=r"look like splits; these are called train, val and test") as error:
        folder.read(tmp_path, knobs())
    assert all(name in one_line(error) for name in names)


def test_a_class_may_be_called_train(tmp_path):
    make_image_folder(tmp_path, ("bus", "car", "train"), per_class=2)
    assert folder.read(tmp_path, knobs()).class_names == ("bus", "car", "train")


def test_pipes_and_links_to_nothing_are_no_images(tmp_path):
    make_image_folder(tmp_path, ("a", "b"), per_class=2)
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "b/link.png").symlink_to("/nowhere/x.png")
    (tmp_path / "b/self.png").symlink_to("self.png")
    found = folder.read(tmp_path, knobs())
    assert found.not_images == ("a/pipe.png", "b/link.png", "b/self.png")
    assert len(found.samples) == 4
