"""Evidence for a packed dataset: its raw files list the same samples, and those drawn are packed to the same pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from edpipe.cli.adoption.claim import SEED, Claim, Evidence, UnshownError
from edpipe.datasets.dataset_file import SPLITS, Dataset, decode_jpeg, open_dataset
from edpipe.datasets.dataset_writer import mean_and_std, pixel_counts
from edpipe.datasets.duplicate_images import count_equal
from edpipe.datasets.pack_summary import counts_of
from edpipe.datasets.packing import make_block
from edpipe.datasets.raw import RawDataset, RawSample, raw_folder
from edpipe.datasets.readers.by_name import read_raw
from edpipe.datasets.splits import assign_splits
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

IMAGES = 64
"""Drawn from each split, and from those that were left aside."""


def show_dataset(claim: Claim) -> Evidence:
    """Names, labels, splits and classes of all samples follow from the raw files; so do the pixels of those drawn.

    Raises:
        UnshownError: the raw files are not there, or something is not what would be packed now.
        CorruptFileError: the file is damaged.
    """
    knobs: DatasetKnobs = claim.job.knobs.dataset
    dataset = open_dataset(claim.path)
    raw = _read(claim, knobs)
    record = claim.compare(_facts(claim, dataset, raw))
    unreadable: Mapping[str, str] = record["left_aside"]["unreadable"]
    kept = [sample for sample in raw.samples if sample.source not in unreadable]
    _compare_columns(claim, dataset, kept)
    drawn = _drawn(dataset)
    _compare_images(claim, dataset, kept, drawn)
    set_aside = _compare_unreadable(claim, raw, unreadable)
    is_raw = knobs.encoding == "raw"
    if is_raw:
        _compare_pixel_statistics(claim, dataset)
    shown = {
        "evidence": "sampled images packed again",
        "compared_samples": dataset.num_samples,
        "packed_again": len(drawn),
        "unreadable_again": set_aside,
        "pixel_statistics": "computed again" if is_raw else "not compared",
    }
    text = f"{len(drawn)} images packed again are equal bit for bit, so are names, labels and splits of all"
    return Evidence(f"{text} {dataset.num_samples:,}", shown, record)


def _read(claim: Claim, knobs: DatasetKnobs) -> RawDataset:
    name = str(claim.job.arguments["dataset"])
    root = claim.folder / raw_folder(name, knobs.root)
    try:
        # What is not there is not fetched: that would be making it again.
        raw = read_raw(root, knobs.model_copy(update={"download": False}))
        return assign_splits(raw, knobs)
    except DataError as error:
        raise UnshownError(f"{claim.path}: can be compared only with its raw files: {error}") from error


def _facts(claim: Claim, dataset: Dataset, raw: RawDataset) -> dict[str, Any]:
    """What the record must say, as far as the raw samples need not be read for it."""
    if dataset.class_names != raw.class_names:
        raise claim.differs("class names", dataset.class_names, raw.class_names)
    claim.fact("left_aside")
    facts: dict[str, Any] = {
        "dataset": dataset.name,
        "digest": dataset.digest,
        "num_samples": dataset.num_samples,
        "counts": counts_of(dataset),
        "class_names": list(raw.class_names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "left_aside": {"not_images": list(raw.not_images)},
    }
    return facts if "equal_images" in claim.record else facts | {"equal_images": asdict(count_equal(dataset))}


def _compare_columns(claim: Claim, dataset: Dataset, kept: Sequence[RawSample]) -> None:
    if len(kept) != dataset.num_samples:
        raise claim.differs("number of samples", dataset.num_samples, len(kept))
    columns = {
        "source": [bytes(source).decode() for source in dataset.sources],
        "label": dataset.labels.tolist(),
        "split": [SPLITS[split] for split in dataset.splits],
    }
    for name, packed in columns.items():
        now = [getattr(sample, name) for sample in kept]
        if packed != now:
            row = next(row for row, (one, other) in enumerate(zip(packed, now, strict=True)) if one != other)
            raise claim.differs(f"{name} of sample {row}", packed[row], now[row])


def _drawn(dataset: Dataset) -> Int64[np.ndarray, " sample"]:
    rng = np.random.default_rng(SEED)
    drawn = [rng.choice(ids, min(IMAGES, len(ids)), replace=False) for ids in map(dataset.sample_ids, SPLITS)]
    return np.sort(np.concatenate(drawn))


def _compare_images(
    claim: Claim, dataset: Dataset, kept: Sequence[RawSample], drawn: Int64[np.ndarray, " sample"]
) -> None:
    dataset.check_pixels(drawn)
    for sample_id in drawn.tolist():
        sample = kept[sample_id]
        data, facts = make_block([sample], claim.job.knobs.dataset)
        if facts.left_aside:
            raise UnshownError(f"{claim.path}: {sample.source} was packed, but cannot be read now")
        packed = dataset.decode(sample_id)
        if not np.array_equal(packed, _pixels(data, dataset)):
            raise UnshownError(
                f"{claim.path}: sample {sample_id} ({sample.source}) is packed otherwise now: its raw file, the code "
                "that packs it, or Pillow is another one"
            )


def _pixels(data: bytes, dataset: Dataset) -> UInt8[np.ndarray, "channel height width"]:
    if dataset.encoding == "jpeg":
        return decode_jpeg(data)
    return np.frombuffer(data, np.uint8).reshape(dataset.channels, dataset.image_size, dataset.image_size)


def _compare_unreadable(claim: Claim, raw: RawDataset, unreadable: Mapping[str, str]) -> int:
    """How many of the samples that were left aside are found unreadable again."""
    samples = [sample for sample in raw.samples if sample.source in unreadable]
    if len(samples) != len(unreadable):
        raise claim.differs("number of unreadable files", len(unreadable), len(samples))
    drawn = np.random.default_rng(SEED).permutation(len(samples))[:IMAGES]
    for sample in (samples[number] for number in drawn):
        _, facts = make_block([sample], claim.job.knobs.dataset)
        if not facts.left_aside:
            raise UnshownError(f"{claim.path}: {sample.source} was left aside as unreadable, but can be read now")
    return len(drawn)


def _compare_pixel_statistics(claim: Claim, dataset: Dataset) -> None:
    """Mean and standard deviation of the training pixels; of JPEG files all would have to be decoded."""
    dataset.check_pixels(np.arange(dataset.num_samples))
    counts = np.zeros((dataset.channels, 256), np.int64)
    for sample_id in dataset.sample_ids("train").tolist():
        counts += pixel_counts(dataset.decode(sample_id))
    means, stds = zip(*(mean_and_std(of_channel) for of_channel in counts), strict=True)
    if (dataset.mean, dataset.std) != (means, stds):
        raise claim.differs("mean and std of pixels", (dataset.mean, dataset.std), (means, stds))
