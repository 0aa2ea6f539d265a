"""Reader of ImageNet (ILSVRC 2012; Russakovsky et al. 2015), as folders or as the three official archives.

It is never downloaded: its terms ask for a registration. The labels of its own test images were never published; as the
papers do, the 50,000 images of val are the test split, and val is cut from train. A class is named by its WordNet id,
as its words are not unique, and the order is that of sorted ids, which pretrained networks have.
"""

import re
from pathlib import Path, PurePosixPath

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers.class_folders import class_samples, file_sample, list_folders, list_images
from edpipe.datasets.readers.published import check_md5
from edpipe.datasets.readers.unpack import Limits, unpack
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

MD5 = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
}
"""Published MD5 of each archive (torchvision.datasets.imagenet.ARCHIVE_META)."""
ADDRESS = "https://image-net.org/download-images.php"
DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SUFFIX = ".JPEG"
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
LIMITS = Limits(num_files=1_500_000, num_bytes=250 * 10**9)
"""The training images are 1,281,167 files of 148 GB."""


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """Train and, as test, val.

    Root holds the folders train (with a folder for each class) and val (with the same, or with all images and beside it
    the devkit), or the archives, which are unpacked beside themselves.

    Raises:
        DataError: something is missing, an archive is damaged or not the published one, or train, val and devkit do
            not fit each other.
    """
    train, val = _split_folder(root, "train"), _split_folder(root, "val")
    ids = list_folders(train)
    if not ids:
        raise DataError(f"{train}: holds no class folders; put train/<wnid>/<image>{SUFFIX} here")
    samples = _below("train", class_samples(train, ids, "train", SUFFIX))
    return RawDataset(tuple(ids), samples + (_sorted_val(val, ids) if list_folders(val) else _flat_val(root, val, ids)))


def _split_folder(root: Path, split: str) -> Path:
    archive = root / f"ILSVRC2012_img_{split}.tar"
    if (root / split).is_dir():
        return root / split
    if not archive.is_file():
        raise _missing(root, f"{split} is")
    check_md5(archive, MD5[archive.name])
    return unpack(archive, root / split, LIMITS, inner=_class_folder)


def _class_folder(name: PurePosixPath) -> PurePosixPath | None:
    """Where the content of an archive inside ILSVRC2012_img_train.tar belongs: it holds one class."""
    return name.with_suffix("") if name.suffix == ".tar" else None


def _missing(root: Path, what: str) -> DataError:
    return DataError(
        f"{root}: ImageNet: {what} not here, and it is never downloaded; put {', '.join(MD5)} (from {ADDRESS}, after "
        f"registration) or the folders train and val into {root}"
    )


def _below(folder: str, samples: list[RawSample]) -> list[RawSample]:
    return [RawSample(s.label, s.split, f"{folder}/{s.source}", s.load) for s in samples]


def _sorted_val(val: Path, ids: list[str]) -> list[RawSample]:
    """Of class folders, which must be those of train."""
    differing = sorted(set(ids).symmetric_difference(list_folders(val)))
    if differing:
        raise DataError(f"{val.parent}: class {differing[0]} is only in train or only in val; put it into both")
    return _below("val", class_samples(val, ids, "test", SUFFIX))


def _flat_val(root: Path, val: Path, ids: list[str]) -> list[RawSample]:
    """Of one folder, with the devkit's ground truth: line n is the class of image n."""
    images, classes = list_images(val, SUFFIX).images, _ground_truth(root)
    for number, name in enumerate(images, start=1):
        match = VAL_NAME.fullmatch(name)
        if match is None or int(match[1]) != number:
            raise DataError(f"{val / name}: expected ILSVRC2012_val_{number:08}.JPEG here; put the published images")
    if len(images) != len(classes):
        raise DataError(f"{val}: holds {len(images):,} images, but {TRUTH} has {len(classes):,} lines; unpack it again")
    labels = {class_id: label for label, class_id in enumerate(ids)}
    foreign = [class_id for class_id in classes if class_id not in labels]
    if foreign:
        raise DataError(f"{root}: class {foreign[0]} is only in val; put train/{foreign[0]} or remove it from both")
    return [
        file_sample(root, f"val/{name}", labels[class_id], "test")
        for name, class_id in zip(images, classes, strict=True)
    ]


def _ground_truth(root: Path) -> list[str]:
    """WordNet id of each image of val, in the order of their numbers."""
    folder, archive = root / DEVKIT, root / f"{DEVKIT}.tar.gz"
    if not folder.is_dir():
        if not archive.is_file():
            raise _missing(root, f"val has no class folders, and {archive.name}, which tells its classes, is")
        check_md5(archive, MD5[archive.name])
        unpack(archive, folder, LIMITS, DEVKIT)
    ids, path = _ids_by_number(folder / "data" / "meta.mat"), folder / "data" / TRUTH
    try:
        return [ids[int(line)] for line in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error!r}); unpack {archive.name} again") from error


def _ids_by_number(path: Path) -> dict[int, str]:
    """WordNet id of each class by the devkit's own number; a synset with children is no class."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        columns = [synsets[name].tolist() for name in ("ILSVRC2012_ID", "WNID", "num_children")]
        leaves = [(int(number), str(wnid)) for number, wnid, children in zip(*columns, strict=True) if children == 0]
    except Exception as error:  # scipy's reader raises almost any type on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read ({reason}); unpack {DEVKIT}.tar.gz again") from error
    ids = dict(leaves)
    if len(set(ids.values())) != len(leaves):
        raise DataError(f"{path}: names a class twice; unpack {DEVKIT}.tar.gz again")
    return ids
