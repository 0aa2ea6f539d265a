"""What becomes of a block of raw samples: stored bytes, content keys, and an account of every odd image."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from edpipe.datasets.dataset_file import decode_jpeg, key_of, sample_key
from edpipe.datasets.dataset_writer import Samples, StoredImage, pixel_counts
from edpipe.datasets.images import applied_rules, to_jpeg, to_square
from edpipe.datasets.packed_blocks import BlockFacts
from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.splits import check_counts
from edpipe.errors import DataError, UnreadableImageError
from edpipe.params.dataset import DatasetKnobs
from edpipe.storage.digests import digest_json


def make_block(samples: Sequence[RawSample], knobs: DatasetKnobs) -> tuple[bytes, BlockFacts]:
    """The samples as they are stored, one after the other, and what is known of them; unreadable ones are left aside.

    Raises:
        DataError: a raw file is missing.
    """
    stamp = stamp_of(samples)  # before the files are read: a file that changes meanwhile does not fit it
    stored: list[StoredImage] = []
    counts = np.zeros((knobs.channels, 256), np.int64)
    rules: Counter[str] = Counter()
    left_aside = {}
    for sample in samples:
        try:
            image, applied = _stored_image(sample, knobs)
        except UnreadableImageError as error:
            left_aside[sample.source] = error.reason
            continue
        stored.append(image)
        rules.update(applied)
        if sample.split == "train":
            counts += pixel_counts(image.pixels)
    data = [image.stored for image in stored]
    facts = BlockFacts(
        stamp=stamp,
        lengths=[len(each) for each in data],
        keys=[sample_key(image.pixels) for image in stored],
        stored_keys=[key_of(each) for each in data],
        counts=counts.tolist(),
        rules=dict(rules),
        left_aside=left_aside,
    )
    return b"".join(data), facts


def packed_pixels(sample: RawSample, knobs: DatasetKnobs) -> UInt8[np.ndarray, "channel height width"]:
    """The pixels that packing keeps of one sample: a square of image_size, or of encoding jpeg any shape.

    Raises:
        UnreadableImageError: the image cannot be packed.
        DataError: its file is missing.
    """
    return _stored_image(sample, knobs)[0].pixels


def _stored_image(sample: RawSample, knobs: DatasetKnobs) -> tuple[StoredImage, tuple[str, ...]]:
    image = sample.load()
    side = knobs.stored_side or knobs.image_size
    applied = applied_rules(image, side, knobs.channels)
    try:
        if knobs.encoding == "raw":
            return StoredImage(to_square(image, knobs.image_size, knobs.channels)), applied
        data = to_jpeg(image, side, knobs.channels, knobs.jpeg_quality)
    except ValueError as error:
        raise UnreadableImageError(sample.source, f"cannot be packed: {error}") from error
    return StoredImage(decode_jpeg(data), data), applied


def stamp_of(samples: Sequence[RawSample]) -> str:
    """Digest of what a block is made from: names, labels, splits, and size and time of files; not of their content."""
    return digest_json([[s.source, s.label, s.split, *(_state(s.path) if s.path else ())] for s in samples])


def stamp_of_folder(root: Path) -> str:
    """The same of all files below a folder, for samples that have no file of their own."""
    files = sorted(Path(folder) / name for folder, _, names in os.walk(root) for name in names)
    names = [path.relative_to(root).as_posix().encode(errors="backslashreplace").decode() for path in files]
    return digest_json([[name, *_state(path)] for name, path in zip(names, files, strict=True)])


def _state(path: Path) -> Iterator[int]:
    """Size in bytes and time of the last change in nanoseconds; nothing for a file that is gone."""
    try:
        status = path.stat()
    except OSError:  # reading it will tell
        return
    yield from (status.st_size, status.st_mtime_ns)


def without_unreadable(raw: RawDataset, blocks: Sequence[BlockFacts], knobs: DatasetKnobs) -> RawDataset:
    """The data set without the samples that could not be read.

    Raises:
        DataError: there are any, and the knobs do not say to leave them aside: a line for each; or a class is left
            without images.
    """
    left = {source: reason for block in blocks for source, reason in block.left_aside.items()}
    if not left:
        return raw
    if knobs.unreadable == "error":
        where = {sample.source: sample.path or sample.source for sample in raw.samples}
        raise DataError(*(str(UnreadableImageError(where[source], reason)) for source, reason in left.items()))
    kept = replace(raw, samples=[sample for sample in raw.samples if sample.source not in left])
    check_counts(kept)
    return kept


def sample_columns(samples: Sequence[RawSample]) -> Samples:
    """Labels, splits and sources, as the dataset file has them."""
    return Samples([s.label for s in samples], [str(s.split) for s in samples], [s.source for s in samples])
