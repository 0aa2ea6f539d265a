"""Measures of one seed: the last student on all classes, and every stage's student on every subset."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from edpipe.datasets.dataset_file import Dataset
from edpipe.datasets.partition import Partition
from edpipe.models.macs import count_macs, count_parameters
from edpipe.models.students.student import Student
from edpipe.params.plans.plan import knobs_as_now
from edpipe.params.recipe import RecipeKnobs
from edpipe.results.measures.agreement import agreement
from edpipe.results.measures.forgetting import backward_transfer, forgetting
from edpipe.results.measures.kept_predictions import KEY, kept
from edpipe.results.measures.metrics import Hits, expected_calibration_error, top_k_hits
from edpipe.results.measures.predictions import PlainImages, plain_logits
from edpipe.results.measures.teacher_evaluation import TeacherEvaluation

Shares = dict[str, float | None]
"""By the name of what images are of, 0 to 1; None: there are no such images."""


@dataclass(frozen=True)
class StageStudent:
    """A loaded student and the record of the stage that made it."""

    student: Student
    record: dict[str, Any]
    image_size: int
    """Side of the images that it was trained on, and is measured on, pixels."""

    @property
    def known_class_ids(self) -> np.ndarray:
        """Classes of the student's outputs, in order."""
        return np.array(self.record["known_class_ids"], dtype=np.int64)


@dataclass(frozen=True)
class Predictions:
    """What a student says of the images of one split whose classes it knows."""

    logits: Float32[np.ndarray, "sample class"]
    truth: Int64[np.ndarray, " sample"]
    """Class id of each image."""
    known: Int64[np.ndarray, " class"]
    """Class ids of the columns."""

    def hits(self, class_ids: Sequence[int], k: int = 1) -> Hits:
        """Of the images of these classes: those whose class is among the first k of all that the student knows."""
        rows = np.isin(self.truth, class_ids)
        return top_k_hits(self.logits[rows], self.labels[rows], k)

    @cached_property
    def labels(self) -> Int64[np.ndarray, " sample"]:
        """The true classes, numbered as the columns."""
        return np.searchsorted(self.known, self.truth).astype(np.int64)


def measure_stages(
    stages: list[StageStudent], teachers: list[TeacherEvaluation], dataset: Dataset, partition: Partition
) -> dict[str, Any]:
    """All that is measured, of students and of teachers."""
    rows = [_top1_by_subset(predict(stage, dataset, "test"), partition) for stage in stages[:-1]]
    last = predict(stages[-1], dataset, "test")
    rows.append(_top1_by_subset(last, partition))
    metrics = _overall(last, dataset.num_classes) | _on_validation(stages[-1], dataset) | _forgetting(partition, rows)
    metrics["agreement"] = {teacher.name: _agreement(last, teacher) for teacher in teachers}
    return {
        "metrics": metrics,
        "teachers": {teacher.name: teacher.facts() for teacher in teachers},
        "stages": [_stage_facts(stage, row, dataset) for stage, row in zip(stages, rows, strict=True)],
        KEY: kept(last.logits, last.known),
    }


def predict(stage: StageStudent, dataset: Dataset, split: str) -> Predictions:
    """What the student says of the images of all classes; those of classes it does not know yet are left out."""
    known = stage.known_class_ids
    sample_ids = dataset.sample_ids(split, known.tolist())
    logits = np.empty((0, len(known)), dtype=np.float32)
    if len(sample_ids):
        recipe = RecipeKnobs.model_validate(stage.record["knobs"]["recipe"])
        logits = plain_logits(
            stage.student, recipe, PlainImages(dataset, dataset.mean, dataset.std, stage.image_size), sample_ids
        )
    return Predictions(logits, dataset.labels[sample_ids].astype(np.int64), known)


def _share(hits: Hits) -> float | None:
    return hits.top1 if hits.total else None


def _top1_by_subset(predictions: Predictions, partition: Partition) -> Shares:
    return {subset: _share(predictions.hits(partition.classes_of((subset,)))) for subset in partition.subsets}


def _overall(predictions: Predictions, num_classes: int) -> dict[str, Any]:
    everything = range(num_classes)
    return {
        "top1": predictions.hits(everything).top1,
        "top5": predictions.hits(everything, k=5).top1,
        "test_samples": len(predictions.truth),
        "ece": expected_calibration_error(predictions.logits, predictions.labels),
        "top1_by_class": [_share(predictions.hits((class_id,))) for class_id in everything],
    }


def _on_validation(stage: StageStudent, dataset: Dataset) -> dict[str, Any]:
    """Knobs are chosen by this number, so that the test split has no part in it."""
    hits = predict(stage, dataset, "val").hits(range(dataset.num_classes))
    return {"val_top1": _share(hits), "val_samples": hits.total}


def _agreement(predictions: Predictions, teacher: TeacherEvaluation) -> float | None:
    """Share of the teacher's test images on which the student, among the teacher's classes, names the same."""
    rows = np.isin(predictions.truth, teacher.classes)
    return _share(agreement(predictions.logits[rows], predictions.known, teacher.predicted, teacher.classes))


def _forgetting(partition: Partition, rows: list[Shares]) -> dict[str, Any]:
    matrix = np.array([[row[subset] for subset in partition.subsets] for row in rows], dtype=np.float64)
    return {
        "forgetting": dict(zip(partition.subsets, forgetting(matrix), strict=True)),
        "backward_transfer": backward_transfer(matrix),
    }


def data_facts(dataset: Dataset, partition: Partition) -> dict[str, Any]:
    """What a reader of the numbers must know of the data; lists, because the order of classes and subsets matters."""
    labels = dataset.labels[dataset.sample_ids("test")]
    return {
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        "test_samples_by_class": np.bincount(labels, minlength=dataset.num_classes).tolist(),
        "subsets": [{"name": s, "class_ids": list(partition.classes_of((s,)))} for s in partition.subsets],
    }


def setup_facts(stages: list[StageStudent]) -> dict[str, Any]:
    """What was trained, as the stages' records tell it."""
    knobs = [knobs_as_now(stage.record["knobs"]) for stage in stages]
    last, plans = knobs[-1], [one["plan"] for one in knobs]
    others = {one["plan"]["name"]: one["recipe"] for one in knobs if one["recipe"] != last["recipe"]}
    found = {name: last[name] for name in ("student", "recipe", "views")} | {"stages": plans}
    # Left out where there is none: results of before stay equal byte for byte.
    return found | ({"stage_recipes": others} if others else {})


def _stage_facts(stage: StageStudent, top1_by_subset: Shares, dataset: Dataset) -> dict[str, Any]:
    record, plan = stage.record, stage.record["knobs"]["plan"]
    # Of one that was taken over, by `edpipe adopt`: the record's code is what it was shown to fit.
    adopted = record.get("adopted")
    macs = count_macs(stage.student.cpu(), dataset.channels, stage.image_size)
    return {
        "name": plan["name"],
        "number": plan["number"],
        "top1_by_subset": top1_by_subset,
        "images_seen": record["images_seen"],
        "taught_samples": record["taught_samples"],
        "images_with_teacher": record["images_seen"] if plan["teachers"] or plan.get("trajectory") else 0,
        "final_loss": record["final_loss"],
        "parameters": count_parameters(stage.student),
        "macs": macs,
        "training_macs": record["training_macs_per_image"] * record["images_seen"],
        "soft_labels": record["inputs"]["soft_labels"] + record["inputs"].get("trajectory", []),
        "weights_digest": record["weights_digest"],
        "code": adopted["code"] if adopted else record["code"],
        "versions": record["versions"],
        **({"adopted": adopted} if adopted else {}),
    }
