"""The soft-label file's format (docs/soft_label_format.md): what a writer lays out and a reader checks.

An ordinary HDF5 file in three parts: a user block that vouches for all of HDF5's own bytes, so that none of them is
parsed before it is known to be what was written; attributes and small columns; and the large columns, contiguous and
uncompressed, with a digest for each block of rows.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from edpipe.params.soft_labels import StorageKnobs
from edpipe.soft_labels.encoding.precisions import Column, Parts, Precision, make_precision
from edpipe.storage.digests import DIGEST_LENGTH, digest_bytes
from edpipe.storage.hdf5 import Image, fixed_text, hdf5_image
from edpipe.views.spec import ViewRange

FORMAT = "edpipe-soft-labels"
FORMAT_VERSION = 2
BLOCK_ROWS = 4096
"""Rows of one view that share a digest."""
USER_BLOCK_BYTES = 4096
SMALL_COLUMNS = ("sample_id", "sample_key", "label", "class_id", "block_digest", "agreement")
STATISTICS: tuple[str, ...] = ("max_abs_error", "max_error_range", "kl_bound", "measured_mean_kl", "measured_max_kl")
"""Of stored against exact logits; the last three at temperature 4, nats."""
ATTENTION = "attention/"
"""Beginning of the names of the columns of attention maps; what follows is the level, from 1."""
HINT = "hint"
Extents = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Provenance:
    """What a soft-label file was made from; a reader that expects something else refuses the file."""

    teacher: str
    subset: str
    teacher_digest: str
    dataset_digest: str
    partition_digest: str
    """Empty for a teacher of all classes."""
    view_spec: str
    pixel_canary: str
    stream: str = ""
    """Of a trajectory: the order and views in which its teacher saw the samples while it learnt, as JSON. Empty: a
    finished teacher, whose rows are views."""


@dataclass(frozen=True)
class HintShape:
    """What stored hints are: pooled features of one stage of the teacher."""

    feature_stage: int
    """Of the stage, from 1."""
    side: int | None
    """To which its map was averaged down; None: it is whole."""
    channels: int
    height: int
    """`side`, or less where the map was smaller; likewise `width`."""
    width: int


@dataclass(frozen=True, eq=False)
class Header:
    """All that is known of a file before the teacher is asked."""

    provenance: Provenance
    storage: StorageKnobs
    views: ViewRange
    sample_ids: Int64[np.ndarray, " sample"]
    """Ascending."""
    sample_keys: UInt64[np.ndarray, " sample"]
    labels: Int32[np.ndarray, " sample"]
    class_ids: Int32[np.ndarray, " class"]
    """Which class each logit is of, ascending."""
    features: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of a row of each column that is stored beside the logits, as float16: attention maps (height, width) by
    level, then the hint (channel, height, width); none where none is asked for."""

    @property
    def precision(self) -> Precision:
        """How rows are stored."""
        return make_precision(self.storage, len(self.class_ids))

    @property
    def num_blocks(self) -> int:
        """Of each view."""
        return -(-len(self.sample_ids) // BLOCK_ROWS)

    @property
    def local_labels(self) -> Int64[np.ndarray, " sample"]:
        """Labels numbered as the logits."""
        return np.searchsorted(self.class_ids, self.labels)

    @property
    def attention_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Height and width of the attention map of each level; none where no maps are stored."""
        return tuple(shape for name, shape in self.features.items() if name.startswith(ATTENTION))

    @property
    def hint_shape(self) -> HintShape | None:
        """What stored hints are; None where none are."""
        if self.storage.hint is None:
            return None
        return HintShape(self.storage.hint.feature_stage, self.storage.hint.side, *self.features[HINT])

    def columns(self) -> dict[str, Column]:
        """The large columns: parts of a row of logits, then what lies beside them."""
        return self.precision.columns() | feature_columns(self.features)

    def facts(self) -> str:
        """One text that two dumps share only if they would write the same file."""
        columns = (self.sample_ids, self.sample_keys, self.labels, self.class_ids)
        digests = [digest_bytes(np.ascontiguousarray(column).tobytes()) for column in columns]
        storage = stored_knobs(self.storage)
        return json.dumps([asdict(self.provenance), storage, str(self.views), digests, self.features], sort_keys=True)


@dataclass(frozen=True, eq=False)
class Seal:
    """What is known when every row is written."""

    block_digest: UInt64[np.ndarray, "view block"]
    agreement: Int32[np.ndarray, "view block"]
    statistics: dict[str, float]


def feature_columns(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Column]:
    """Columns of what is stored beside the logits, by the shape of a row of each."""
    return {name: Column(np.dtype(np.float16), tuple(shape)) for name, shape in shapes.items()}


def stored_knobs(storage: StorageKnobs) -> dict[str, Any]:
    """What a file says of the knobs it was stored by: not the budget, which changes no byte of it."""
    # Files without hints stay, byte for byte, those of an edpipe that knows of none.
    return storage.model_dump(mode="json", exclude={"max_kl"} if storage.hint else {"max_kl", "hint"})


def lay_out(header: Header, seal: Seal | None) -> Image:
    """The file without its large columns: where these lie, and all other bytes. Without seal: their sizes only."""
    shape = (header.views.num_views, len(header.sample_ids))
    blocks = (header.views.num_views, header.num_blocks)
    if seal is None:
        unknown: dict[str, float] = dict.fromkeys(STATISTICS, 0.0)
        seal = Seal(np.zeros(blocks, np.uint64), np.zeros(blocks, np.int32), unknown)
    small = (
        header.sample_ids,
        header.sample_keys,
        header.labels,
        header.class_ids,
        seal.block_digest,
        seal.agreement,
    )
    large = {name: ((*shape, *column.shape), column.dtype) for name, column in header.columns().items()}
    image = hdf5_image(USER_BLOCK_BYTES, _attributes(header, seal), dict(zip(SMALL_COLUMNS, small, strict=True)), large)
    return image.with_bytes(0, user_block(image))


def _attributes(header: Header, seal: Seal) -> dict[str, Any]:
    attributes: dict[str, Any] = {"format": fixed_text(FORMAT), "format_version": FORMAT_VERSION}
    attributes |= {name: fixed_text(value) for name, value in asdict(header.provenance).items()}
    storage = fixed_text(json.dumps(stored_knobs(header.storage)))
    attributes |= {"precision": fixed_text(header.storage.precision), "storage": storage}
    attributes |= {"first_view": header.views.first, "num_views": header.views.num_views, "block_rows": BLOCK_ROWS}
    return attributes | {name: np.float64(value) for name, value in seal.statistics.items()}


def user_block(image: Image) -> bytes:
    """4,096 bytes that say how long the file is, where its large columns are not, and the digest of those bytes."""
    extents = image.extents(USER_BLOCK_BYTES)
    state = hashlib.sha256()
    for start, stop in extents:
        state.update(image.read(start, stop))
    block = render_user_block(image.size, extents, state.hexdigest())
    assert len(block) == USER_BLOCK_BYTES, "a file has few large columns"
    return block


def render_user_block(size: int, extents: Extents, sha256: str) -> bytes:
    """The user block as it must be, byte for byte."""
    text = json.dumps(
        {"format": FORMAT, "format_version": FORMAT_VERSION, "bytes": size, "extents": extents, "sha256": sha256}
    )
    return (text + "\n").encode().ljust(USER_BLOCK_BYTES, b" ")


def block_digest(parts: Parts) -> np.uint64:
    """First 8 bytes of the sha256 over a block's columns, one after the other in the order of their names."""
    state = hashlib.sha256()
    for name in sorted(parts):
        state.update(np.ascontiguousarray(parts[name]).data.cast("B") if parts[name].size else b"")
    return np.uint64(int(state.hexdigest()[:DIGEST_LENGTH], 16))


def count_agreement(precision: Precision, parts: Parts, local_labels: Int64[np.ndarray, " row"]) -> int:
    """In how many rows the stored teacher names the label."""
    return int((precision.top_class(parts) == local_labels).sum())


def provenance_of(attributes: Mapping[str, Any]) -> Provenance:
    """Provenance from a file's attributes."""
    return Provenance(**{field.name: attributes[field.name] for field in fields(Provenance)})
