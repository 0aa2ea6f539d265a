"""Reader of Tiny ImageNet (Stanford CS231n 2015), 64 x 64 pixels, as a folder or as the published zip archive.

The labels of its own test images were never published. As the papers do, the 10,000 images of val are the test split,
and val is cut from train.
"""

from pathlib import Path

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers.class_folders import class_samples, file_sample, list_folders, list_images
from edpipe.datasets.readers.published import PublishedFile, check_md5, fetch_published
from edpipe.datasets.readers.unpack import Limits, unpack
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

FOLDER = "tiny-imagenet-200"
ARCHIVE = PublishedFile(
    "tiny-imagenet-200.zip",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
)
LIMITS = Limits(num_files=150_000, num_bytes=2 * 10**9)
"""The archive holds about 120,600 files and folders of 0.3 GB."""
SUFFIX = ".JPEG"
ANNOTATIONS = "val_annotations.txt"
REMEDY = "put Tiny ImageNet's own file here"


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """Train and, as test, val; the classes by sorted WordNet id, each named by id and first word.

    Root may hold the folder tiny-imagenet-200, be that folder, or hold the archive, which is then unpacked beside it.

    Raises:
        DataError: the files are missing and cannot be fetched, the archive is damaged or not the published one, or
            classes, folders and annotations do not fit each other.
    """
    folder = _find(root) or _unpack(root, knobs)
    ids = _class_ids(folder)
    train = class_samples(folder / "train", [f"{name}/images" for name in ids], "train", SUFFIX)
    samples = [RawSample(s.label, s.split, f"train/{s.source}", s.load) for s in train]
    return RawDataset(_class_names(folder, ids), samples + _val_samples(folder, ids))


def _find(root: Path) -> Path | None:
    return next((folder for folder in (root / FOLDER, root) if (folder / "wnids.txt").is_file()), None)


def _unpack(root: Path, knobs: DatasetKnobs) -> Path:
    remedy = f"put {ARCHIVE.name} (from {ARCHIVE.address}) or the folder {FOLDER} into {root}"
    (archive,) = fetch_published("Tiny ImageNet", [ARCHIVE], root, knobs, remedy)
    check_md5(archive, ARCHIVE.md5)
    return unpack(archive, root / FOLDER, LIMITS, FOLDER)


def _class_ids(folder: Path) -> list[str]:
    """Sorted WordNet ids, which are those of the folders in train."""
    listed = _read_text(folder / "wnids.txt").split()
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise DataError(f"{folder / 'wnids.txt'}: class {twice[0]} is named twice; {REMEDY}")
    differing = sorted(set(listed).symmetric_difference(list_folders(folder / "train")))
    if differing:
        raise DataError(
            f"{folder}: class {differing[0]} is only in wnids.txt or only in train ({len(differing)} such classes); "
            f"unpack {ARCHIVE.name} again"
        )
    return sorted(listed)


def _class_names(folder: Path, ids: list[str]) -> tuple[str, ...]:
    lines = [line.split("\t", 1) for line in _read_text(folder / "words.txt").splitlines() if "\t" in line]
    words = {name: text.split(",")[0].strip() for name, text in lines}
    unnamed = [name for name in ids if name not in words]
    if unnamed:
        raise DataError(f"{folder / 'words.txt'}: class {unnamed[0]} is not in it; {REMEDY}")
    return tuple(f"{name} {words[name]}" for name in ids)


def _val_samples(folder: Path, ids: list[str]) -> list[RawSample]:
    """In the order of the annotations; each image has one line, each line an image."""
    path, images = folder / "val" / ANNOTATIONS, folder / "val" / "images"
    labels = {name: label for label, name in enumerate(ids)}
    annotated: dict[str, int] = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        name, class_id = f"{line}\t".split("\t")[:2]
        if class_id not in labels:
            raise DataError(f"{path}: line {number} gives {name} the class {class_id!r}, not in wnids.txt; {REMEDY}")
        if name in annotated:
            raise DataError(f"{path}: {name} is annotated twice; {REMEDY}")
        annotated[name] = labels[class_id]
    differing = sorted(set(annotated).symmetric_difference(list_images(images, SUFFIX).images))
    if differing:
        raise DataError(
            f"{images / differing[0]}: is only in {ANNOTATIONS} or only in the folder ({len(differing)} such images); "
            f"unpack {ARCHIVE.name} again"
        )
    return [file_sample(folder, f"val/images/{name}", label, "test") for name, label in annotated.items()]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {REMEDY}") from error
