"""Packs one data set: raw images become one file with labels, splits and keys, and a record of every odd one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edpipe.datasets.dataset_file import Dataset, DatasetHeader, open_dataset
from edpipe.datasets.dataset_writer import write_stored
from edpipe.datasets.duplicate_images import EqualImages, count_equal
from edpipe.datasets.pack_summary import announce_left_aside, announce_packed, counts_of
from edpipe.datasets.packed_blocks import BlockFacts, PackedBlocks, open_blocks
from edpipe.datasets.packing import make_block, sample_columns, stamp_of, stamp_of_folder, without_unreadable
from edpipe.datasets.raw import RawDataset, RawSample, raw_folder
from edpipe.datasets.readers.by_name import read_raw
from edpipe.datasets.splits import assign_splits
from edpipe.errors import OverwriteError
from edpipe.params.dataset import DatasetKnobs, PackKnobs
from edpipe.runtime.prefetch import in_order
from edpipe.runtime.progress import Tick, announce, show_progress
from edpipe.runtime.threads import num_threads
from edpipe.storage.digests import digest_json
from edpipe.storage.given_files import given_path
from edpipe.storage.job import Job
from edpipe.storage.records import code_of, library_versions, make_record, record_path, write_record

BLOCK = 32
"""Images that a thread takes at once, and that a kill costs at most of each thread."""


def run(job: Job[PackKnobs]) -> None:
    """Runs a job of this step."""
    name, knobs = str(job.arguments["dataset"]), job.knobs.dataset
    pack_dataset(name, knobs, given_path(raw_folder(name, knobs.root)), job.outputs[0])


def pack_dataset(name: str, knobs: DatasetKnobs, root: Path, out_path: Path) -> None:
    """Writes the dataset file, then its record; what an earlier, interrupted call has packed is not decoded again.

    Raises:
        DataError: raw files are missing or unreadable, or a class is left without images.
        OverwriteError: the file cannot be written.
        BusyError: another process is packing the same.
    """
    raw = assign_splits(read_raw(root, knobs), knobs)
    announce_left_aside(name, root, raw.not_images)
    _remove_record(out_path)
    header = DatasetHeader(
        name, raw.class_names, knobs.encoding, knobs.image_size, knobs.channels, knobs.stored_side or knobs.image_size
    )
    cut = [raw.samples[start : start + BLOCK] for start in range(0, len(raw.samples), BLOCK)]
    with open_blocks(out_path, _key(header, knobs, raw, root), lambda: map(stamp_of, cut)) as blocks:
        _pack_missing(name, knobs, cut, blocks)
        kept = without_unreadable(raw, blocks.done, knobs)
        with blocks.stored() as stored:
            write_stored(out_path, header, sample_columns(kept.samples), blocks.contents(), stored)
        # Read back through the reader: what was written is what every later step will be given.
        dataset = open_dataset(out_path)
        dataset.check_stored(np.arange(dataset.num_samples))
        equal = count_equal(dataset)
        record = _record(dataset, knobs, raw, blocks.done, equal)
        write_record(record_path(out_path), record)
    announce_packed(out_path, record, equal)


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
    return digest_json([vars(header), knobs, code_of("pack_dataset"), library_versions(), BLOCK, elsewhere])


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
        frame_digest=dataset.frame_digest(),
        num_samples=dataset.num_samples,
        counts=counts_of(dataset),
        class_names=list(dataset.class_names),
        mean=list(dataset.mean),
        std=list(dataset.std),
        images=dict(rules),
        left_aside={"not_images": list(raw.not_images), "unreadable": unreadable},
        equal_images=asdict(equal),
    )
