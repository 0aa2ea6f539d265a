"""Packs one data set: raw images become one file with labels, splits and keys, and a record of every odd one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from edpipe.datasets.dataset_file import SPLITS, Dataset, DatasetHeader, open_dataset
from edpipe.datasets.dataset_writer import Samples, write_stored
from edpipe.datasets.duplicate_images import EqualImages, count_equal
from edpipe.datasets.packed_blocks import BlockFacts, PackedBlocks, open_blocks
from edpipe.datasets.packing import make_block, stamp_of, stamp_of_folder
from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers.by_name import read_raw
from edpipe.datasets.splits import assign_splits, check_counts
from edpipe.errors import OverwriteError
from edpipe.params.dataset import DatasetKnobs
from edpipe.runtime.prefetch import in_order
from edpipe.runtime.progress import Tick, announce, show_progress
from edpipe.runtime.threads import num_threads
from edpipe.storage.digests import digest_json
from edpipe.storage.records import code_digest, library_versions, make_record, record_path, write_record

BLOCK = 32
"""Images that a thread takes at once, and that a kill costs at most of each thread."""


def pack_dataset(name: str, knobs: DatasetKnobs, root: Path, out_path: Path) -> None:
    """Writes the dataset file, then its record; what an earlier, interrupted call has packed is not decoded again.

    Raises:
        DataError: raw files are missing or unreadable, or a class is left without images.
        OverwriteError: the file cannot be written.
        BusyError: another process is packing the same.
    """
    raw = assign_splits(read_raw(root, knobs), knobs)
    _remove_record(out_path)
    header = DatasetHeader(
        name, raw.class_names, knobs.encoding, knobs.image_size, knobs.channels, knobs.stored_side or knobs.image_size
    )
    cut = [raw.samples[start : start + BLOCK] for start in range(0, len(raw.samples), BLOCK)]
    with open_blocks(out_path, _key(header, knobs, raw, root), lambda: map(stamp_of, cut)) as blocks:
        _pack_missing(name, knobs, cut, blocks)
        kept = _without_those_left_aside(raw, blocks.done)
        with blocks.stored() as stored:
            write_stored(out_path, header, _columns(kept.samples), blocks.contents(), stored)
        # Read back through the reader: what was written is what every later step will be given.
        dataset = open_dataset(out_path)
        if knobs.encoding == "raw":  # decoding every JPEG again would take as long as packing did
            dataset.check_pixels(np.arange(dataset.num_samples))
        equal = count_equal(dataset)
        record = _record(dataset, knobs, raw, blocks.done, equal)
        write_record(record_path(out_path), record)
    _announce(out_path, record, equal)


def _remove_record(out_path: Path) -> None:
    """An old record must not vouch for a new file, should this run end between the two."""
    path = record_path(out_path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OverwriteError(f"{path}: cannot be written: {error.strerror}; nothing was changed") from error


def _key(header: DatasetHeader, knobs: DatasetKnobs, raw: RawDataset, root: Path) -> str:
    """Of all that decides how samples are packed; raw files of their own are stamped block by block."""
    elsewhere = None if all(sample.path for sample in raw.samples) else stamp_of_folder(root)
    return digest_json([vars(header), knobs, code_digest("pack_dataset"), library_versions(), BLOCK, elsewhere])


def _pack_missing(name: str, knobs: DatasetKnobs, cut: Sequence[Sequence[RawSample]], blocks: PackedBlocks) -> None:
    """Packs what no earlier call has, in several threads: Pillow, sha256 and NumPy let go of the interpreter."""
    num_done, total = len(blocks.done), sum(map(len, cut))
    done = before = sum(map(len, cut[:num_done]))
    if before:
        announce(f"pack {name}: {before:,} of {total:,} images were packed by an interrupted run")
    made = in_order(lambda number: make_block(cut[number], knobs), range(num_done, len(cut)), num_threads())
    with show_progress(f"pack {name}", total, before) as show:
        for samples, (data, facts) in zip(cut[num_done:], made, strict=True):
            blocks.append(data, facts)
            done += len(samples)
            show(Tick(done, ""))


def _without_those_left_aside(raw: RawDataset, blocks: Sequence[BlockFacts]) -> RawDataset:
    left = {source for block in blocks for source in block.left_aside}
    if not left:
        return raw
    kept = replace(raw, samples=[sample for sample in raw.samples if sample.source not in left])
    check_counts(kept)
    return kept


def _columns(samples: Sequence[RawSample]) -> Samples:
    return Samples([s.label for s in samples], [str(s.split) for s in samples], [s.source for s in samples])


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    counts = Counter(zip(dataset.splits.tolist(), dataset.labels.tolist(), strict=True))
    return {
        split: {class_name: counts[position, label] for label, class_name in enumerate(dataset.class_names)}
        for position, split in enumerate(SPLITS)
    }


def _record(
    dataset: Dataset, knobs: DatasetKnobs, raw: RawDataset, blocks: Sequence[BlockFacts], equal: EqualImages
) -> dict[str, object]:
    rules: Counter[str] = Counter()
    for block in blocks:
        rules.update(block.rules)
    unreadable = {source: reason for block in blocks for source, reason in block.left_aside.items()}
    return make_record(
        "pack_dataset",
        {"dataset": knobs},
        {},
        dataset=dataset.name,
        digest=dataset.digest,
        num_samples=dataset.num_samples,
        counts=_counts(dataset),
        class_names=list(dataset.class_names),
        mean=list(dataset.mean),
        std=list(dataset.std),
        images=dict(rules),
        left_aside={"not_images": list(raw.not_images), "unreadable": unreadable},
        equal_images=asdict(equal),
    )


def _announce(out_path: Path, record: dict, equal: EqualImages) -> None:
    """One line of what was packed and how, and one more if a test image is also taught."""
    totals = ", ".join(f"{sum(of_class.values())} {split}" for split, of_class in record["counts"].items())
    announce("; ".join([f"{out_path}: {len(record['class_names'])} classes, {totals}", *_odd(record)]))
    if equal.example is not None:
        announce(
            f"warning: {out_path}: {equal.test_also_taught} test images are also in train or val (the first: "
            f"{' = '.join(equal.example)}); top1 on them says nothing; remove one of each pair"
        )


def _odd(record: dict) -> Iterator[str]:
    if record["images"]:
        yield "odd images: " + ", ".join(f"{count} {rule}" for rule, count in sorted(record["images"].items()))
    left = {what: len(names) for what, names in record["left_aside"].items() if names}
    if left:
        yield "left aside: " + ", ".join(f"{count} {what}" for what, count in left.items())
    equal = {what: count for what, count in record["equal_images"].items() if what != "example" and count}
    if equal:
        yield "equal pixels: " + ", ".join(f"{count} {what}" for what, count in equal.items())
