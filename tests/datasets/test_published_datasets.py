"""SVHN, Tiny ImageNet, Caltech and ImageNet in small, in the layouts in which they are published."""

import shutil
from functools import partial

import numpy as np
import pytest
from layouts import class_image
from published_examples import accept_files, check_label_seen, contents, knobs, refusal
from published_layouts import (
    CALTECH101,
    CALTECH256,
    WNIDS,
    make_caltech101,
    make_caltech256,
    make_imagenet,
    make_svhn,
    make_tiny_imagenet,
    save_image,
    write_devkit_classes,
)
from scipy.io import savemat

from edpipe.datasets.readers import caltech, imagenet
from edpipe.datasets.readers.by_name import read_raw
from edpipe.datasets.splits import assign_splits
from edpipe.errors import DataError

pytestmark = pytest.mark.usefixtures("no_network")

IDS = sorted(WNIDS)
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META = "ILSVRC2012_devkit_t12/data/meta.mat"


@pytest.fixture
def accept(monkeypatch):
    """Makes the small files that lie in a root the published ones."""
    return partial(accept_files, monkeypatch)


# SVHN


@pytest.fixture
def svhn_root(tmp_path, accept):
    make_svhn(tmp_path, 60, 20, 30)
    accept("svhn", tmp_path)
    return tmp_path


def test_svhn_has_every_image_with_ten_for_zero(svhn_root):
    raw = read_raw(svhn_root, knobs("svhn"))
    assert raw.class_names == tuple("0123456789")
    expected = [(f"train/{row}", "train", row % 10) for row in range(60)]
    expected += [(f"test/{row}", "test", row % 10) for row in range(20)]
    assert [(s.source, s.split, s.label) for s in raw.samples] == expected
    for row, sample in enumerate(raw.samples):
        np.testing.assert_array_equal(sample.load(), class_image(sample.label, row, (32, 32)))


def test_svhn_extra_is_more_to_train_on(svhn_root):
    raw = read_raw(svhn_root, knobs("svhn", extra=True))
    assert [s.split for s in raw.samples] == ["train"] * 90 + ["test"] * 20
    assert [s.source for s in raw.samples[60:90]] == [f"extra/{row}" for row in range(30)]


def test_svhn_reads_what_torchvision_reads(svhn_root, monkeypatch):
    from torchvision.datasets import SVHN

    monkeypatch.setattr(SVHN, "_check_integrity", lambda _: True)
    oracle = [pair for split in ("train", "test") for pair in SVHN(str(svhn_root), split)]
    raw = read_raw(svhn_root, knobs("svhn"))
    assert [(int(label), np.asarray(image).tobytes()) for image, label in oracle] == [
        (s.label, s.load().tobytes()) for s in raw.samples
    ]


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "holds no X or no y; fetch this file again"),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [1]], np.uint8)},
            "holds labels 0 to 1, allowed are 1 to 10",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [2], [3]], np.uint8)},
            r"X is uint8 of shape \(32, 32, 3, 2\), must be uint8 of \(32, 32, 3, 3\)",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2)), "y": np.array([[1], [2]], np.uint8)},
            r"X is float64 of shape \(32, 32, 3, 2\), must be uint8",
        ),
        (b"no MATLAB file", r"cannot be read as a MATLAB file \(.+\); fetch this file again"),
    ],
)
def test_svhn_file_that_does_not_fit_is_named(svhn_root, accept, arrays, text):
    path = svhn_root / "test_32x32.mat"
    path.write_bytes(arrays) if isinstance(arrays, bytes) else savemat(path, arrays)
    accept("svhn", svhn_root)
    assert refusal("svhn", svhn_root, text).startswith(str(path))


# Tiny ImageNet


@pytest.fixture
def tiny_root(tmp_path):
    return make_tiny_imagenet(tmp_path)


def test_tiny_imagenet_has_its_classes_and_val_for_a_test_split(tiny_root):
    raw = read_raw(tiny_root, knobs("tiny_imagenet"))
    assert raw.class_names == ("n01443537 goldfish", "n02124075 Egyptian cat", "n02206856 bee", "n04067472 reel")
    assert [s.split for s in raw.samples] == ["train"] * 24 + ["test"] * 12
    assert [s.label for s in raw.samples] == [label for label in range(4) for _ in range(6)] + [0, 1, 2, 3] * 3
    assert raw.samples[7].source == f"train/{IDS[1]}/images/{IDS[1]}_1.JPEG"
    assert raw.samples[-1].source == "val/images/val_11.JPEG"
    check_label_seen(raw)


