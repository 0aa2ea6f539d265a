"""The dataset file: packed images, labels, splits and content keys in one HDF5 file; here its format and its reader.

Three things vouch for it. Attributes and small columns have a digest, compared whenever the file is opened. The stored
bytes of each image have a digest of their own among these columns, compared before the image is first given out. The
digest of the dataset is made of these digests: it follows from the stored bytes, and changes with any of them.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool, Int32, Int64, Shaped, UInt8, UInt64
from PIL import Image

from edpipe.errors import CorruptFileError, remake
from edpipe.params.base import canonical_json
from edpipe.storage.digests import DIGEST_LENGTH

FORMAT = "edpipe-dataset"
FORMAT_VERSION = 2
SPLITS = ("train", "val", "test")
COLUMNS = ("label", "split", "sample_key", "source")
JPEG_COLUMNS = ("jpeg_offset", "jpeg_key")
KEY_BYTES = 8
MODES = {1: "L", 3: "RGB"}
SPOT_CHECKS = 16
"""Samples whose pixels are compared with their keys when a file is opened."""
_HEADER_DIGEST = "header_digest"


@dataclass(frozen=True, eq=False)
class DatasetHeader:
    """What holds for all samples of a dataset."""

    name: str
    class_names: tuple[str, ...]
    encoding: str
    """raw: squares of image_size; jpeg: short side stored_side, any shape."""
    image_size: int
    """Side of the square a network sees, pixels."""
    channels: int
    stored_side: int
    """Short side of the stored images, pixels."""


@dataclass(frozen=True, eq=False)
class Dataset(DatasetHeader):
    """An opened dataset file; holds arrays and maps, no HDF5 handle, so that it may be forked and pickled.

    A sample's id is its row.
    """

    path: Path
    digest: str
    """Of keys, labels, splits, class names and shape: equal digests, equal samples in equal order."""
    mean: tuple[float, ...]
    """Of each channel over the stored pixels of the train split, 0 to 1."""
    std: tuple[float, ...]
    """Like mean; at least 1/255, so that it can be divided by."""
    labels: Int32[np.ndarray, " sample"] = field(repr=False)
    splits: UInt8[np.ndarray, " sample"] = field(repr=False)
    """Positions in SPLITS."""
    sample_keys: UInt64[np.ndarray, " sample"] = field(repr=False)
    sources: Shaped[np.ndarray, " sample"] = field(repr=False)
    """What each was made from, UTF-8: a file below the raw folder, or a row."""
    _pixels: UInt8[np.ndarray, "..."] = field(repr=False)
    _offsets: Int64[np.ndarray, " bound"] | None = field(repr=False)
    _stored_keys: UInt64[np.ndarray, " sample"] = field(repr=False)
    """Of the stored bytes; for raw images these are the pixels."""
    _pixels_start: int = field(repr=False)
    """Where the stored bytes begin in the file."""
    _is_checked: Bool[np.ndarray, " sample"] = field(repr=False)
    """Samples whose stored bytes were compared with their digests since the file was opened."""

    def __reduce__(self) -> tuple[object, ...]:
        return open_dataset, (self.path,)

    @property
    def num_classes(self) -> int:
        """Classes, each with an id from 0."""
        return len(self.class_names)

    @property
    def num_samples(self) -> int:
        """Samples of all splits, each with an id from 0."""
        return len(self.labels)

    def sample_ids(self, split: str, class_ids: Sequence[int] | None = None) -> Int64[np.ndarray, " sample"]:
        """Ids of a split's samples, ascending; only those of the given classes.

        Raises:
            ValueError: no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        chosen = self.splits == SPLITS.index(split)
        if class_ids is not None:
            chosen &= np.isin(self.labels, np.asarray(class_ids, dtype=np.int64))
        return np.flatnonzero(chosen).astype(np.int64)

    def images(self, sample_ids: Int64[np.ndarray, " sample"]) -> UInt8[np.ndarray, "sample channel height width"]:
        """Pixels of raw samples, gathered from the mapped file into an array of the caller's own.

        Raises:
            ValueError: the images are stored as JPEG and may differ in shape, or there is no such sample.
            CorruptFileError: the bytes of one are not those that were written.
        """
        if self._offsets is not None:
            raise ValueError(f"{self.path}: holds JPEG images; use decode")
        if len(sample_ids) and not 0 <= sample_ids.min() <= sample_ids.max() < self.num_samples:
            raise ValueError(
                f"sample ids must be from 0 to {self.num_samples - 1}, got {sample_ids.min()} … {sample_ids.max()}"
            )
        self.check_stored(sample_ids)
        return self._pixels[sample_ids]

    def decode(self, sample_id: int) -> UInt8[np.ndarray, "channel height width"]:
        """Pixels of one sample in its stored shape, in an array of the caller's own.

        Raises:
            ValueError: there is no such sample.
            CorruptFileError: its bytes are not those that were written.
        """
        if not 0 <= sample_id < self.num_samples:
            raise ValueError(f"sample ids must be from 0 to {self.num_samples - 1}, got {sample_id}")
        self.check_stored(np.array([sample_id]))
        if self._offsets is None:
            return self._pixels[sample_id].copy()
        try:
            return decode_jpeg(self._stored(sample_id).tobytes())
        except OSError as error:
            raise CorruptFileError(
                f"{self.path}: sample {sample_id} is no JPEG image ({error}); {remake(self.path)}"
            ) from error

    def _stored(self, sample_id: int) -> UInt8[np.ndarray, "..."]:
        """The bytes of one sample, in the mapped file."""
        if self._offsets is None:
            return self._pixels[sample_id]
        return self._pixels[self._offsets[sample_id] : self._offsets[sample_id + 1]]

    def check_stored(self, sample_ids: Int64[np.ndarray, " sample"]) -> None:
        """Compares the stored bytes of these samples with their digests; those of each once, as long as it is open.

        Raises:
            CorruptFileError: naming the first sample whose bytes are not those that were written.
        """
        new = sample_ids[~self._is_checked[sample_ids]]
        if len(new) == 0:
            return
        found = np.fromiter((key_of(self._stored(i).data) for i in new.tolist()), np.uint64, len(new))
        wrong = np.unique(new[found != self._stored_keys[new]])
        if len(wrong):
            source = bytes(self.sources[wrong[0]]).decode(errors="backslashreplace")
            others = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
            raise CorruptFileError(
                f"{self.path}: sample {wrong[0]} ({source}) is not the image that was packed{others}: altered since; "
                f"{remake(self.path)}"
            )
        self._is_checked[new] = True

    def frame_digest(self) -> str:
        """Digest of all bytes of the file but those of the images, which `check_stored` looks at.

        Raises:
            CorruptFileError: the file cannot be read any more.
        """
        state = hashlib.sha256()
        try:
            with self.path.open("rb") as stream:
                state.update(stream.read(self._pixels_start))
                stream.seek(self._pixels_start + self._pixels.nbytes)
                state.update(stream.read())
        except OSError as error:
            raise CorruptFileError(f"{self.path}: cannot be read: {error.strerror}; {remake(self.path)}") from error
        return state.hexdigest()[:DIGEST_LENGTH]

    def check_pixels(self, sample_ids: Int64[np.ndarray, " sample"]) -> None:
        """Compares pixels, as they are decoded here, with those that were packed.

        Raises:
            CorruptFileError: naming the first sample whose pixels are not those that were written.
        """
        for sample_id in sample_ids:
            if sample_key(self.decode(int(sample_id))) != self.sample_keys[sample_id]:
                source = bytes(self.sources[sample_id]).decode()
                raise CorruptFileError(
                    f"{self.path}: pixels of sample {sample_id} ({source}) are not those that were packed: this "
                    f"Pillow decodes its bytes otherwise; use the Pillow of its record, or {remake(self.path)}"
                )


