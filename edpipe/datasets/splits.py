"""Which samples are train, val and test; drawn per class, from the names of the samples alone."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs

REQUIRED_SPLITS = ("train", "test")


def assign_splits(raw: RawDataset, knobs: DatasetKnobs) -> RawDataset:
    """The data set with every sample in a split, in the same order, and with at most max_per_class a class and split.

    Where there is no official split, test_fraction of each class becomes test; where there is no val, val_fraction of
    each class's train becomes val. Shares are rounded to the nearest whole image. What is drawn depends on the seed and
    the sample's source only: it stays when other images come or go, up to the number drawn.

    Raises:
        DataError: a class is left without a train or without a test image.
    """
    splits = {sample.source: sample.split for sample in raw.samples}
    if None in splits.values():
        _move(raw.samples, splits, None, "test", knobs.test_fraction, knobs.seed)
        splits = {source: split or "train" for source, split in splits.items()}
    if "val" not in splits.values():
        _move(raw.samples, splits, "train", "val", knobs.val_fraction, knobs.seed)
    whole = replace(raw, samples=[replace(sample, split=splits[sample.source]) for sample in raw.samples])
    check_counts(whole)
    return replace(whole, samples=_first_of_each(whole.samples, knobs.max_per_class))


def _move(
    samples: Iterable[RawSample],
    splits: dict[str, str | None],
    start: str | None,
    goal: str,
    fraction: float,
    seed: int,
) -> None:
    """Moves a share of each class from one split to another, in place."""
    sources = defaultdict(list)
    for sample in samples:
        if splits[sample.source] == start:
            sources[sample.label].append(sample.source)
    for members in sources.values():
        # round() of at most half of n is less than n: a class is never emptied.
        for source in sorted(members, key=lambda source: _rank(seed, goal, source))[: round(len(members) * fraction)]:
            splits[source] = goal


def _rank(seed: int, goal: str, source: str) -> bytes:
    """A place in a shuffled order; sha256 and not a random generator, whose stream may change with the library."""
    return hashlib.sha256(f"{seed} {goal} {source}".encode()).digest()


def check_counts(raw: RawDataset) -> None:
    """Nothing, if every class has an image to learn from and one to be measured on.

    Raises:
        DataError: naming the first class that lacks one.
    """
    counts = {split: [0] * len(raw.class_names) for split in ("train", "val", "test")}
    for sample in raw.samples:
        counts[sample.split or "train"][sample.label] += 1
    for label, class_name in enumerate(raw.class_names):
        of_class = {split: numbers[label] for split, numbers in counts.items()}
        if min(of_class[split] for split in REQUIRED_SPLITS) == 0:
            listed = ", ".join(f"{number} {split}" for split, number in of_class.items())
            raise DataError(
                f"class {class_name} has {listed} images; each class needs at least 1 train and 1 test image:"
                " add images or remove the class (test_fraction matters where root has no test folder)"
            )


def _first_of_each(samples: Sequence[RawSample], limit: int | None) -> Sequence[RawSample]:
    if limit is None:
        return samples
    seen: dict[tuple[int, str | None], int] = defaultdict(int)
    kept = []
    for sample in samples:
        seen[sample.label, sample.split] += 1
        if seen[sample.label, sample.split] <= limit:
            kept.append(sample)
    return kept