def test_tiny_imagenet_is_read_alike_from_the_folder_and_the_archive(tmp_path, tiny_root, accept):
    root = make_tiny_imagenet(tmp_path / "archive", archive=True)
    accept("tiny_imagenet", root)
    given = [tiny_root, tiny_root / "tiny-imagenet-200", root, root]
    raws = [contents(read_raw(place, knobs("tiny_imagenet"))) for place in given]
    assert all(raw == raws[0] for raw in raws)
    assert sorted(path.name for path in root.iterdir()) == ["tiny-imagenet-200", "tiny-imagenet-200.zip"]


def edit(path, change):
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (
            lambda f: (f / "val/val_annotations.txt").unlink(),
            "val_annotations.txt: cannot be read .*put Tiny Im",
        ),
        (lambda f: (f / "words.txt").unlink(), "words.txt: cannot be read"),
        (lambda f: shutil.rmtree(f / "val"), "val_annotations.txt: cannot be read"),
        (
            lambda f: shutil.rmtree(f / "train"),
            r"train: cannot be read \(No such file or directory\); put",
        ),
        (lambda f: edit(f / "wnids.txt", lambda t: t + WNIDS[2]), f"wnids.txt: class {WNIDS[2]} is named twice"),
        (lambda f: edit(f / "wnids.txt", lambda t: t + "n1"), "class n1 is only in wnids.txt or only in train .1 such"),
        (lambda f: shutil.rmtree(f / "train" / IDS[0]), f"class {IDS[0]} is only in wnids.txt or only in train"),
        (lambda f: edit(f / "words.txt", lambda t: t.replace(IDS[3], "n2")), f"words.txt: class {IDS[3]} is not in it"),
        (
            lambda f: edit(f / "val/val_annotations.txt", lambda t: t.replace(IDS[1], "n3", 1)),
            "line 2 gives val_1.JPEG the class 'n3', not in wnids.txt",
        ),
        (
            lambda f: edit(f / "val/val_annotations.txt", lambda t: t + "val_12.JPEG\n"),
            "line 13 gives val_12.JPEG the class ''",
        ),
        (
            lambda f: edit(f / "val/val_annotations.txt", lambda t: t + t.splitlines()[4]),
            "val_4.JPEG is annotated twice",
        ),
        (
            lambda f: (f / "val/images/val_3.JPEG").unlink(),
            r"val_3.JPEG: is only in val_annotations.txt or only in",
        ),
        (lambda f: save_image(f / "val/images/more.JPEG", 0, 0), r"more.JPEG: is only in val_annotations.txt or only"),
        (
            lambda f: [p.unlink() for p in (f / "train" / IDS[2] / "images").iterdir()],
            "class images has no .JPEG image; put the published images here",
        ),
    ],
)
def test_tiny_imagenet_that_does_not_fit_is_named(tiny_root, damage, text):
    damage(tiny_root / "tiny-imagenet-200")
    refusal("tiny_imagenet", tiny_root, text)


# Caltech


def test_caltech101_leaves_the_background_and_strays_aside(tmp_path, capsys):
    root = make_caltech101(tmp_path, per_class=3)
    raw = read_raw(root, knobs("caltech101"))
    assert raw.class_names == CALTECH101[1:]
    assert [s.source for s in raw.samples[:4]] == [*(f"Faces/image_000{n}.jpg" for n in (1, 2, 3)),
                                                   "Faces_easy/image_0001.jpg"]  # fmt: skip
    assert {s.split for s in raw.samples} == {None}
    assert capsys.readouterr().err == ""
    with_background = read_raw(root, knobs("caltech101", background=True))
    assert with_background.class_names == CALTECH101
    assert len(with_background.samples) == 15
    text = "101_ObjectCategories: left aside, as they are no .jpg files: BACKGROUND_Google/tmp\n"
    assert capsys.readouterr().err.endswith(text)
    check_label_seen(with_background)


