"""Deals the classes of one dataset out to subsets."""

from pathlib import Path

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition import make_partition
from edpipe.datasets.partition_file import write_partition
from edpipe.params.partition import PartitionJobKnobs, PartitionKnobs
from edpipe.runtime.progress import announce
from edpipe.storage.job import Job
from edpipe.storage.records import make_record


def run(job: Job[PartitionJobKnobs]) -> None:
    """Runs a job of this step."""
    partition_dataset(job.input("dataset"), job.knobs.partition, job.outputs[0])


def partition_dataset(dataset_path: Path, knobs: PartitionKnobs, out_path: Path) -> None:
    """Writes the partition file.

    Raises:
        ParamsError: ratio or class lists do not fit the dataset's classes.
        CorruptFileError: the dataset file is damaged.
    """
    dataset = open_dataset(dataset_path)
    partition = make_partition(knobs, dataset.class_names, dataset.digest)
    record = make_record("partition_dataset", {"partition": knobs}, {"dataset": dataset.digest})
    write_partition(out_path, partition, dataset, record)
    announce(f"{out_path}: {', '.join(f'{name} {len(ids)}' for name, ids in partition.class_ids.items())} classes")
