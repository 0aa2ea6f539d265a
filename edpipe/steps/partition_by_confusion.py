"""Deals the classes of one dataset out to subsets by what a teacher of all of them confuses.

Apart from partition_dataset, so that an edit of how soft labels are read makes no other partition again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.datasets.partition import bounds_of, make_partition
from edpipe.datasets.partition_file import write_partition
from edpipe.errors import OtherTemperatureError
from edpipe.params.partition import ALL_CLASSES, PartitionKnobs
from edpipe.params.soft_labels import ViewSpace, every_view
from edpipe.runtime.progress import announce
from edpipe.soft_labels.confusion import class_order, confusion_matrix, share_within, similarity_of
from edpipe.soft_labels.file.checks import check_provenance
from edpipe.soft_labels.file.format import Provenance
from edpipe.soft_labels.file.store import SoftLabelStore, check_verified, open_store
from edpipe.storage.records import make_record, read_record
from edpipe.views.spec import ViewSpec

CHUNK_ROWS = 8192
"""Rows of logits that are read together: 1000 classes take 64 MB as float64."""


SHARE_DECIMALS = 6
"""Of the share in the record: more of them may differ between machines."""


@dataclass(frozen=True)
class ConfusionFiles:
    """One teacher's verified soft labels of all classes, and what they must have been made from."""

    index: Path
    soft_labels: tuple[Path, ...]
    teacher: Path
    """Record of the teacher."""
    space: ViewSpace


def partition_by_confusion(dataset_path: Path, knobs: PartitionKnobs, files: ConfusionFiles, out_path: Path) -> None:
    """Writes the partition file of `knobs.confusion`.

    Raises:
        ParamsError: the ratio does not fit the dataset's classes.
        CorruptFileError: the dataset file or one of the teacher's is damaged.
        MismatchError: soft labels that are not verified, or of another teacher, dataset, temperature or other views.
        ValueError: knobs without confusion.
    """
    if knobs.confusion is None:
        raise ValueError("knobs without confusion; partition_dataset deals these classes out")
    dataset = open_dataset(dataset_path)
    bounds = bounds_of(knobs, dataset.num_classes)
    store = _open_soft_labels(files, knobs.confusion.teacher, dataset)
    similarity = similarity_of(confusion_matrix(_first_views(store, dataset), dataset.num_classes))
    order = class_order(similarity, bounds, knobs.confusion.together).tolist()
    partition = make_partition(knobs, dataset.class_names, dataset.digest, order)
    share = share_within(similarity, partition.class_ids.values())
    write_partition(out_path, partition, dataset, _record(knobs, files, store, share))
    counts = ", ".join(f"{name} {len(ids)}" for name, ids in partition.class_ids.items())
    announce(f"{out_path}: {counts} classes; {share:.0%} of what the teacher confuses lies within a subset")


def _record(knobs: PartitionKnobs, files: ConfusionFiles, store: SoftLabelStore, share: float) -> dict[str, Any]:
    found = store.provenance
    asked = {
        "teacher": found.teacher,
        "subset": found.subset,
        "digests": store.digests,
        "teacher_digest": found.teacher_digest,
    }
    return make_record(
        "partition_by_confusion",
        {"partition": knobs, "space": files.space},
        {"dataset": found.dataset_digest, "soft_labels": [asked]},
        confusion_within=round(share, SHARE_DECIMALS),
    )


def _open_soft_labels(files: ConfusionFiles, teacher: str, dataset: Dataset) -> SoftLabelStore:
    """The soft labels, after every byte was checked, and that they are verified and of this teacher and dataset.

    The pixel canary alone is not made again: verify_soft_labels has compared it, and no pixels are looked at here.
    """
    class_ids = np.arange(dataset.num_classes, dtype=np.int32)
    store = open_store(files.soft_labels, sample_keys=dataset.sample_keys, class_ids=class_ids)
    check_verified(store, files.index)
    digest = read_record(files.teacher, "weights_digest")["weights_digest"]
    spec = ViewSpec.from_knobs(every_view(files.space), dataset.image_size).canonical()
    for labels in store.files:
        canary = labels.provenance.pixel_canary
        expected = Provenance(teacher, ALL_CLASSES, digest, dataset.digest, "", spec, canary)
        check_provenance(labels.path, labels.provenance, expected)
    if store.precision.temperature not in (None, 1):
        raise OtherTemperatureError(
            f"{files.index.with_suffix('')}: sampled at temperature {store.precision.temperature:g}, confusions are "
            f"counted at 1; use another precision in soft_labels.{dataset.name}.storage, or no partition by confusion"
        )
    return store


def _first_views(
    store: SoftLabelStore, dataset: Dataset
) -> Iterator[tuple[Int32[np.ndarray, " row"], Float32[np.ndarray, "row class"]]]:
    """Labels of all training samples and the logits of their first view, in chunks."""
    ids = dataset.sample_ids("train")
    for start in range(0, len(ids), CHUNK_ROWS):
        some = ids[start : start + CHUNK_ROWS]
        yield dataset.labels[some], store.logits(some, np.zeros_like(some))
