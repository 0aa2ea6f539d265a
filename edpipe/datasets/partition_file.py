"""The partition file: JSON that says which classes each subset has, with counts for people."""

from pathlib import Path
from typing import Any

from edpipe.datasets.dataset_file import SPLITS, Dataset
from edpipe.datasets.partition import Partition
from edpipe.errors import MismatchError, remake
from edpipe.storage.sealed_json import JsonFormat, read_sealed_json, write_sealed_json

FORMAT = JsonFormat("edpipe-partition", 1, "partition file", instead="params.yaml")


def write_partition(path: Path, partition: Partition, dataset: Dataset, record: dict[str, Any]) -> None:
    """Writes the partition; the file is its own record."""
    subsets = [
        {
            "name": name,
            "class_ids": list(partition.class_ids[name]),
            "class_names": [dataset.class_names[c] for c in partition.class_ids[name]],
            "samples": {split: len(dataset.sample_ids(split, partition.class_ids[name])) for split in SPLITS},
        }
        for name in partition.subsets
    ]
    write_sealed_json(path, FORMAT, record | {"digest": partition.digest, "subsets": subsets})


def read_contents(path: Path) -> dict[str, Any]:
    """Everything in a partition file, checked against its digest.

    Raises:
        CorruptFileError: missing, no partition file, of another version, or altered.
    """
    return read_sealed_json(path, FORMAT, dict)


def read_partition(path: Path, dataset: Dataset) -> Partition:
    """The partition of this dataset.

    Raises:
        CorruptFileError: missing, no partition file, of another version, or altered.
        MismatchError: made from another dataset.
    """
    partition = read_sealed_json(path, FORMAT, _parse)
    if partition.dataset_digest != dataset.digest:
        raise MismatchError(
            f"{path}: was made from dataset {partition.dataset_digest},"
            f" but {dataset.path} holds dataset {dataset.digest}; {remake(path)}"
        )
    return partition


def _parse(contents: dict[str, Any]) -> Partition:
    ids = {str(subset["name"]): tuple(int(c) for c in subset["class_ids"]) for subset in contents["subsets"]}
    return Partition(contents["inputs"]["dataset"], tuple(ids), ids)
