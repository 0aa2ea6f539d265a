"""Measures the student of every stage of one seed. The only step that reads the test split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64

from edpipe.batches import ViewBatches
from edpipe.device import prepare_device
from edpipe.errors import MismatchError
from edpipe.forgetting import backward_transfer, forgetting
from edpipe.forward import forward
from edpipe.metrics import Hits, expected_calibration_error, top_k_hits
from edpipe.models.macs import count_macs, count_parameters
from edpipe.models.student import Student, student_weights
from edpipe.models.zoo import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StudentViews
from edpipe.partition import Partition
from edpipe.pixels import normalise
from edpipe.progress import announce
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.partition_file import read_partition
from edpipe.storage.records import make_record, write_record
from edpipe.storage.weights import read_weights
from edpipe.views import ViewSpec

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class StageStudent:
    """A loaded student and the record of the stage that made it."""

    student: Student
    record: dict[str, Any]

    @property
    def known_class_ids(self) -> np.ndarray:
        """Classes of the student's outputs, in order."""
        return np.array(self.record["known_class_ids"], dtype=np.int64)


def evaluate(
    seed: int, dataset_path: Path, partition_path: Path, student_paths: tuple[Path, ...], out_path: Path
) -> None:
    """Writes metrics of one seed: the last student on all classes, and every stage's student on every subset.

    Raises:
        CorruptFileError: a file is damaged.
        MismatchError: a student that was taught from another dataset or partition, or not from the one before.
    """
    dataset = open_dataset(dataset_path)
    partition = read_partition(partition_path, dataset)
    stages = [_load(path, dataset, partition) for path in student_paths]
    _check_chain(student_paths, stages, seed)
    outcomes = [_test(stage, dataset, partition) for stage in stages]
    matrix = np.array([[o["top1_by_subset"][s] for s in partition.subsets] for o in outcomes], dtype=np.float64)
    metrics = outcomes[-1]["overall"] | _forgetting(partition, matrix)
    announce(f"{out_path}: top1 {metrics['top1']:.4f}, {len(stages)} stages")
    inputs: dict[str, object] = {"dataset": dataset.digest, "partition": partition.digest}
    inputs["students"] = [stage.record["weights_digest"] for stage in stages]
    stage_facts = [_stage_facts(stage, outcome, dataset) for stage, outcome in zip(stages, outcomes, strict=True)]
    facts = {"seed": seed, "metrics": metrics, "stages": stage_facts}
    facts |= {"data": _data_facts(dataset, partition), "setup": _setup(stages)}
    write_record(out_path, make_record("evaluate", {}, inputs, **facts))


def _load(path: Path, dataset: Dataset, partition: Partition) -> StageStudent:
    weights, record = read_weights(path)
    found = {name: record["inputs"][name] for name in ("dataset", "partition")}
    if found != {"dataset": dataset.digest, "partition": partition.digest}:
        raise MismatchError(f"{path}: was taught from another dataset or partition ({found}); run its stages again")
    plan, model = record["knobs"]["plan"], record["knobs"]["student"]
    student = Student(
        build_network(model["model"], dataset.num_classes, dataset.channels, 0),
        plan["number"],
        plan["num_stages"],
        len(record["known_class_ids"]),
        model["reference"],
        dataset.image_size,
        dataset.channels,
        0,
    )
    student.load(student_weights(weights))
    return StageStudent(student, record)


def _check_chain(paths: tuple[Path, ...], stages: list[StageStudent], seed: int) -> None:
    before = ""
    for path, stage in zip(paths, stages, strict=True):
        if stage.record["seed"] != seed:
            raise MismatchError(
                f"{path}: was trained with seed {stage.record['seed']}, not {seed}; run its stages again"
            )
        if stage.record["inputs"]["previous"] != before:
            raise MismatchError(f"{path}: did not grow from the stage before it that is at hand; run the stages again")
        before = stage.record["weights_digest"]


