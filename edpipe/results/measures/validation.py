"""What a search measures of one student: its top1 on the validation split. The test split has no part in it."""

from collections.abc import Sequence
from typing import Any

from edpipe.datasets.dataset_file import Dataset
from edpipe.errors import DataError
from edpipe.results.measures.student import StageStudent, predict


def measure_on_validation(seed: int, stages: Sequence[StageStudent], dataset: Dataset) -> dict[str, Any]:
    """Top1 of the last stage's student, from 0 to 1, and what the training of all its stages took.

    Raises:
        DataError: the data set has no validation images.
    """
    hits = predict(stages[-1], dataset, "val").hits(range(dataset.num_classes))
    if not hits.total:
        raise DataError(
            f"{dataset.path}: data set '{dataset.name}' has no validation images, by which a search judges; give "
            f"datasets.{dataset.name}.val_fraction a value above 0, or images of a split 'val'"
        )
    records = [stage.record for stage in stages]
    return {
        "seed": seed,
        "val_top1": hits.top1,
        "val_samples": hits.total,
        "images_seen": sum(record["images_seen"] for record in records),
        "training_macs": sum(record["training_macs_per_image"] * record["images_seen"] for record in records),
        "weights_digest": records[-1]["weights_digest"],
    }
