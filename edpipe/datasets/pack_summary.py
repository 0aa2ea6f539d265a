"""What was packed, for the record and for people: counts, odd images, equal images."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from edpipe.datasets.dataset_file import SPLITS, Dataset
from edpipe.datasets.duplicate_images import EqualImages
from edpipe.datasets.image_kinds import kinds_of
from edpipe.runtime.progress import announce


def counts_of(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Images of each class in each split."""
    counts = Counter(zip(dataset.splits.tolist(), dataset.labels.tolist(), strict=True))
    return {
        split: {class_name: counts[position, label] for label, class_name in enumerate(dataset.class_names)}
        for position, split in enumerate(SPLITS)
    }


def announce_left_aside(name: str, root: Path, not_images: Sequence[str]) -> None:
    """One line of what lies among the raw images and is not packed, if there is anything."""
    kinds = kinds_of(root, not_images)
    if kinds:
        announce(f"pack {name}: left aside in {root}: {kinds}")


def announce_packed(out_path: Path, record: dict, equal: EqualImages) -> None:
    """One line of what was packed and how, and one more if a test image is also taught."""
    totals = ", ".join(f"{sum(of_class.values())} {split}" for split, of_class in record["counts"].items())
    announce("; ".join([f"{out_path}: {len(record['class_names'])} classes, {totals}", *_odd_images(record)]))
    if equal.example is not None:
        announce(
            f"warning: {out_path}: {equal.test_also_taught} test images are also in train or val (the first: "
            f"{' = '.join(equal.example)}); top1 on them says nothing; remove one of each pair"
        )


def _odd_images(record: dict) -> Iterator[str]:
    if record["images"]:
        yield "odd images: " + ", ".join(f"{count} {rule}" for rule, count in sorted(record["images"].items()))
    left = {what: len(names) for what, names in record["left_aside"].items() if names}
    if left:
        yield "left aside: " + ", ".join(f"{count} {what}" for what, count in left.items())
    equal = {what: count for what, count in record["equal_images"].items() if what != "example" and count}
    if equal:
        yield "equal pixels: " + ", ".join(f"{count} {what}" for what, count in equal.items())