def decode_jpeg(data: bytes) -> UInt8[np.ndarray, "channel height width"]:
    """Pixels of a grey or RGB JPEG file.

    Raises:
        OSError: these bytes are no JPEG file.
    """
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return channels_first(image)


def channels_first(image: Image.Image) -> UInt8[np.ndarray, "channel height width"]:
    """Pixels of a grey or RGB image, in an array of the caller's own; in memory a pixel's channels lie together."""
    pixels = np.array(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def sample_key(pixels: UInt8[np.ndarray, "channel height width"]) -> int:
    """Content key of a sample: the first 8 bytes of the sha256 of its stored pixels, as a big-endian number."""
    return key_of(np.ascontiguousarray(pixels).data)


def key_of(data: bytes | memoryview) -> int:
    """The first 8 bytes of the sha256 of some bytes, as a big-endian number."""
    return int.from_bytes(hashlib.sha256(data).digest()[:KEY_BYTES], "big")


def content_digest(header: DatasetHeader, columns: Mapping[str, np.ndarray]) -> str:
    """Digest of what a dataset is: keys, labels, splits, class names, encoding and shape; not its name or place.

    It follows from the stored bytes: of raw images the keys are their digests, of others `jpeg_key` is in it too.
    """
    facts = [header.class_names, header.encoding, header.image_size, header.channels]
    names = ("sample_key", "label", "split", "jpeg_key")
    return _digest(facts, [columns[name] for name in names if name in columns])


def header_digest(attributes: Mapping[str, object], columns: Mapping[str, np.ndarray]) -> str:
    """Digest of all that can be read from the file but the images, whose bytes have digests among the columns."""
    return _digest(
        {name: _plain(value) for name, value in attributes.items()}, [columns[name] for name in sorted(columns)]
    )


def _plain(value: object) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _digest(facts: object, arrays: Sequence[np.ndarray]) -> str:
    state = hashlib.sha256(canonical_json(facts).encode())
    for array in arrays:
        state.update(np.ascontiguousarray(array).view(np.uint8).data)
    return state.hexdigest()[:DIGEST_LENGTH]


def open_dataset(path: Path) -> Dataset:
    """The dataset, after a check of header and columns against their digests, and that some images are decoded as then.

    The stored bytes of each image are compared with their digest when it is first read.

    Raises:
        CorruptFileError: missing, foreign, truncated, altered, or of another version.
    """
    if not path.is_file():
        raise CorruptFileError(f"{path}: no such file; make it with `snakemake {path}`")
    try:
        with h5py.File(path, "r") as file:
            dataset = _open(path, file)
    # Damaged bytes make h5py raise these, and json and NumPy the last two.
    except (OSError, KeyError, RuntimeError, AttributeError, IndexError, MemoryError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{path}: not a whole dataset file ({' '.join(str(error).split())}); {remake(path)}"
        ) from error
    dataset.check_pixels(np.unique(np.linspace(0, dataset.num_samples - 1, SPOT_CHECKS).astype(np.int64)))
    return dataset


def _open(path: Path, file: Any) -> Dataset:
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in file.attrs.items()}
    if attributes.get("format") != FORMAT:
        raise CorruptFileError(f"{path}: an HDF5 file, but not of format {FORMAT}; {remake(path)}")
    if attributes.get("format_version") != FORMAT_VERSION:
        version = attributes.get("format_version")
        raise CorruptFileError(
            f"{path}: has format version {version}, this edpipe reads {FORMAT_VERSION}; {remake(path)}"
        )
    is_raw = attributes["encoding"] == "raw"
    stored = file["images" if is_raw else "jpeg"]
    pixels = _mapped(path, stored)
    columns = {name: file[name][:] for name in (*COLUMNS, *(() if is_raw else JPEG_COLUMNS))}
    if attributes.pop(_HEADER_DIGEST) != header_digest(attributes, columns):
        raise CorruptFileError(f"{path}: header, labels or keys are altered since written; {remake(path)}")
    dataset = _assemble(path, attributes, columns, pixels, stored.id.get_offset())
    _check_lengths(dataset)
    if dataset.digest != content_digest(dataset, columns):
        raise CorruptFileError(f"{path}: digest {dataset.digest} is not that of its labels and keys; {remake(path)}")
    return dataset


