"""Deals the classes of one dataset out to subsets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from edpipe.confusion import class_order, confusion_matrix, share_within, similarity_of
from edpipe.errors import OtherTemperatureError
from edpipe.params.partition import ALL_CLASSES, PartitionKnobs
from edpipe.params.soft_labels import ViewSpace, every_view
from edpipe.partition import Partition, bounds_of, make_partition
from edpipe.progress import announce
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.partition_file import write_partition
from edpipe.storage.records import make_record, read_record
from edpipe.storage.soft_label_checks import check_provenance
from edpipe.storage.soft_label_format import Provenance
from edpipe.storage.soft_label_store import SoftLabelStore, check_verified, open_store
from edpipe.views import ViewSpec

CHUNK_ROWS = 8192
"""Rows of logits that are read together: 1000 classes take 64 MB as float64."""
SHARE_DECIMALS = 6
"""Of the share in the record: more of them may differ between machines."""


@dataclass(frozen=True)
class Answers:
    """One teacher's verified soft labels of all classes, and what they must have been made from."""

    index: Path
    soft_labels: tuple[Path, ...]
    teacher: Path
    """Record of the teacher."""
    space: ViewSpace


def partition_dataset(
    dataset_path: Path, knobs: PartitionKnobs, out_path: Path, answers: Answers | None = None
) -> None:
    """Writes the partition file; `answers` are wanted with `knobs.confusion` alone.

    Raises:
        ParamsError: ratio or class lists do not fit the dataset's classes.
        CorruptFileError: the dataset file or one of the teacher's is damaged.
        MismatchError: soft labels that are not verified, or of another teacher, dataset, temperature or other views.
        ValueError: answers without confusion knobs, or the other way round.
    """
    if (answers is None) != (knobs.confusion is None):
        raise ValueError(f"confusion knobs and answers belong together, got {knobs.confusion} and {answers}")
    dataset = open_dataset(dataset_path)
    if answers is None:
        partition = make_partition(knobs, dataset.class_names, dataset.digest)
        record = make_record("partition_dataset", {"partition": knobs}, {"dataset": dataset.digest})
    else:
        partition, record = _by_confusion(knobs, answers, dataset)
    write_partition(out_path, partition, dataset, record)
    announce(f"{out_path}: {', '.join(f'{name} {len(ids)}' for name, ids in partition.class_ids.items())} classes")


def _by_confusion(knobs: PartitionKnobs, answers: Answers, dataset: Dataset) -> tuple[Partition, dict[str, Any]]:
    """The partition and its record."""
    assert knobs.confusion is not None, "answers are given with it alone"
    bounds = bounds_of(knobs, dataset.num_classes)
    store = _open_answers(answers, knobs.confusion.teacher, dataset)
    similarity = similarity_of(confusion_matrix(_first_views(store, dataset), dataset.num_classes))
    order = class_order(similarity, bounds, knobs.confusion.together).tolist()
    partition = make_partition(knobs, dataset.class_names, dataset.digest, order)
    share = share_within(similarity, partition.class_ids.values())
    announce(f"{share:.0%} of what {knobs.confusion.teacher} confuses lies within a subset")
    record = make_record(
        "partition_dataset",
        {"partition": knobs, "space": answers.space},
        {"dataset": dataset.digest, "soft_labels": [_digests(store)]},
        confusion_within=round(share, SHARE_DECIMALS),
    )
    return partition, record


def _digests(store: SoftLabelStore) -> dict[str, object]:
    """What the record says of the soft labels."""
    found = store.provenance
    facts: dict[str, object] = {"teacher": found.teacher, "subset": found.subset}
    return facts | {"digests": store.digests, "teacher_digest": found.teacher_digest}


def _open_answers(answers: Answers, teacher: str, dataset: Dataset) -> SoftLabelStore:
    """The soft labels, after every byte was checked, and that they are verified and of this teacher and dataset.

    The pixel canary alone is not made again: verify_soft_labels held it against the pixels, and none are looked at here.
    """
    class_ids = np.arange(dataset.num_classes, dtype=np.int32)
    store = open_store(answers.soft_labels, sample_keys=dataset.sample_keys, class_ids=class_ids)
    check_verified(store, answers.index)
    digest = read_record(answers.teacher, "weights_digest")["weights_digest"]
    spec = ViewSpec.from_knobs(every_view(answers.space), dataset.image_size).canonical()
    for labels in store.files:
        canary = labels.provenance.pixel_canary
        expected = Provenance(teacher, ALL_CLASSES, digest, dataset.digest, "", spec, canary)
        check_provenance(labels.path, labels.provenance, expected)
    if store.precision.temperature not in (None, 1):
        raise OtherTemperatureError(
            f"{answers.index.with_suffix('')}: sampled at temperature {store.precision.temperature:g}, confusions are "
            f"counted at 1; use another precision in soft_labels.{dataset.name}.storage, or a partition without confusion"
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
