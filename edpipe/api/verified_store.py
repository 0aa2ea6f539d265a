"""Opens a teacher's verified soft labels for a training loop of one's own, with the checks that students make."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from edpipe.datasets.dataset_file import Dataset
from edpipe.errors import CorruptFileError, EdpipeError, MissingRowsError, OtherViewsError, remake
from edpipe.params.soft_labels import ViewUse
from edpipe.soft_labels.file.checks import check_content, check_provenance
from edpipe.soft_labels.file.format import Provenance
from edpipe.soft_labels.file.reader import SoftLabels
from edpipe.soft_labels.file.store import SoftLabelStore, check_verified, open_store
from edpipe.soft_labels.verification import stored_view_spec
from edpipe.storage.records import read_record
from edpipe.views.batches import ViewBatches

CPU = torch.device("cpu")


@dataclass(frozen=True)
class VerifiedStore:
    """A teacher's soft labels, their views, and how students go through these."""

    labels: SoftLabelStore
    batches: ViewBatches
    choice: Literal["random", "cycle"]


def open_verified_store(index: Path, dataset: Dataset) -> VerifiedStore:
    """The soft labels that an index names, after every byte and all that they were made from was checked.

    Raises:
        CorruptFileError: the index or a file is missing or damaged.
        MismatchError: a file was made from another teacher, dataset or views than the index says, or is not the one
            that was verified; or this machine's libraries make other pixels.
    """
    if index.suffix != ".json":
        raise EdpipeError(
            f"{index}: must be the index of soft labels, such as artifacts/soft_labels/cifar100/wrn/all.json; "
            "give that file"
        )
    record = read_record(index, "inputs", "knobs", "teacher", "subset", "files")
    paths = [index.with_suffix("") / name for name in _file_names(index, record["files"])]
    store = open_store(paths, sample_keys=dataset.sample_keys)
    check_verified(store, index)
    batches = _view_batches(store, dataset)
    _check_samples(store, dataset)
    for labels in store.files:
        check_provenance(labels.path, labels.provenance, _expected(labels, record, batches))
    return VerifiedStore(store, batches, ViewUse.model_validate(record["knobs"]["views"]).choice)


def _file_names(index: Path, names: object) -> list[str]:
    """Plain names: an index is data, and must lead to no other folder."""
    if isinstance(names, list) and all(isinstance(n, str) and n == Path(n).name and n != ".." for n in names):
        return names
    raise CorruptFileError(f"{index}: 'files' must be names of files in its folder, got {names!r}; {remake(index)}")


def _view_batches(store: SoftLabelStore, dataset: Dataset) -> ViewBatches:
    """The views of the store; a mixed view's partner is a sample of the store, as it was for the teacher."""
    labels = store.files[0]
    spec = stored_view_spec(labels, dataset)
    if spec.exhaustive and spec.num_views != store.num_views:
        raise OtherViewsError(
            f"{labels.path.parent}: holds {store.num_views} views of each image, there are {spec.num_views}; "
            f"{remake(labels.path.parent.with_suffix('.json'), act='dump and verify them')}"
        )
    spec = replace(spec, num_views=store.num_views)
    return ViewBatches(dataset, spec, CPU, (store.sample_ids,) if spec.mixing is not None else ())


def _check_samples(store: SoftLabelStore, dataset: Dataset) -> None:
    """That the store holds the training samples of its classes, all of them."""
    labels = store.files[0]
    is_general = not labels.provenance.partition_digest
    wanted = np.arange(dataset.num_classes, dtype=np.int32) if is_general else store.class_ids
    check_content(labels.path, labels.header, None, wanted)
    ids = dataset.sample_ids("train", wanted.tolist())
    if not np.array_equal(store.sample_ids, ids):
        raise MissingRowsError(
            f"{labels.path}: holds {len(store.sample_ids)} samples, {dataset.path} has {len(ids)} training samples of "
            f"its classes; {remake(labels.path, act='dump it again')}"
        )


def _expected(labels: SoftLabels, record: dict, batches: ViewBatches) -> Provenance:
    """What the file of these views must have been made from, by the index, the dataset and the views as made here."""
    views, inputs = labels.views, record["inputs"]
    return Provenance(
        teacher=str(record["teacher"]),
        subset=str(record["subset"]),
        teacher_digest=str(inputs.get("teacher")),
        dataset_digest=batches.dataset.digest,
        partition_digest=str(inputs.get("partition")),
        view_spec=batches.spec.canonical(),
        pixel_canary=batches.canary(labels.sample_ids, views.first, views.num_views),
    )
