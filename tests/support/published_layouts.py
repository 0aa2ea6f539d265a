"""Makes small SVHN, Tiny ImageNet, Caltech, ImageNet and Hugging Face data sets in their published layouts.

As in `layouts`: each function writes below `root`, gives `root`, and makes equal images from equal arguments.
"""

import hashlib
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from layouts import class_image
from PIL import Image
from scipy.io import savemat

WNIDS = ("n02124075", "n01443537", "n04067472", "n02206856")
"""Not sorted, as in wnids.txt."""
WORDS = {
    "n01443537": "goldfish, Carassius auratus",
    "n02124075": "Egyptian cat",
    "n02206856": "bee",
    "n04067472": "reel",
}
CALTECH101 = ("BACKGROUND_Google", "Faces", "Faces_easy", "accordion", "yin_yang")
CALTECH256 = ("001.ak47", "002.american-flag", "003.backpack", "004.clutter")


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def save_image(path, label, number, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(class_image(label, number, size)).save(path, "JPEG", quality=90)


def make_svhn(root, num_train=60, num_test=20, num_extra=0):
    """SVHN's MATLAB files with so many digits, 0 to 9 taking turns; the digit 0 has label 10 there."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    first = 0
    for name, count in (("train", num_train), ("test", num_test), ("extra", num_extra)):
        if count:
            images = [class_image(row % 10, first + row, (32, 32)) for row in range(count)]
            labels = np.array([[row % 10 or 10] for row in range(count)], np.uint8)
            arrays = {"X": np.stack(images, axis=-1), "y": labels}
            savemat(root / f"{name}_32x32.mat", arrays, do_compression=True)
        first += count
    return root


def make_tiny_imagenet(root, num_train=6, num_val=3, archive=False):
    """tiny-imagenet-200 with four classes and so many 64 x 64 images each, or its zip archive alone."""
    root = Path(root)
    folder = root / "tiny-imagenet-200"
    for label, name in enumerate(sorted(WNIDS)):
        for number in range(num_train):
            save_image(folder / "train" / name / "images" / f"{name}_{number}.JPEG", label, number, (64, 64))
        (folder / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t63\t63\n")
    lines = []
    for number in range(num_val * len(WNIDS)):
        label = number % len(WNIDS)
        save_image(folder / "val" / "images" / f"val_{number}.JPEG", label, num_train + number, (64, 64))
        lines.append(f"val_{number}.JPEG\t{sorted(WNIDS)[label]}\t0\t32\t44\t62\n")
        save_image(folder / "test" / "images" / f"test_{number}.JPEG", label, 99, (64, 64))
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"{name}\n" for name in WNIDS))
    others = {"n00001740": "entity"}
    (folder / "words.txt").write_text("".join(f"{name}\t{text}\n" for name, text in (others | WORDS).items()))
    if archive:
        zip_folder(folder, root / "tiny-imagenet-200.zip")
    return root


def make_caltech101(root, per_class=8, archive=None):
    """101_ObjectCategories with four categories and the background; archive: "zip" or "tar.gz", then that alone."""
    root = Path(root)
    folder = root / "101_ObjectCategories"
    for label, name in enumerate(CALTECH101):
        for number in range(per_class):
            save_image(folder / name / f"image_{number + 1:04}.jpg", label, number)
    (folder / "BACKGROUND_Google" / "tmp").write_text("")
    if archive:
        tar_folder(folder, root / "101_ObjectCategories.tar.gz", "w:gz")
    if archive == "zip":
        inner = root / "caltech-101"
        inner.mkdir()
        (root / "101_ObjectCategories.tar.gz").rename(inner / "101_ObjectCategories.tar.gz")
        (inner / "Annotations.tar").write_bytes(b"")
        (inner / "show_annotation.m").write_text("% MATLAB\n")
        zip_folder(inner, root / "caltech-101.zip")
    return root


def make_caltech256(root, per_class=8, archive=False):
    """256_ObjectCategories with three categories, the clutter and the two strays; or its tar archive alone."""
    root = Path(root)
    folder = root / "256_ObjectCategories"
    for label, name in enumerate(CALTECH256):
        for number in range(per_class):
            save_image(folder / name / f"{name[:3]}_{number + 1:04}.jpg", label, number)
    (folder / "002.american-flag" / "RENAME2").write_text("#!/bin/sh\n")
    save_image(folder / "003.backpack" / "greg" / "vision301" / "003_0001.jpg", 0, 0)
    if archive:
        tar_folder(folder, root / "256_ObjectCategories.tar", "w")
    return root


def make_imagenet(root, num_train=6, num_val=3, layout="archives"):
    """ImageNet with four classes: its three archives, or folders with val "flat" beside the devkit or "sorted"."""
    root = Path(root)
    ids = sorted(WNIDS)
    for label, name in enumerate(ids):
        for number in range(num_train):
            save_image(root / "train" / name / f"{name}_{number}.JPEG", label, number)
    labels = [(number * 3) % len(ids) for number in range(num_val * len(ids))]
    for number, label in enumerate(labels):
        folder = root / "val" / (ids[label] if layout == "sorted" else "")
        save_image(folder / f"ILSVRC2012_val_{number + 1:08}.JPEG", label, num_train + number)
    if layout != "sorted":
        _make_devkit(root / "ILSVRC2012_devkit_t12" / "data", labels)
    if layout == "archives":
        for name in ids:
            tar_folder(root / "train" / name, root / "train" / f"{name}.tar", "w", name="")
        tar_folder(root / "train", root / "ILSVRC2012_img_train.tar", "w", name="")
        tar_folder(root / "val", root / "ILSVRC2012_img_val.tar", "w", name="")
        tar_folder(root / "ILSVRC2012_devkit_t12", root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz")
    return root


def _make_devkit(folder, labels):
    """The devkit numbers the classes in the order of WNIDS, from 1; two synsets with children follow."""
    folder.mkdir(parents=True)
    rows = [(number, name, 0) for number, name in enumerate(WNIDS, start=1)]
    rows += [(len(rows) + 1, "n00001740", 2), (len(rows) + 2, "n00002137", 1)]
    write_devkit_classes(folder / "meta.mat", rows)
    numbers = {name: number for number, name, _ in rows}
    truth = "".join(f"{numbers[sorted(WNIDS)[label]]}\n" for label in labels)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


def write_devkit_classes(path, rows):
    """meta.mat of (number, WordNet id, number of children)."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height")
    synsets = np.empty((len(rows), 1), [(field, object) for field in fields])
    for row, (number, name, children) in enumerate(rows):
        values = (number, name, WORDS.get(name, "entity"), "a gloss", children, np.arange(children) + 1, 3)
        synsets[row, 0] = tuple(np.array(v) if isinstance(v, int) else v for v in values)
    savemat(path, {"synsets": synsets})


def tar_folder(folder, path, mode, name=None):
    """The folder's archive in place of the folder; `name` is what the folder is called in it, "" for nothing."""
    with tarfile.open(path.with_name(f"{path.name}.new"), mode) as tar:
        for file in sorted(folder.rglob("*")):
            inside = file.relative_to(folder).as_posix()
            tar.add(file, inside if name == "" else f"{name or folder.name}/{inside}", recursive=False)
    _remove(folder)
    path.with_name(f"{path.name}.new").rename(path)


def zip_folder(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent).as_posix())
    _remove(folder)


def _remove(folder):
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    folder.rmdir()
