"""Small CIFAR files stand in for the published ones: their sizes, their digests, what is in them."""

import dataclasses
import hashlib

from layouts import CIFAR10_CLASSES, CIFAR100_CLASSES, cifar_files, cifar_image

from edpipe.datasets.readers import cifar

PUBLISHED = {10: cifar.CIFAR10, 100: cifar.CIFAR100}
CLASSES = {10: CIFAR10_CLASSES, 100: CIFAR100_CLASSES}
PER_PART = 20


def small_publication(number, root):
    """What is published, but with `PER_PART` images a file and with the digests of what lies in root."""
    real = PUBLISHED[number]
    return dataclasses.replace(
        real,
        images={"train": PER_PART, "test": PER_PART},
        binary=with_digests_of(real.binary, root),
        python=with_digests_of(real.python, root),
    )


def with_digests_of(version, root):
    archive, folder = root / version.archive, root / version.folder
    changes = {"archive_md5": md5(archive)} if archive.is_file() else {}
    if folder.is_dir() and version.md5:
        changes["md5"] = {name: md5(folder / name) for name in version.files}
    return dataclasses.replace(version, **changes)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def expected_samples(number):
    parts = cifar_files(number, PER_PART)
    splits = ["test" if name.startswith("test") else "train" for name, rows in parts.items() for _ in rows]
    num_train = splits.count("train")
    sources = [f"train/{row}" for row in range(num_train)] + [f"test/{row}" for row in range(PER_PART)]
    images = [cifar_image(number, row) for row in range(len(splits))]
    return [
        (*head, label, pixels.tobytes())
        for head, (label, pixels) in zip(zip(sources, splits, strict=True), images, strict=True)
    ]
