"""How many images a dataset has, before and after it is packed; nothing is fetched or decoded for it."""

from collections import Counter
from dataclasses import dataclass

from edpipe.datasets.raw import raw_folder
from edpipe.datasets.readers.folder import read
from edpipe.datasets.readers.published_counts import BACKGROUND, PUBLISHED, SVHN_EXTRA
from edpipe.datasets.splits import assign_splits
from edpipe.errors import EdpipeError
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.schema import Params
from edpipe.pipeline.jobs import paths
from edpipe.storage.records import read_record, record_path


@dataclass(frozen=True)
class ImageCounts:
    """Images of a dataset by split."""

    num_classes: int
    train: int
    val: int
    test: int

    @property
    def total(self) -> int:
        """Of all splits."""
        return self.train + self.val + self.test


def image_counts(params: Params, dataset: str) -> ImageCounts | None:
    """From the record of the packed file, else from the folder's list of files, else as published; else None."""
    return _packed(dataset) or _listed(dataset, params.datasets[dataset]) or _published(params.datasets[dataset])


def image_counts_at_once(params: Params, dataset: str) -> ImageCounts | None:
    """The same, but no folder is listed, which may take minutes."""
    return _packed(dataset) or _published(params.datasets[dataset])


def _packed(dataset: str) -> ImageCounts | None:
    try:
        record = read_record(record_path(paths.dataset_path(dataset)))
        totals = {split: sum(of_class.values()) for split, of_class in record["counts"].items()}
        return ImageCounts(len(record["class_names"]), totals["train"], totals["val"], totals["test"])
    except (EdpipeError, KeyError, TypeError, AttributeError):
        return None  # absent, or of another form: not for an estimate to refuse


def _listed(dataset: str, knobs: DatasetKnobs) -> ImageCounts | None:
    if knobs.reader != "folder":
        return None
    try:
        raw = assign_splits(read(raw_folder(dataset, knobs.root), knobs), knobs)
    except EdpipeError:  # packing will say why
        return None
    split = Counter(sample.split for sample in raw.samples)
    return ImageCounts(len(raw.class_names), split["train"], split["val"], split["test"])


def _published(knobs: DatasetKnobs) -> ImageCounts | None:
    if knobs.reader not in PUBLISHED:
        return None
    published = PUBLISHED[knobs.reader]
    num_classes, train, test = published.num_classes, published.train, published.test
    if knobs.extra:
        train += SVHN_EXTRA
    if knobs.background:
        num_classes, train = num_classes + 1, train + BACKGROUND[knobs.reader]
    if test == 0:
        test = round(train * knobs.test_fraction)
        train -= test
    val = round(train * knobs.val_fraction)
    most = num_classes * knobs.max_per_class if knobs.max_per_class else train
    return ImageCounts(num_classes, *(min(each, most) for each in (train - val, val, test)))
