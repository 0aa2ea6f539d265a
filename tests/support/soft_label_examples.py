"""Soft-label files of seven samples and five classes, written as a dump writes them, or crafted byte by byte."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np

import edpipe.soft_labels.file.checks as checks
import edpipe.soft_labels.file.format as format_
import edpipe.soft_labels.file.writer as writer_
from edpipe.params.soft_labels import HintKnobs, StorageKnobs
from edpipe.soft_labels.file.format import Header, Provenance, Seal, block_digest, count_agreement, lay_out
from edpipe.soft_labels.file.writer import create_soft_labels
from edpipe.views.spec import ViewRange

IDS = np.array([3, 5, 9, 11, 12, 15, 18], dtype=np.int64)
CLASSES = np.array([2, 4, 7, 8, 11], dtype=np.int32)
LABELS = np.array([2, 4, 7, 8, 11, 2, 7], dtype=np.int32)
KEYS = np.arange(100, 125, dtype=np.uint64) ** 7
"""Of all samples of the dataset."""
VIEWS = ViewRange(0, 3)
BLOCK = 3
"""Rows of a small block: seven samples make three of them, the last one with one row."""
TEMPERATURE = 2.0
STORAGE = {
    "float32": StorageKnobs(precision="float32", max_kl=None),
    "float16": StorageKnobs(precision="float16", max_kl=None),
    "uint8": StorageKnobs(precision="uint8", max_kl=None),
    "uint4": StorageKnobs(precision="uint4", max_kl=None),
    "top_k": StorageKnobs(precision="top_k", top_k=2, max_kl=None),
    "sampled": StorageKnobs(precision="sampled", draws=6, temperature=TEMPERATURE, max_kl=None),
}
MAP_SIZES = ((4, 4), (2, 3))
MAPS = {"attention/1": MAP_SIZES[0], "attention/2": MAP_SIZES[1]}
HINT = HintKnobs(feature_stage=2, side=4)
HINT_SHAPE = (3, 4, 2)
VIEW_SPEC = (
    '{"augment":{"flip":true,"jitter":null,"kind":"pad_crop","padding":4,"rand_augment":null},"exhaustive":false,'
    '"image_size":32,"mixing":null,"seed":7,"view_rule":1}'
)
PROVENANCE = Provenance(
    teacher="old",
    subset="primary",
    teacher_digest="a" * 16,
    dataset_digest="b" * 16,
    partition_digest="c" * 16,
    view_spec=VIEW_SPEC,
    pixel_canary="d" * 16,
)


@contextmanager
def small_blocks(rows=BLOCK):
    """Blocks of a few rows, so that small files have several."""
    modules = (checks, format_, writer_)
    before = [module.BLOCK_ROWS for module in modules]
    for module in modules:
        module.BLOCK_ROWS = rows
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.BLOCK_ROWS = value


def make_header(precision="uint8", views=VIEWS, with_maps=False, with_hint=False, **changes):
    storage = STORAGE[precision]
    header = Header(
        provenance=PROVENANCE,
        storage=storage.model_copy(update={"attention": with_maps, "hint": HINT if with_hint else None}),
        views=views,
        sample_ids=IDS,
        sample_keys=KEYS[IDS],
        labels=LABELS,
        class_ids=CLASSES,
        features=(MAPS if with_maps else {}) | ({"hint": HINT_SHAPE} if with_hint else {}),
    )
    return replace(header, **changes)


def draw(header, seed=0, scale=3.0):
    """(view, sample, class) logits of a teacher that is mostly right; each view's depend on its number alone."""
    by_view = []
    for view in range(header.views.first, header.views.stop):
        shape = (len(header.sample_ids), len(header.class_ids))
        logits = np.random.default_rng([seed, view]).normal(0, scale, shape)
        logits[np.arange(shape[0]), header.local_labels] += 2 * scale
        by_view.append(logits.astype(np.float32))
    return np.stack(by_view)


def draw_beside(header):
    """For each column beside the logits (view, sample, …) numbers that float16 holds exactly."""
    shape = (header.views.num_views, len(header.sample_ids))
    rng = np.random.default_rng(header.views.first)
    sizes = {name: (*shape, *size) for name, size in header.features.items()}
    return {name: (rng.integers(0, 256, size) / 256).astype(np.float32) for name, size in sizes.items()}


def path_of(folder, views=VIEWS, subset="primary"):
    return folder / subset / f"views_{views}.h5"


def write(path, header, logits=None, features=None, code="code"):
    """The file as a dump makes it."""
    logits = draw(header) if logits is None else logits
    features = draw_beside(header) if features is None else features
    with create_soft_labels(path, header, code) as writer:
        for block in writer.missing:
            rows = (block.view - header.views.first, slice(block.start, block.stop))
            writer.write(block, logits[rows], {name: values[rows] for name, values in features.items()})
    return path


def parts_of(header, logits=None, features=None):
    """The large columns: (view, sample, …)."""
    logits = draw(header) if logits is None else logits
    features = draw_beside(header) if features is None else features
    views = range(header.views.first, header.views.stop)
    rows = [header.precision.encode(x, header.sample_ids, view) for view, x in zip(views, logits, strict=True)]
    parts = {name: np.stack([row[name] for row in rows]) for name in header.precision.columns()}
    return parts | {name: values.astype(np.float16) for name, values in features.items()}


def seal_of(header, parts):
    """Digests and agreement of these columns; no statistics."""
    shape = (header.views.num_views, header.num_blocks)
    digests, agreement = np.zeros(shape, np.uint64), np.zeros(shape, np.int32)
    for view, block in np.ndindex(shape):
        rows = slice(block * format_.BLOCK_ROWS, (block + 1) * format_.BLOCK_ROWS)
        stored = {name: values[view, rows] for name, values in parts.items()}
        digests[view, block] = block_digest(stored)
        own = {name: stored[name] for name in header.precision.columns()}
        agreement[view, block] = count_agreement(header.precision, own, header.local_labels[rows])
    return Seal(digests, agreement, dict.fromkeys(format_.STATISTICS, 0.5))


def craft(path, header, parts, seal):
    """A file of exactly these columns, whose user block vouches for it."""
    return write_image(path, lay_out(header, seal), parts)


def write_image(path, image, parts):
    """An image, and the large columns where it has room for them."""
    data = bytearray(image.read(0, image.size))
    for name, (start, stop) in image.large.items():
        data[start:stop] = np.ascontiguousarray(parts[name]).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read_all(labels):
    """(view, sample, class) logits of an opened file or store that begins at view 0, in any case all of its views."""
    views = getattr(labels, "views", None) or ViewRange(0, labels.num_views)
    ids = labels.sample_ids
    return np.stack([labels.logits(ids, np.full(len(ids), view)) for view in range(views.first, views.stop)])
