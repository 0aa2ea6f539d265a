"""Deals the classes of one dataset out to subsets by what a teacher of all of them confuses.

Apart from partition_dataset, so that an edit of how soft labels are read makes no other partition again.
"""

from pathlib import Path
from typing import Any

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition import bounds_of, make_partition
from edpipe.datasets.partition_file import write_partition
from edpipe.params.partition import PartitionKnobs
from edpipe.params.soft_labels import ConfusionJobKnobs
from edpipe.runtime.progress import announce
from edpipe.soft_labels.confusion import class_order, confusion_matrix, share_within, similarity_of
from edpipe.soft_labels.confusion_inputs import ConfusionFiles, first_views, open_confusion_labels
from edpipe.soft_labels.file.store import SoftLabelStore
from edpipe.storage.job import Job
from edpipe.storage.records import make_record

SHARE_DECIMALS = 6
"""Of the share in the record: more of them may differ between machines."""


def run(job: Job[ConfusionJobKnobs]) -> None:
    """Runs a job of this step."""
    files = ConfusionFiles(job.input("indexes"), job.inputs["soft_labels"], job.input("teachers"), job.knobs.space)
    partition_by_confusion(job.input("dataset"), job.knobs.partition, files, job.outputs[0])


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
    store = open_confusion_labels(files, knobs.confusion.teacher, dataset)
    similarity = similarity_of(confusion_matrix(first_views(store, dataset), dataset.num_classes))
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
