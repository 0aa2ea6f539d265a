"""The soft labels that a partition by confusion is made from: opened, checked, read in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from edpipe.datasets.dataset_file import Dataset
from edpipe.errors import OtherTemperatureError
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.soft_labels import ViewSpace, every_view
from edpipe.soft_labels.encoding.softmax import rows_together
from edpipe.soft_labels.file.checks import check_provenance
from edpipe.soft_labels.file.format import Provenance
from edpipe.soft_labels.file.store import SoftLabelStore, check_verified, open_store
from edpipe.storage.records import read_record
from edpipe.views.spec import ViewSpec


@dataclass(frozen=True)
class ConfusionFiles:
    """One teacher's verified soft labels of all classes, and what they must have been made from."""

    index: Path
    soft_labels: tuple[Path, ...]
    teacher: Path
    """Record of the teacher."""
    space: ViewSpace


def open_confusion_labels(files: ConfusionFiles, teacher: str, dataset: Dataset) -> SoftLabelStore:
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


def first_views(
    store: SoftLabelStore, dataset: Dataset
) -> Iterator[tuple[Int32[np.ndarray, " row"], Float32[np.ndarray, "row class"]]]:
    """Labels of all training samples and the logits of their first view, in chunks."""
    ids, rows = dataset.sample_ids("train"), rows_together(dataset.num_classes)
    for start in range(0, len(ids), rows):
        some = ids[start : start + rows]
        yield dataset.labels[some], store.logits(some, np.zeros_like(some))
