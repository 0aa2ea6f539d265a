"""The jobs of data: a dataset is packed, its classes are dealt out to subsets."""

from edpipe.params.dataset import PackKnobs
from edpipe.params.partition import ALL_CLASSES, PartitionJobKnobs, PartitionKnobs
from edpipe.params.schema import Params, entry
from edpipe.params.soft_labels import ConfusionJobKnobs, SoftLabelKnobs
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.choices import reader_choice
from edpipe.pipeline.jobs.paths import with_record
from edpipe.pipeline.jobs.teachers import soft_label_paths
from edpipe.storage.job import Job
from edpipe.storage.records import record_path


def pack_dataset(params: Params, dataset: str) -> Job[PackKnobs]:
    """Packs one data set into one file."""
    return Job(
        step="pack_dataset",
        arguments={"dataset": dataset},
        knobs=PackKnobs(entry(params, "datasets", dataset)),
        inputs={},
        outputs=with_record(paths.dataset_path(dataset)),
        keys=(f"datasets.{dataset}",),
        choices=reader_choice(params.datasets[dataset].reader),
    )


def partition_dataset(params: Params, dataset: str, partition: str) -> Job[PartitionJobKnobs] | Job[ConfusionJobKnobs]:
    """Deals the classes of one data set out to subsets; the step's name says whether a teacher is asked."""
    knobs: PartitionKnobs = entry(params, "partitions", partition)
    if knobs.confusion is not None:
        return _partition_by_confusion(params, dataset, partition, knobs.confusion.teacher)
    return Job(
        step="partition_dataset",
        arguments={"dataset": dataset, "partition": partition},
        knobs=PartitionJobKnobs(knobs),
        inputs={"dataset": (paths.dataset_path(dataset),)},
        outputs=(paths.partition_path(dataset, partition),),
        keys=(f"partitions.{partition}",),
    )


def _partition_by_confusion(params: Params, dataset: str, partition: str, teacher: str) -> Job[ConfusionJobKnobs]:
    soft_labels: SoftLabelKnobs = entry(params, "soft_labels", dataset)
    return Job(
        step="partition_by_confusion",
        arguments={"dataset": dataset, "partition": partition},
        knobs=ConfusionJobKnobs(params.partitions[partition], soft_labels.space),
        inputs={
            "dataset": (paths.dataset_path(dataset),),
            "indexes": (paths.soft_labels_index_path(dataset, teacher, ALL_CLASSES),),
            "soft_labels": soft_label_paths(params, dataset, teacher, ALL_CLASSES)[::2],
            "teachers": (record_path(paths.teacher_path(dataset, teacher, ALL_CLASSES)),),
        },
        outputs=(paths.partition_path(dataset, partition),),
        keys=(f"partitions.{partition}", f"soft_labels.{dataset}.space"),
    )


def partition_teachers(knobs: PartitionKnobs) -> tuple[tuple[str, str], ...]:
    """Teacher and subset whose soft labels a partition is made from: one of all classes, or none."""
    return () if knobs.confusion is None else ((knobs.confusion.teacher, ALL_CLASSES),)
