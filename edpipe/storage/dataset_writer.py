"""Writes a dataset file from a stream of stored images, never holding more than a few of them."""

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from jaxtyping import Int64, UInt8

from edpipe.storage.dataset_file import (
    FORMAT,
    FORMAT_VERSION,
    SPLITS,
    DatasetHeader,
    content_digest,
    header_digest,
    sample_key,
)
from edpipe.storage.hdf5 import fixed_text, write_hdf5_atomically

WRITE_BATCH = 256
COPY_BYTES = 16 * 2**20
LARGEST = 255


@dataclass(frozen=True)
class StoredImage:
    """One image as it is stored: its pixels, and the JPEG file they are decoded from unless stored raw."""

    pixels: UInt8[np.ndarray, "channel height width"]
    jpeg: bytes | None = None


def write_dataset(
    path: Path,
    header: DatasetHeader,
    labels: Sequence[int],
    splits: Sequence[str],
    sources: Sequence[str],
    images: Iterable[StoredImage],
) -> None:
    """Writes the file whole or not at all; equal arguments give equal bytes.

    Raises:
        ValueError: labels, splits, sources and images differ in number, or there are none.
        OverwriteError: the file cannot be written.
    """
    if not len(labels) == len(splits) == len(sources) > 0:
        raise ValueError(f"{len(labels)} labels, {len(splits)} splits, {len(sources)} sources: must be equal and not 0")
    with write_hdf5_atomically(path) as file:
        split_ids = np.array([SPLITS.index(split) for split in splits], np.uint8)
        if header.encoding == "raw":
            gathered = _write_raw(file, header, split_ids, images)
        else:
            gathered = _write_jpeg(file, header, split_ids, images, path.parent)
        columns = {
            "label": np.array(labels, np.int32),
            "split": split_ids,
            "sample_key": np.array(gathered.keys, np.uint64),
            "source": _texts(sources),
        }
        if header.encoding == "jpeg":
            columns["jpeg_offset"] = np.array(gathered.offsets, np.int64)
        _write_columns(file, columns)
        _write_header(file, header, columns, gathered)


class _Gathered:
    """What is learnt of the images while they pass by."""

    def __init__(self, channels: int, splits: UInt8[np.ndarray, " sample"]) -> None:
        self.keys: list[int] = []
        self.offsets = [0]
        self._splits = splits
        self._counts = np.zeros((channels, LARGEST + 1), np.int64)

    def add(self, image: StoredImage) -> None:
        if len(self.keys) == len(self._splits):
            raise ValueError(f"more images than the {len(self._splits)} labels")
        if self._splits[len(self.keys)] == SPLITS.index("train"):
            for counts, channel in zip(self._counts, image.pixels, strict=True):
                counts += np.bincount(channel.reshape(-1), minlength=LARGEST + 1)
        self.keys.append(sample_key(image.pixels))
        self.offsets.append(self.offsets[-1] + len(image.jpeg or b""))

    def finish(self) -> "_Gathered":
        if len(self.keys) != len(self._splits):
            raise ValueError(f"{len(self.keys)} images for {len(self._splits)} labels")
        return self

    def means_and_stds(self) -> tuple[list[float], list[float]]:
        pairs = [mean_and_std(counts) for counts in self._counts]
        return [mean for mean, _ in pairs], [std for _, std in pairs]


def mean_and_std(counts: Int64[np.ndarray, "256"]) -> tuple[float, float]:
    """Of pixels on the scale 0 to 1, from how often each value 0..255 occurs; exact until the last division.

    The standard deviation is at least 1/255, one step of the scale, so that it can be divided by.
    """
    numbers = [int(number) for number in counts]
    total = max(sum(numbers), 1)
    first = sum(value * number for value, number in enumerate(numbers))
    second = sum(value * value * number for value, number in enumerate(numbers))
    std = math.sqrt(total * second - first * first) / total
    return first / total / LARGEST, max(std, 1.0) / LARGEST


def _write_raw(
    file: h5py.File, header: DatasetHeader, splits: UInt8[np.ndarray, " sample"], images: Iterable[StoredImage]
) -> _Gathered:
    gathered = _Gathered(header.channels, splits)
    shape = (len(splits), header.channels, header.image_size, header.image_size)
    stored = file.create_dataset("images", shape, np.uint8)
    for batch in _batches(images, WRITE_BATCH):
        start = len(gathered.keys)
        for image in batch:
            gathered.add(image)
        stored[start : start + len(batch)] = np.stack([image.pixels for image in batch])
    return gathered.finish()


def _write_jpeg(
    file: h5py.File,
    header: DatasetHeader,
    splits: UInt8[np.ndarray, " sample"],
    images: Iterable[StoredImage],
    folder: Path,
) -> _Gathered:
    """The bytes wait in an unnamed file: only the last image tells how long an uncut array must be."""
    gathered = _Gathered(header.channels, splits)
    with tempfile.TemporaryFile(dir=folder) as waiting:
        for image in images:
            gathered.add(image)
            waiting.write(image.jpeg or b"")
        stored = file.create_dataset("jpeg", (gathered.finish().offsets[-1],), np.uint8)
        _copy(waiting, stored)
    return gathered


def _batches(images: Iterable[StoredImage], size: int) -> Iterator[list[StoredImage]]:
    remaining = iter(images)
    while batch := list(islice(remaining, size)):
        yield batch


def _copy(source: IO[bytes], stored: h5py.Dataset) -> None:
    source.seek(0)
    start = 0
    while data := source.read(COPY_BYTES):
        stored[start : start + len(data)] = np.frombuffer(data, np.uint8)
        start += len(data)


def _texts(texts: Sequence[str]) -> np.ndarray:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(len(text) for text in encoded)))


def _write_columns(file: h5py.File, columns: dict[str, np.ndarray]) -> None:
    for name, values in columns.items():
        file.create_dataset(name, data=values, dtype=values.dtype)


def _write_header(file: h5py.File, header: DatasetHeader, columns: dict[str, np.ndarray], gathered: _Gathered) -> None:
    means, stds = gathered.means_and_stds()
    attributes: dict[str, object] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **vars(header),
        "class_names": json.dumps(header.class_names, ensure_ascii=False),
        "mean": np.array(means),
        "std": np.array(stds),
        "digest": content_digest(header, columns),
    }
    for name, value in (attributes | {"header_digest": header_digest(attributes, columns)}).items():
        file.attrs[name] = fixed_text(value) if isinstance(value, str) else value