def _mapped(path: Path, dataset: h5py.Dataset) -> UInt8[np.ndarray, "..."]:
    """The stored bytes as an array over the file itself: plain NumPy speed, shared by all processes that map it."""
    offset = dataset.id.get_offset()
    if offset is None or offset + dataset.nbytes > path.stat().st_size:
        raise CorruptFileError(f"{path}: pixels are cut off; {remake(path)}")
    mapped = np.memmap(path, mode="r", dtype=dataset.dtype, shape=dataset.shape, offset=offset)
    return mapped.view(np.ndarray)  # a gather from a memmap gives a memmap, with its slower indexing


def _assemble(
    path: Path, attributes: Mapping[str, Any], columns: Mapping[str, np.ndarray], pixels: np.ndarray, start: int
) -> Dataset:
    plain = {name: _plain(value) for name, value in attributes.items() if not name.startswith("format")}
    lists: dict[str, Any] = {name: tuple(plain.pop(name)) for name in ("mean", "std")}
    class_names = tuple(json.loads(str(plain.pop("class_names"))))
    return Dataset(
        **plain,
        **lists,
        class_names=class_names,
        path=path,
        labels=columns["label"],
        splits=columns["split"],
        sample_keys=columns["sample_key"],
        sources=columns["source"],
        _pixels=pixels,
        _offsets=columns.get("jpeg_offset"),
        _stored_keys=columns.get("jpeg_key", columns["sample_key"]),
        _pixels_start=start,
        _is_checked=np.zeros(len(columns["label"]), np.bool_),
    )


def _check_lengths(dataset: Dataset) -> None:
    num_samples = dataset.num_samples
    shape = (num_samples, dataset.channels, dataset.image_size, dataset.image_size)
    if dataset._offsets is not None:
        shape = (int(dataset._offsets[-1]),)
        num_samples = len(dataset._offsets) - 1
    columns = (dataset.labels, dataset.splits, dataset.sample_keys, dataset.sources, dataset._stored_keys)
    lengths = set(map(len, columns))
    if lengths != {num_samples} or dataset._pixels.shape != shape:
        raise CorruptFileError(
            f"{dataset.path}: pixels of shape {dataset._pixels.shape} and columns of {sorted(lengths)} rows"
            f" do not belong together; {remake(dataset.path)}"
        )