def test_caltech256_leaves_the_clutter_and_strays_aside(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(caltech, "BACKGROUND_256", "004.clutter")
    root = make_caltech256(tmp_path, per_class=3)
    raw = read_raw(root, knobs("caltech256"))
    assert raw.class_names == CALTECH256[:3]
    assert [s.label for s in raw.samples] == [0] * 3 + [1] * 3 + [2] * 3
    strays = "002.american-flag/RENAME2, 003.backpack/greg"
    assert capsys.readouterr().err.endswith(f"left aside, as they are no .jpg files: {strays}\n")
    with_background = read_raw(root, knobs("caltech256", background=True))
    assert with_background.class_names == CALTECH256
    check_label_seen(with_background)


def test_many_strays_are_counted(tmp_path, capsys):
    root = make_caltech101(tmp_path, per_class=1)
    for number in range(7):
        (root / f"101_ObjectCategories/Faces/{number}.txt").write_text("")
    (root / "101_ObjectCategories/Faces/.DS_Store").write_text("")
    read_raw(root, knobs("caltech101"))
    assert capsys.readouterr().err.endswith("Faces/3.txt, Faces/4.txt and 2 more\n")


@pytest.mark.parametrize("archive", ["zip", "tar.gz"])
def test_caltech101_is_read_alike_wherever_and_however_it_is_kept(tmp_path, accept, archive):
    root = make_caltech101(tmp_path / "archive", archive=archive)
    accept("caltech101", root)
    folder = make_caltech101(tmp_path / "folder")
    places = [folder, folder / "101_ObjectCategories", root, root]
    for name in ("caltech101", "caltech-101"):
        make_caltech101(tmp_path / name / name)
        places.append(tmp_path / name)
    raws = [contents(read_raw(place, knobs("caltech101"))) for place in places]
    assert all(raw == raws[0] for raw in raws)
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["101_ObjectCategories"]


def test_caltech256_is_read_alike_wherever_and_however_it_is_kept(tmp_path, accept):
    root = make_caltech256(tmp_path / "archive", archive=True)
    accept("caltech256", root)
    folder = make_caltech256(tmp_path / "folder" / "caltech256")
    places = [folder.parent, folder, folder / "256_ObjectCategories", root]
    raws = [contents(read_raw(place, knobs("caltech256"))) for place in places]
    assert all(raw == raws[0] for raw in raws)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (
            lambda f: (f / "002.flag").mkdir(),
            r"002.flag: class 002 is there twice; remove the one that is not",
        ),
        (lambda f: shutil.rmtree(f / "002.american-flag"), "003.backpack: expected the class 002.<name> here"),
        (lambda f: (f / "zebra").mkdir(), "zebra: expected the class 005.<name> here; put the published folder"),
        (lambda f: (f / "005.zebra").mkdir(), "005.zebra: class 005.zebra has no .jpg image; put the published images"),
        (
            lambda f: (f / "001.ak47/001_0001.jpg").rename(f / "003.backpack/001_0001.jpg"),
            "backpack/001_0001.jpg: its name belongs to class 001; move it to that folder",
        ),
        (lambda f: [shutil.rmtree(p) for p in f.iterdir()], "holds no class folders; put the published ones here"),
    ],
)
def test_caltech256_that_does_not_fit_is_named(tmp_path, damage, text):
    damage(make_caltech256(tmp_path) / "256_ObjectCategories")
    refusal("caltech256", tmp_path, text)


def test_caltech_splits_are_drawn_by_the_seed(tmp_path):
    root = make_caltech101(tmp_path, per_class=20)
    splits = []
    for seed in (0, 0, 1):
        asked = knobs("caltech101", seed=seed)
        splits.append([s.split for s in assign_splits(read_raw(root, asked), asked).samples])
    assert [splits[0].count(split) for split in ("train", "val", "test")] == [56, 8, 16]
    assert splits[0] == splits[1] != splits[2]


def test_class_with_one_image_is_named(tmp_path):
    root = make_caltech101(tmp_path)
    for path in sorted((root / "101_ObjectCategories/accordion").iterdir())[1:]:
        path.unlink()
    raw = read_raw(root, knobs("caltech101"))
    with pytest.raises(
        DataError, match=r"^class accordion has 1 train, 0 val, 0 test images; each class needs at least"
    ):
        assign_splits(raw, knobs("caltech101"))


# ImageNet


@pytest.mark.parametrize("layout", ["archives", "flat", "sorted"])
def test_imagenet_has_its_classes_and_val_for_a_test_split(tmp_path, accept, layout):
    root = make_imagenet(tmp_path, layout=layout)
    accept("imagenet", root)
    raw = read_raw(root, knobs("imagenet"))
    assert raw.class_names == tuple(IDS)
    assert [s.split for s in raw.samples] == ["train"] * 24 + ["test"] * 12
    assert [s.label for s in raw.samples[:24]] == [label for label in range(4) for _ in range(6)]
    assert raw.samples[0].source == f"train/{IDS[0]}/{IDS[0]}_0.JPEG"
    check_label_seen(raw)


