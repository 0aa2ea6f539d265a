"""Writes a dataset file from a stream of stored images, never holding more than a few of them."""

import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from edpipe.datasets.dataset_file import (
    FORMAT,
    FORMAT_VERSION,
    SPLITS,
    DatasetHeader,
    content_digest,
    header_digest,
    key_of,
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

    @property
    def stored(self) -> bytes:
        """The bytes that go into the file."""
        return self.pixels.tobytes() if self.jpeg is None else self.jpeg

    @property
    def stored_key(self) -> int:
        """The digest of these bytes."""
        return key_of(self.stored)


@dataclass(frozen=True)
class Samples:
    """What is known of the samples before their images are, in the same order."""

    labels: Sequence[int]
    splits: Sequence[str]
    sources: Sequence[str]

    def check(self) -> None:
        """Nothing, if the columns fit together.

        Raises:
            ValueError: they differ in length, or are empty.
        """
        if not len(self.labels) == len(self.splits) == len(self.sources) > 0:
            raise ValueError(
                f"{len(self.labels)} labels, {len(self.splits)} splits, {len(self.sources)} sources: "
                "must be equal and not 0"
            )


@dataclass(frozen=True, eq=False)
class Contents:
    """What is known of stored images without looking at them again."""

    keys: Sequence[int]
    stored_keys: Sequence[int]
    """Digests of the stored bytes; of raw images they are the keys."""
    lengths: Sequence[int]
    """Bytes of each, as stored."""
    counts: Int64[np.ndarray, "channel value"]
    """How often each value 0 … 255 occurs in each channel of the train split."""


def write_dataset(
    path: Path,
    header: DatasetHeader,
    labels: Sequence[int],
    splits: Sequence[str],
    sources: Sequence[str],
    images: Iterable[StoredImage],
) -> None:
    """Writes the file whole or not at all; equal arguments give equal bytes.

    The bytes wait in an unnamed file: only the last image tells how long an uncut array must be.

    Raises:
        ValueError: labels, splits, sources and images differ in number, or there are none.
        OverwriteError: the file cannot be written.
    """
    samples = Samples(labels, splits, sources)
    samples.check()
    with write_hdf5_atomically(path) as file, tempfile.TemporaryFile(dir=path.parent) as waiting:
        contents = _gather(header, splits, images, waiting)
        _fill(file, header, samples, contents, waiting)


def write_stored(path: Path, header: DatasetHeader, samples: Samples, contents: Contents, stored: IO[bytes]) -> None:
    """Writes the file that `write_dataset` writes, from images that lie one after the other in a file.

    Raises:
        ValueError: samples and contents differ in number, or there are none.
        OverwriteError: the file cannot be written.
    """
    samples.check()
    with write_hdf5_atomically(path) as file:
        _fill(file, header, samples, contents, stored)


def pixel_counts(pixels: UInt8[np.ndarray, "channel height width"]) -> Int64[np.ndarray, "channel value"]:
    """How often each value 0 … 255 occurs in each channel; Pillow counts several times as fast as NumPy."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    return np.array(image.histogram(), np.int64).reshape(len(pixels), -1)


def _gather(header: DatasetHeader, splits: Sequence[str], images: Iterable[StoredImage], goal: IO[bytes]) -> Contents:
    keys, stored_keys, lengths, counts = [], [], [], np.zeros((header.channels, LARGEST + 1), np.int64)
    for number, image in enumerate(images):
        if number == len(splits):
            raise ValueError(f"more images than the {len(splits)} labels")
        if splits[number] == "train":
            counts += pixel_counts(image.pixels)
        keys.append(sample_key(image.pixels))
        stored_keys.append(image.stored_key)
        lengths.append(goal.write(image.stored))
    return Contents(keys, stored_keys, lengths, counts)


def _fill(file: h5py.File, header: DatasetHeader, samples: Samples, contents: Contents, stored: IO[bytes]) -> None:
    count = len(samples.labels)
    if len(contents.keys) != count:
        raise ValueError(f"{len(contents.keys)} images for {count} labels")
    offsets = np.concatenate([[0], np.cumsum(contents.lengths, dtype=np.int64)])
    columns = {
        "label": np.array(samples.labels, np.int32),
        "split": np.array([SPLITS.index(split) for split in samples.splits], np.uint8),
        "sample_key": np.array(contents.keys, np.uint64),
        "source": _texts(samples.sources),
    }
    if header.encoding == "raw":
        shape = (count, header.channels, header.image_size, header.image_size)
        _copy(stored, file.create_dataset("images", shape, np.uint8), WRITE_BATCH)
    else:
        columns |= {"jpeg_offset": offsets, "jpeg_key": np.array(contents.stored_keys, np.uint64)}
        _copy(stored, file.create_dataset("jpeg", (offsets[-1],), np.uint8), COPY_BYTES)
    _write_columns(file, columns)
    _write_header(file, header, columns, contents.counts)


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


def _copy(source: IO[bytes], goal: h5py.Dataset, rows_at_once: int) -> None:
    """Fills an array with the bytes of a file, from its beginning."""
    source.seek(0)
    row_bytes = int(np.prod(goal.shape[1:], dtype=np.int64))
    for start in range(0, len(goal), rows_at_once):
        rows = min(rows_at_once, len(goal) - start)
        data = np.frombuffer(source.read(rows * row_bytes), np.uint8)
        goal[start : start + rows] = data.reshape(rows, *goal.shape[1:])


def _texts(texts: Sequence[str]) -> np.ndarray:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(len(text) for text in encoded)))


def _write_columns(file: h5py.File, columns: dict[str, np.ndarray]) -> None:
    for name, values in columns.items():
        file.create_dataset(name, data=values, dtype=values.dtype)


def _write_header(
    file: h5py.File,
    header: DatasetHeader,
    columns: dict[str, np.ndarray],
    counts: Int64[np.ndarray, "channel value"],
) -> None:
    means, stds = zip(*(mean_and_std(of_channel) for of_channel in counts), strict=True)
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
