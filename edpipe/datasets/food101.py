"""Reader of Food-101 (Bossard et al. 2014) in its published layout, as a folder or as the published archive."""

import json
import os
import shutil
import tarfile
import tempfile
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from edpipe.datasets.images import open_image
from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

FOLDER = "food-101"
ARCHIVE = "food-101.tar.gz"
SPLITS = ("train", "test")
# Python before 3.11.4 knows no filter, and Debian 12 has 3.11.2.
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def read(root: Path, knobs: DatasetKnobs) -> RawDataset:
    """The official train and test images in the order of meta/train.json and meta/test.json.

    Root may hold the folder food-101, be that folder, or hold food-101.tar.gz, which is then unpacked beside it.

    Raises:
        DataError: the files are missing and cannot be fetched, the archive is damaged, meta is not that of Food-101,
            or an image that meta names is missing.
    """
    folder = _find(root) or _unpack_or_fetch(root, knobs.download)
    named = {split: _read_meta(folder / "meta" / f"{split}.json") for split in SPLITS}
    class_names = tuple(sorted(named["train"]))
    _check_classes(folder / "meta" / "test.json", class_names, sorted(named["test"]))
    if (folder / "meta" / "classes.txt").is_file():
        _check_classes(
            folder / "meta" / "classes.txt", class_names, _read_text(folder / "meta" / "classes.txt").split()
        )
    labels = {class_name: label for label, class_name in enumerate(class_names)}
    samples = [
        RawSample(labels[class_name], split, f"{name}.jpg", partial(open_image, folder / "images" / f"{name}.jpg"))
        for split in SPLITS
        for class_name, names in named[split].items()
        for name in names
    ]
    _check_present(folder / "images", [sample.source for sample in samples])
    return RawDataset(class_names, samples)


def _find(root: Path) -> Path | None:
    for folder in (root / FOLDER, root):
        if (folder / "meta").is_dir() or (folder / "images").is_dir():
            return folder
    return None


def _unpack_or_fetch(root: Path, is_download_allowed: bool) -> Path:
    archive = root / ARCHIVE
    remedy = f"put {ARCHIVE} or the folder {FOLDER} (with images and meta in it) into {root}"
    if not archive.is_file() and not is_download_allowed:
        raise DataError(f"{root}: Food-101 is not here and download is false; {remedy}, or set download: true")
    if not archive.is_file():
        try:
            download(root)
        except (OSError, RuntimeError, HTTPException) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{root}: Food-101 is not here and could not be fetched ({reason}); {remedy}") from error
    return _unpack(archive)


def download(root: Path) -> None:
    """Fetches food-101.tar.gz (5 GB) through torchvision, checked against its published digest, whole or not at all.

    Raises:
        OSError: the folder cannot be written, or the server cannot be reached.
        RuntimeError: the file is not the published one.
    """
    from torchvision.datasets import Food101
    from torchvision.datasets.utils import download_url

    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as unfinished:
        download_url(Food101._URL, unfinished, ARCHIVE, Food101._MD5)
        os.replace(Path(unfinished) / ARCHIVE, root / ARCHIVE)


def _unpack(archive: Path) -> Path:
    """The folder food-101 beside the archive; it appears only when all of it is unpacked."""
    folder = archive.with_name(FOLDER)
    unfinished = Path(tempfile.mkdtemp(dir=archive.parent, prefix=".unpack-"))
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:  # one by one: to list them first would decompress the whole archive twice
                _check_member(member, unfinished)
                tar.extract(member, unfinished, **_FILTER)
        os.rename(unfinished / FOLDER, folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if not (folder / "meta").is_dir():  # else another job has unpacked the same archive meanwhile
            raise DataError(
                f"{archive}: cannot be unpacked to {folder} ({error}); free the disk or fetch the archive again"
            ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _check_member(member: tarfile.TarInfo, folder: Path) -> None:
    """Nothing, if it is a plain file or a folder below the given one."""
    is_inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
    if not is_inside or not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name} is no plain file below {FOLDER}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); put Food-101's own file here") from error


def _read_meta(path: Path) -> dict[str, list[str]]:
    try:
        named = json.loads(_read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: cannot be read ({error}); put Food-101's own file here") from error
    is_meta = isinstance(named, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in named.values()
    )
    if not is_meta:
        raise DataError(f"{path}: must map each class to a list of image names; put Food-101's own file here")
    return named


def _check_classes(path: Path, class_names: tuple[str, ...], listed: list[str]) -> None:
    differing = sorted(set(class_names).symmetric_difference(listed))
    if differing:
        raise DataError(
            f"{path}: class {differing[0]} is named only here or only in train.json; unpack {ARCHIVE} again"
        )


def _check_present(images: Path, sources: list[str]) -> None:
    """Lists each class folder once: a look at each of 101,000 files takes seconds on a network disk."""
    present = {f"{folder.name}/{file}" for folder in images.glob("*/") for file in os.listdir(folder)}
    missing = [source for source in sources if source not in present]
    if missing:
        raise DataError(
            f"{images / missing[0]}: is named in meta but missing ({len(missing)} such images); unpack {ARCHIVE} again"
        )