def _test(stage: StageStudent, dataset: Dataset, partition: Partition) -> dict[str, Any]:
    """The student on the test images of all classes; those of classes it does not know yet are left out."""
    known = stage.known_class_ids
    sample_ids = dataset.sample_ids("test", known.tolist())
    logits = _logits(stage, dataset, sample_ids)
    labels = np.searchsorted(known, dataset.labels[sample_ids]).astype(np.int64)
    by_subset: dict[str, float] = {}
    for subset in partition.subsets:
        rows = np.isin(dataset.labels[sample_ids], partition.classes_of((subset,)))
        by_subset[subset] = top_k_hits(logits[rows], labels[rows], 1).top1 if rows.any() else np.nan
    return {"top1_by_subset": by_subset, "overall": _overall(logits, labels, dataset.num_classes)}


def _overall(logits: Float32[np.ndarray, "sample class"], labels: np.ndarray, num_classes: int) -> dict[str, Any]:
    hits = top_k_hits(logits, labels, 1)
    per_class = [Hits(0, 0)] * num_classes
    if logits.shape[1] == num_classes:
        per_class = [top_k_hits(logits[labels == c], labels[labels == c], 1) for c in range(num_classes)]
    return {
        "top1": hits.top1,
        "top5": top_k_hits(logits, labels, 5).top1,
        "test_samples": hits.asked,
        "ece": expected_calibration_error(logits, labels),
        "top1_by_class": [hits.top1 if hits.asked else None for hits in per_class],
    }


def _logits(stage: StageStudent, dataset: Dataset, sample_ids: np.ndarray) -> Float32[np.ndarray, "sample class"]:
    knobs = stage.record["knobs"]
    recipe = RecipeKnobs.model_validate(knobs["recipe"])
    spec = ViewSpec.from_knobs(StudentViews.model_validate(knobs["views"]), dataset.image_size)
    batches = ViewBatches(dataset, spec, prepare_device())
    student = stage.student.to(batches.device).to(memory_format=torch.channels_last).eval()
    parts = []
    with torch.inference_mode():
        for ids in np.split(sample_ids, range(EVALUATION_BATCH, len(sample_ids), EVALUATION_BATCH)):
            images = normalise(batches.plain(ids), dataset.mean, dataset.std)
            parts.append(forward(student, images, recipe).cpu().numpy())
    return np.concatenate(parts)


def _forgetting(partition: Partition, matrix: Float64[np.ndarray, "stage subset"]) -> dict[str, Any]:
    return {
        "forgetting": dict(zip(partition.subsets, forgetting(matrix), strict=True)),
        "backward_transfer": backward_transfer(matrix),
    }


def _data_facts(dataset: Dataset, partition: Partition) -> dict[str, Any]:
    """What a reader of the numbers must know of the data; lists, because the order of classes and subsets matters."""
    labels = dataset.labels[dataset.sample_ids("test")]
    return {
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        "test_samples_by_class": np.bincount(labels, minlength=dataset.num_classes).tolist(),
        "subsets": [{"name": s, "class_ids": list(partition.classes_of((s,)))} for s in partition.subsets],
    }


def _setup(stages: list[StageStudent]) -> dict[str, Any]:
    """What was trained, as the stages' records tell it."""
    knobs = [stage.record["knobs"] for stage in stages]
    return {name: knobs[-1][name] for name in ("student", "recipe", "views")} | {"stages": [k["plan"] for k in knobs]}


def _stage_facts(stage: StageStudent, outcome: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    record, plan = stage.record, stage.record["knobs"]["plan"]
    macs = count_macs(stage.student.cpu(), dataset.channels, dataset.image_size)
    by_subset = outcome["top1_by_subset"]
    return {
        "name": plan["name"],
        "number": plan["number"],
        "top1_by_subset": {name: None if np.isnan(value) else value for name, value in by_subset.items()},
        "images_seen": record["images_seen"],
        "taught_samples": record["taught_samples"],
        "images_with_teacher": record["images_seen"] if plan["teachers"] or plan.get("trajectory") else 0,
        "final_loss": record["final_loss"],
        "parameters": count_parameters(stage.student),
        "macs": macs,
        "training_macs": record["training_macs_per_image"] * record["images_seen"],
        "soft_labels": record["inputs"]["soft_labels"] + record["inputs"].get("trajectory", []),
        "weights_digest": record["weights_digest"],
        "code": record["code"],
        "versions": record["versions"],
    }