def test_imagenet_flat_val_is_labelled_line_by_line(tmp_path):
    raw = read_raw(make_imagenet(tmp_path, layout="flat"), knobs("imagenet"))
    expected = [(f"val/ILSVRC2012_val_{n + 1:08}.JPEG", (n * 3) % 4) for n in range(12)]
    assert [(s.source, s.label) for s in raw.samples[24:]] == expected


def test_imagenet_archives_are_unpacked_once(tmp_path, accept):
    root = make_imagenet(tmp_path)
    accept("imagenet", root)
    first = contents(read_raw(root, knobs("imagenet")))
    for path in root.glob("ILSVRC2012_*.tar*"):
        path.unlink()
    assert contents(read_raw(root, knobs("imagenet"))) == first
    assert sorted(path.name for path in root.iterdir()) == ["ILSVRC2012_devkit_t12", "train", "val"]


def test_imagenet_reads_the_devkit_as_torchvision_does(tmp_path, monkeypatch):
    from torchvision.datasets import imagenet as library

    root = make_imagenet(tmp_path)
    monkeypatch.setattr(library, "check_integrity", lambda path, md5=None: md5 is not None or str(path).endswith("bin"))
    library.parse_devkit_archive(str(root))
    _, expected = library.load_meta_file(str(root))
    make_imagenet(tmp_path / "folder", layout="flat")
    assert imagenet._ground_truth(tmp_path / "folder") == expected


@pytest.mark.parametrize("values", [{}, {"download": True}])
def test_missing_imagenet_says_which_files_to_put_where(tmp_path, no_network, values):
    line = refusal("imagenet", tmp_path, "ImageNet: train is not here, and it is never downloaded; put ", **values)
    assert all(name in line for name in imagenet.MD5)
    assert line.endswith(f"after registration) or the folders train and val into {tmp_path}")


@pytest.mark.parametrize(
    ("layout", "damage", "text"),
    [
        ("sorted", lambda f: shutil.rmtree(f / "val"), "ImageNet: val is not here, and it is never downloaded"),
        ("sorted", lambda f: [shutil.rmtree(p) for p in (f / "train").iterdir()], "train: holds no class folders; put"),
        ("sorted", lambda f: shutil.rmtree(f / "val" / IDS[1]), f"class {IDS[1]} is only in train or only in val; put"),
        ("flat", lambda f: shutil.rmtree(f / "train" / IDS[1]), f"class {IDS[1]} is only in val; put train/{IDS[1]}"),
        (
            "flat",
            lambda f: shutil.rmtree(f / "ILSVRC2012_devkit_t12"),
            "val has no class folders, and ILSVRC2012_devkit_t12.tar.gz, which tells its classes, is not here",
        ),
        (
            "flat",
            lambda f: (f / "val/ILSVRC2012_val_00000003.JPEG").unlink(),
            "ILSVRC2012_val_00000004.JPEG: expected ILSVRC2012_val_00000003.JPEG here",
        ),
        ("flat", lambda f: (f / "val/ILSVRC2012_val_00000012.JPEG").unlink(), "holds 11 images, but .* has 12 lines"),
        (
            "flat",
            lambda f: edit(f / TRUTH, lambda t: t.replace("1", "5")),  # a synset with children
            r"ground_truth.txt: cannot be read \(KeyError\(5\)\); unpack ILSVRC2012_devkit_t12.tar.gz again",
        ),
        ("flat", lambda f: edit(f / TRUTH, lambda _: "x"), r"ground_truth.txt: cannot be read \(ValueError"),
        ("flat", lambda f: (f / META).write_bytes(b"x"), r"meta.mat: cannot be read \(.+\); unpack ILSVRC2012_devkit"),
        (
            "flat",
            lambda f: write_devkit_classes(f / META, [(1, IDS[0], 0), (2, IDS[0], 0)]),
            "meta.mat: names a class twice; unpack ILSVRC2012_devkit_t12.tar.gz again",
        ),
    ],
)
def test_imagenet_that_does_not_fit_is_named(tmp_path, layout, damage, text):
    damage(make_imagenet(tmp_path, layout=layout))
    refusal("imagenet", tmp_path, text)


@pytest.mark.parametrize("name", list(imagenet.MD5))
def test_imagenet_archive_that_is_not_the_published_one_is_named(tmp_path, accept, name):
    root = make_imagenet(tmp_path)
    accept("imagenet", root)
    with (root / name).open("ab") as file:
        file.write(b"\0")
    refusal("imagenet", root, f"{name}: has MD5 [0-9a-f]{{32}}, but [0-9a-f]{{32}} is published; fetch this file again")
