"""Reader of CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their published binary or Python version.

Each version may be a folder or the archive it is published as; archives are read as they are, nothing is unpacked. The
Python version is pickled, and unpickling can run code: a file of it is opened only if its MD5 is the published one, and
even then by `load_pickled_arrays`, which runs none.
"""

import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers.pickled_arrays import load_pickled_arrays
from edpipe.datasets.readers.published import PublishedFile, fetch_published
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs
from edpipe.storage.download import md5_of

ADDRESS = "https://www.cs.toronto.edu/~kriz/"
CHANNELS, SIDE = 3, 32
PIXEL_BYTES = CHANNELS * SIDE * SIDE


@dataclass(frozen=True)
class Version:
    """One form in which the images are published.

    Attributes:
        folder: What the archive unpacks to.
        archive: Name of the archive.
        archive_md5: Its published MD5.
        parts: The split that each file of images belongs to, in reading order.
        names: The file that holds the class names.
        md5: Published MD5 of each file, for the version that is pickled.
        keys: Under which its labels and its class names are pickled.
    """

    folder: str
    archive: str
    archive_md5: str
    parts: Mapping[str, str]
    names: str
    md5: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[bytes, bytes] = (b"", b"")

    @property
    def files(self) -> tuple[str, ...]:
        """All that is read."""
        return (*self.parts, self.names)


@dataclass(frozen=True)
class Publication:
    """One data set as its authors publish it.

    Attributes:
        title: Its name for people.
        labels: How many values each of the labels before an image's pixels can take; the last one is the class.
        images: Images in each file of a split.
        binary: The version of plain bytes.
        python: The version of pickles.
    """

    title: str
    labels: tuple[int, ...]
    images: Mapping[str, int]
    binary: Version
    python: Version

    @property
    def num_classes(self) -> int:
        """Classes that images are told apart by: of CIFAR-100 the fine ones."""
        return self.labels[-1]


