"""The partition file: JSON that says which classes each subset has, with counts for people."""

from pathlib import Path
from typing import Any

from edpipe.datasets.dataset_file import SPLITS, Dataset
from edpipe.datasets.partition import Partition
from edpipe.errors import CorruptFileError, MismatchError
from edpipe.storage.digests import digest_json
from edpipe.storage.records import read_record, write_record

FORMAT = "edpipe-partition"


FORMAT_VERSION = 1


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
    facts = {"format": FORMAT, "format_version": FORMAT_VERSION, "digest": partition.digest, "subsets": subsets}
    contents = record | facts
    write_record(path, contents | {"file_digest": digest_json(contents)})


def read_contents(path: Path) -> dict[str, Any]:
    """Everything in a partition file, checked against its digest.

    Raises:
        CorruptFileError: missing, no partition file, of another version, or altered.
    """
    contents = read_record(path)
    mend = _mend(path)
    file_digest = contents.pop("file_digest", None)
    if contents.get("format") != FORMAT or contents.get("format_version") != FORMAT_VERSION:
        raise CorruptFileError(f"{path}: not a partition file of version {FORMAT_VERSION}; {mend}")
    if file_digest != digest_json(contents):
        raise CorruptFileError(f"{path}: altered since written; change params.yaml instead, then {mend}")
    return contents


def _mend(path: Path) -> str:
    return f"make it again with `snakemake --force {path}`"


def read_partition(path: Path, dataset: Dataset) -> Partition:
    """The partition of this dataset.

    Raises:
        CorruptFileError: missing, no partition file, of another version, or altered.
        MismatchError: made from another dataset.
    """
    contents, mend = read_contents(path), _mend(path)
    try:
        subsets = contents["subsets"]
        ids = {str(s["name"]): tuple(int(c) for c in s["class_ids"]) for s in subsets}
        partition = Partition(contents["inputs"]["dataset"], tuple(ids), ids)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: not a whole partition file ({error!r}); {mend}") from error
    if partition.dataset_digest != dataset.digest:
        raise MismatchError(
            f"{path}: was made from dataset {partition.dataset_digest},"
            f" but {dataset.path} holds dataset {dataset.digest}; {mend}"
        )
    return partition
