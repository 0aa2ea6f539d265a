"""What a writer of soft labels is to make: files, their headers and records, and the index."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from edpipe.datasets.dataset_file import Dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import CorruptFileError, OverwriteError, ParamsError, nearest
from edpipe.params.base import canonical_json
from edpipe.params.load import load_params
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.problems import error_lines
from edpipe.params.soft_labels import SoftLabelKnobs, every_view
from edpipe.soft_labels.encoding.precisions import make_precision
from edpipe.soft_labels.file.format import Header, Provenance
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.store import SoftLabelStore
from edpipe.storage.digests import digest_bytes, digest_json
from edpipe.storage.records import library_versions
from edpipe.views.batches import ViewBatches
from edpipe.views.spec import ViewRange, ViewSpec, count_views, view_ranges

MADE_BY = "edpipe.SoftLabelWriter"


@dataclass(frozen=True)
class TeacherName:
    """Whose soft labels they are."""

    teacher: str
    subset: str
    digest: str
    """Of its weights."""
    class_ids: tuple[int, ...]
    partition_digest: str
    """Empty for a teacher of all classes."""


@dataclass(frozen=True)
class SoftLabelPlan:
    """Files and index of one teacher's soft labels."""

    index: Path
    batches: ViewBatches
    knobs: SoftLabelKnobs
    name: TeacherName

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Of the columns."""
        return self.name.class_ids

    @property
    def ranges(self) -> tuple[ViewRange, ...]:
        """The views of each file."""
        return view_ranges(count_views(self.knobs.student_views), self.knobs.views.per_file)

    @property
    def code(self) -> str:
        """Blocks that other library versions helped to make are not taken over."""
        return digest_json([MADE_BY, library_versions()])

    def path_of(self, views: ViewRange) -> Path:
        """The file of these views."""
        return self.index.with_suffix("") / f"views_{views}.h5"

    def header(self, views: ViewRange) -> Header:
        """What the file of these views holds, before its first row."""
        dataset = self.batches.dataset
        ids = dataset.sample_ids("train", self.class_ids)
        return Header(
            provenance=self._provenance(views, ids),
            storage=self.knobs.storage,
            views=views,
            sample_ids=ids,
            sample_keys=dataset.sample_keys[ids],
            labels=dataset.labels[ids],
            class_ids=np.array(self.class_ids, dtype=np.int32),
        )

    def _provenance(self, views: ViewRange, ids: np.ndarray) -> Provenance:
        return Provenance(
            teacher=self.name.teacher,
            subset=self.name.subset,
            teacher_digest=self.name.digest,
            dataset_digest=self.batches.dataset.digest,
            partition_digest=self.name.partition_digest,
            view_spec=self.batches.spec.canonical(),
            pixel_canary=self.batches.canary(ids, views.first, views.num_views),
        )

    def describe(self, views: ViewRange, path: Path) -> dict[str, Any]:
        """The record of the file at `path`, read back as whoever uses it will read it."""
        labels = open_soft_labels(path)
        # None of the pipeline's code has made it, and no gate was passed: `edpipe adopt` looks for evidence.
        knobs = {"space": self.knobs.space, "storage": self.knobs.storage, "min_top1": 0.0}
        statistics = {name: value if np.isfinite(value) else None for name, value in labels.seal.statistics.items()}
        return self._record("dump_soft_labels", knobs, {"teacher": {"digest": self.name.digest}}) | {
            "views": str(views),
            "digest": labels.digest,
            "num_samples": len(labels.sample_ids),
            "teacher_forwards": labels.num_forwards,
            "size_bytes": path.stat().st_size,
            **statistics,
        }

    def index_record(self, store: SoftLabelStore, verified_rows: int, seed: int) -> dict[str, Any]:
        """What the index says: which files, of what, and that so many rows were compared with the teacher."""
        inputs = {"teacher": self.name.digest, "soft_labels": store.digests}
        return self._record("verify_soft_labels", {"views": self.knobs.views}, inputs) | {
            "files": [labels.path.name for labels in store.files],
            "num_views": store.num_views,
            "teacher_forwards": store.num_forwards,
            "verified_rows": verified_rows,
            "seed": seed,
        }

    def _record(self, step: str, knobs: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
        origin = {"dataset": self.batches.dataset.digest, "partition": self.name.partition_digest}
        return {
            "step": step,
            "knobs": json.loads(canonical_json(knobs)),
            "inputs": {**origin, **inputs},
            "code": {},
            "versions": library_versions(),
            "made_by": MADE_BY,
            "teacher": self.name.teacher,
            "subset": self.name.subset,
        }


def name_teacher(
    teacher: str, weights: Mapping[str, Tensor] | str, dataset: Dataset, subset: str, partition: Path | None
) -> TeacherName:
    """The teacher of a subset of classes.

    Raises:
        ParamsError: a subset without partition, a partition without subset, or one that it does not have.
        EdpipeError: the partition is damaged, or of another dataset.
        ValueError: the teacher has no name, or its weights no digest.
    """
    digest = weights if isinstance(weights, str) else digest_of_weights(weights)
    if not teacher or not digest:
        raise ValueError(f"teacher and weights must not be empty, got {teacher!r} and {digest!r}")
    if (subset == ALL_CLASSES) != (partition is None):
        raise ParamsError(f"subset {subset!r} with partition {partition}: give both, or subset='all' without partition")
    if partition is None:
        return TeacherName(teacher, subset, digest, tuple(range(dataset.num_classes)), "")
    opened = read_partition(partition, dataset)
    if subset not in opened.subsets:
        raise ParamsError(f"subset: {partition} has no '{subset}'{nearest(subset, opened.subsets)}")
    return TeacherName(teacher, subset, digest, opened.classes_of((subset,)), opened.digest)


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """The digest that the pipeline gives the same weights: of the safetensors file that holds them."""
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()
    }
    return digest_bytes(safetensors.torch.save(plain, metadata={"format": "edpipe-weights"}))


def knobs_of(given: Mapping[str, Any] | Path, dataset: Dataset, num_classes: int) -> SoftLabelKnobs:
    """Checked knobs, from an entry of `soft_labels:` or from a whole params.yaml.

    Raises:
        ParamsError: one line for each knob that is wrong; or attention maps or hints are asked for.
    """
    where = f"soft_labels.{dataset.name}"
    knobs = _entry(given, dataset.name) if isinstance(given, Path) else _parsed(given, dataset.name)
    try:
        make_precision(knobs.storage, num_classes)
    except ValueError as error:
        raise ParamsError(f"{where}.storage: {error}") from error
    if knobs.storage.attention or knobs.storage.hint is not None:
        raise ParamsError(f"{where}.storage: SoftLabelWriter stores logits alone; remove attention and hint")
    return knobs


def _entry(path: Path, name: str) -> SoftLabelKnobs:
    entries = load_params(path).soft_labels
    if name not in entries:
        raise ParamsError(f"{path}: soft_labels has no entry '{name}', the name of the dataset{nearest(name, entries)}")
    return entries[name]


def _parsed(given: Mapping[str, Any], name: str) -> SoftLabelKnobs:
    try:
        return SoftLabelKnobs.model_validate(dict(given))
    except ValidationError as error:
        items = [{**item, "loc": ("soft_labels", name, *item["loc"])} for item in error.errors()]
        raise ParamsError(*error_lines({"soft_labels": {name: dict(given)}}, items)) from None


def view_batches(dataset: Dataset, knobs: SoftLabelKnobs, name: TeacherName, device: torch.device) -> ViewBatches:
    """The views of the teacher's training samples; mixed views have their partners among these."""
    spec = ViewSpec.from_knobs(every_view(knobs.space), dataset.image_size)
    return ViewBatches(dataset, spec, device, (dataset.sample_ids("train", name.class_ids),))


def lies_whole(path: Path, header: Header) -> bool:
    """Whether the very file that is to be made lies there already; False if none does.

    Raises:
        OverwriteError: another file is in the way.
    """
    if not path.exists():
        return False
    try:
        labels = open_soft_labels(path)
    except CorruptFileError as error:
        raise OverwriteError(f"{path}: is in the way, and damaged; delete it ({error})") from error
    if labels.header.facts() == header.facts():
        return True
    found = labels.provenance
    raise OverwriteError(
        f"{path}: is in the way: soft labels of teacher '{found.teacher}' with weights {found.teacher_digest}, or of "
        "other views, images or precision; delete it, or choose another store"
    )