CIFAR10 = Publication(
    "CIFAR-10",
    labels=(10,),
    images={"train": 10_000, "test": 10_000},
    binary=Version(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        {f"data_batch_{number}.bin": "train" for number in range(1, 6)} | {"test_batch.bin": "test"},
        "batches.meta.txt",
    ),
    python=Version(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"},
        "batches.meta",
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
        (b"labels", b"label_names"),
    ),
)
CIFAR100 = Publication(
    "CIFAR-100",
    labels=(20, 100),
    images={"train": 50_000, "test": 10_000},
    binary=Version(
        "cifar-100-binary",
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        {"train.bin": "train", "test.bin": "test"},
        "fine_label_names.txt",
    ),
    python=Version(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        {"train": "train", "test": "test"},
        "meta",
        {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
        (b"fine_labels", b"fine_label_names"),
    ),
)


@dataclass(frozen=True)
class Part:
    """The images of one file.

    Attributes:
        labels: The class of each.
        planes: Its pixels as they are stored: all red ones row by row, all green ones, all blue ones.
    """

    labels: list[int]
    planes: UInt8[np.ndarray, "sample pixel_byte"]


def read_cifar10(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """CIFAR-10, as `read` gives it."""
    return read(CIFAR10, root, knobs)


def read_cifar100(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """CIFAR-100 with its fine classes, as `read` gives it."""
    return read(CIFAR100, root, knobs)


def read(publication: Publication, root: Path, knobs: DatasetKnobs) -> RawDataset:
    """The official train and test images; the binary archive is fetched into root if knobs.download allows it.

    Root may hold the folder or the archive of either version, or be that folder.

    Raises:
        DataError: the files are missing and cannot be fetched, one of them is damaged, or a pickled one is not the
            published one.
    """
    version, place = _find(publication, root) or _fetch(publication, root, knobs)
    contents = _read_archive(place, version) if place.is_file() else _read_folder(place, version)
    _check_complete(publication, version, place, contents)
    if version is publication.binary:
        parts = [_plain_part(publication, split, place / n, contents[n]) for n, split in version.parts.items()]
        names = contents[version.names].decode("utf-8", "replace").split()
    else:
        parts, names = _unpickle(publication, place, contents)
    samples = _samples(list(version.parts.values()), parts)
    return RawDataset(_checked_names(publication, place / version.names, names), samples)


def _find(publication: Publication, root: Path) -> tuple[Version, Path] | None:
    """The version that lies there, and its folder or archive."""
    for version in (publication.binary, publication.python):
        for folder in (root / version.folder, root):
            if any((folder / name).is_file() for name in version.files):
                return version, folder
        if (root / version.archive).is_file():
            return version, root / version.archive
    return None


def _fetch(publication: Publication, root: Path, knobs: DatasetKnobs) -> tuple[Version, Path]:
    binary = publication.binary
    file = PublishedFile(binary.archive, ADDRESS + binary.archive, binary.archive_md5)
    remedy = f"put {file.name} (from {file.address}) or the folder {binary.folder} into {root}"
    (archive,) = fetch_published(publication.title, [file], root, knobs, remedy)
    return binary, archive


def _read_folder(folder: Path, version: Version) -> dict[str, bytes]:
    present = [folder / name for name in version.files if (folder / name).is_file()]
    try:
        return {path.name: path.read_bytes() for path in present}
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); put it here again") from error


def _read_archive(archive: Path, version: Version) -> dict[str, bytes]:
    """The wanted files of an archive, without unpacking it: none of the names in it becomes a path."""
    try:
        with archive.open("rb") as file:
            found = md5_of(file)
            if found != version.archive_md5:
                raise DataError(
                    f"{archive}: has MD5 {found}, but {version.archive_md5} is published; fetch this file again"
                )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:gz") as tar:
                opened = {PurePosixPath(m.name).name: tar.extractfile(m) for m in tar if m.isfile()}
                return {name: data.read() for name, data in opened.items() if data and name in version.files}
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{archive}: cannot be read ({error}); fetch this file again") from error


def _check_complete(publication: Publication, version: Version, place: Path, contents: dict[str, bytes]) -> None:
    missing = [name for name in version.files if name not in contents]
    if missing:
        raise DataError(f"{place}: {publication.title} is incomplete; put {', '.join(missing)} beside the other files")


def _plain_part(publication: Publication, split: str, path: Path, data: bytes) -> Part:
    """Of the binary version: images one after the other, each with its label bytes first."""
    num_labels, num_images = len(publication.labels), publication.images[split]
    expected = num_images * (num_labels + PIXEL_BYTES)
    if len(data) != expected:
        raise DataError(
            f"{path}: holds {len(data):,} bytes, must be {expected:,} for {num_images:,} images; fetch it again"
        )
    rows = np.frombuffer(data, np.uint8).reshape(num_images, -1)
    for column, num_values in enumerate(publication.labels):
        largest = rows[:, column].max()
        if largest >= num_values:
            raise DataError(f"{path}: holds label {largest}, allowed are 0 to {num_values - 1}; fetch it again")
    return Part(rows[:, num_labels - 1].tolist(), rows[:, num_labels:])


def _unpickle(publication: Publication, place: Path, contents: dict[str, bytes]) -> tuple[list[Part], list[str]]:
    """Parts and class names of the Python version; nothing is opened before every file is known to be published."""
    version = publication.python
    for name, data in contents.items():
        _check_published(publication, place / name, data)
    label_key, name_key = version.keys
    batches = {name: load_pickled_arrays(data, place / name) for name, data in contents.items()}
    parts = [Part(batches[name][label_key], batches[name][b"data"]) for name in version.parts]
    return parts, [name.decode("utf-8", "replace") for name in batches[version.names][name_key]]


def _check_published(publication: Publication, path: Path, data: bytes) -> None:
    found, published = md5_of(io.BytesIO(data)), publication.python.md5[path.name]
    if found != published:
        binary = publication.binary
        raise DataError(
            f"{path}: has MD5 {found}, but {published} is published, and pickles of others are not opened, as they can "
            f"run code; put {binary.archive} or the folder {binary.folder} in place of this version"
        )


def _samples(splits: list[str], parts: list[Part]) -> list[RawSample]:
    """Numbered through within each split, in the order of the parts."""
    samples: list[RawSample] = []
    numbers = {split: count() for split in splits}
    for split, part in zip(splits, parts, strict=True):
        for label, planes in zip(part.labels, part.planes, strict=True):
            samples.append(RawSample(label, split, f"{split}/{next(numbers[split])}", partial(_image, planes)))
    return samples


def _image(planes: UInt8[np.ndarray, " pixel_byte"]) -> UInt8[np.ndarray, "height width channel"]:
    return np.ascontiguousarray(planes.reshape(CHANNELS, SIDE, SIDE).transpose(1, 2, 0))


def _checked_names(publication: Publication, path: Path, names: list[str]) -> tuple[str, ...]:
    if len(names) != publication.num_classes or len(set(names)) != len(names):
        raise DataError(
            f"{path}: names {len(set(names))} different classes on {len(names)} lines, must name "
            f"{publication.num_classes}; fetch it again"
        )
    return tuple(names)
