"""What the last students of all seeds say of each test image, beside the labels and beside a teacher."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from edpipe.datasets.dataset_file import Dataset
from edpipe.datasets.partition import Partition
from edpipe.errors import MismatchError, remake
from edpipe.results.measures.kept_predictions import KeptPredictions, read_predictions
from edpipe.results.measures.teacher_evaluation import TeacherEvaluation, read_teacher_evaluation
from edpipe.results.page.files import PageFiles
from edpipe.results.result_file import Result
from edpipe.storage.records import read_record, seal_of

NUM_BINS = 15
"""Of confidence, as in the calibration error."""


@dataclass(frozen=True)
class Confusion:
    """One class that is taken for another."""

    label: int
    named: int
    share: float
    """Of the test images of the label, over all seeds, 0 to 1."""
    teacher_share: float | None
    """The same of the teacher; None: no teacher knows all classes."""


@dataclass(frozen=True)
class Disputed:
    """One test image on which the students err, or differ from the teacher."""

    sample_id: int
    label: int
    named: int
    """Class that most seeds name."""
    confidence: float
    """Mean over the seeds, each of the class that it names."""
    teacher_named: int | None


@dataclass(frozen=True)
class Answers:
    """Classes by number; a row for each test image."""

    sample_ids: Int64[np.ndarray, " sample"]
    labels: Int64[np.ndarray, " sample"]
    seeds: tuple[KeptPredictions, ...]
    num_classes: int
    teacher: str = ""
    """Of the first teacher that knows all classes; empty: there is none."""
    teacher_named: Int64[np.ndarray, " sample"] | None = None

    @cached_property
    def named(self) -> Int64[np.ndarray, "seed sample"]:
        """The class that each seed names."""
        return np.stack([seed.class_ids for seed in self.seeds])

    @cached_property
    def confidences(self) -> Float64[np.ndarray, "seed sample"]:
        """How sure each seed is of it."""
        return np.stack([seed.confidences for seed in self.seeds])

    @cached_property
    def most_named(self) -> Int64[np.ndarray, " sample"]:
        """The class that most seeds name; of equally many the lower one."""
        from scipy.stats import mode  # here, since it takes half a second

        return mode(self.named, axis=0).mode.astype(np.int64)

    @cached_property
    def confusion(self) -> Float64[np.ndarray, "label named"]:
        """Share of each label's images that a class is named for, over all seeds; rows sum to 1, or are NaN."""
        return self._shares(np.concatenate(self.named), np.tile(self.labels, len(self.seeds)))

    @cached_property
    def teacher_confusion(self) -> Float64[np.ndarray, "label named"] | None:
        """The same of the teacher."""
        return None if self.teacher_named is None else self._shares(self.teacher_named, self.labels)

    def _shares(
        self, named: Int64[np.ndarray, " answer"], labels: Int64[np.ndarray, " answer"]
    ) -> Float64[np.ndarray, "label named"]:
        counts = np.zeros((self.num_classes, self.num_classes))
        np.add.at(counts, (labels, named), 1)
        with np.errstate(invalid="ignore"):
            return counts / counts.sum(axis=1, keepdims=True)

    def confusions(self, number: int) -> list[Confusion]:
        """The pairs of classes that are confused most often, the worst first."""
        shares, teacher = np.nan_to_num(self.confusion), self.teacher_confusion
        np.fill_diagonal(shares, 0)
        order = np.argsort(-shares, axis=None, kind="stable")[:number]
        pairs = [(int(flat // self.num_classes), int(flat % self.num_classes)) for flat in order]
        return [
            Confusion(a, b, float(shares[a, b]), None if teacher is None else float(teacher[a, b]))
            for a, b in pairs
            if shares[a, b] > 0
        ]

    def beside_teacher(self) -> dict[str, float]:
        """Shares of test images, over all seeds: both are right, the student alone, the teacher alone, neither."""
        if self.teacher_named is None:
            return {}
        student, teacher = (
            self.named == self.labels,
            np.broadcast_to(self.teacher_named == self.labels, self.named.shape),
        )
        cells = {"both": student & teacher, "student": student & ~teacher, "teacher": ~student & teacher}
        return {name: float(cell.mean()) for name, cell in (cells | {"neither": ~student & ~teacher}).items()}

    def always_wrong(self) -> Bool[np.ndarray, " sample"]:
        """Test images that every seed gets wrong."""
        return (self.named != self.labels).all(axis=0)

    def disputed(self, chosen: Bool[np.ndarray, " sample"], number: int) -> list[Disputed]:
        """Of the chosen images, those of which the students are surest."""
        sureness = self.confidences.mean(axis=0)
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(-sureness[rows], kind="stable")][:number]
        teacher = self.teacher_named
        return [
            Disputed(
                int(self.sample_ids[row]),
                int(self.labels[row]),
                int(self.most_named[row]),
                float(sureness[row]),
                None if teacher is None else int(teacher[row]),
            )
            for row in rows
        ]

    def differing(self) -> Bool[np.ndarray, " sample"]:
        """Test images for which most seeds name another class than the teacher; none without a teacher."""
        if self.teacher_named is None:
            return np.zeros(len(self.labels), dtype=bool)
        return self.most_named != self.teacher_named

    def bins(self) -> list[dict[str, float]]:
        """Bins of confidence that are not empty, over all seeds: low, high, confidence, top1 (means), images."""
        confidences, right = self.confidences.ravel(), (self.named == self.labels).ravel()
        numbers = np.clip(np.ceil(confidences * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
        found = []
        for number in sorted(Counter(numbers.tolist())):
            inside = numbers == number
            facts = {"low": number / NUM_BINS, "high": (number + 1) / NUM_BINS}
            facts |= {"confidence": float(confidences[inside].mean()), "top1": float(right[inside].mean())}
            found.append(facts | {"images": int(inside.sum())})
        return found


def read_answers(result: Result, dataset: Dataset, partition: Partition, files: PageFiles) -> Answers:
    """The answers of all seeds of a result.

    Raises:
        CorruptFileError: an evaluation is damaged, or has no predictions.
        MismatchError: an evaluation is not the one that the result was made from, or not of these images; a teacher
            is not one that it was held against.
    """
    known = partition.classes_of(result.setup.stages[-1].known)
    sample_ids = dataset.sample_ids("test", known).astype(np.int64)
    if len(files.evaluations) != len(result.inputs.evaluations):
        raise MismatchError(
            f"{files.result}: has {len(result.inputs.evaluations)} seeds, asked for are {len(files.evaluations)}; "
            f"{remake(files.result, act='make the result again')}"
        )
    seeds, teachers = [], {}
    for path, seal in zip(files.evaluations, result.inputs.evaluations, strict=True):
        record = _evaluation(path, seal)
        seeds.append(_fitting(path, read_predictions(path, record), len(sample_ids), dataset.num_classes))
        teachers = _teachers(path, record["inputs"]["teacher_evaluations"], files.teacher_evaluations)
    found = Answers(sample_ids, dataset.labels[sample_ids].astype(np.int64), tuple(seeds), dataset.num_classes)
    knowing = [teacher for teacher in teachers.values() if teacher.class_ids == known]
    return replace(found, teacher=knowing[0].name, teacher_named=knowing[0].predicted) if knowing else found


def _evaluation(path: Path, seal: str) -> dict[str, Any]:
    record = read_record(path)
    if seal_of(record) != seal:
        remedy = remake(path, act="make the result again")
        raise MismatchError(f"{path}: is {seal_of(record)}, the result was made from {seal}; {remedy}")
    return record


def _teachers(path: Path, digests: Sequence[str], teacher_paths: Sequence[Path]) -> dict[Path, TeacherEvaluation]:
    found = {teacher_path: read_teacher_evaluation(teacher_path) for teacher_path in teacher_paths}
    for teacher_path, teacher in found.items():
        if teacher.digest not in digests:
            raise MismatchError(
                f"{teacher_path}: is {teacher.digest}, {path} was measured beside {', '.join(digests) or 'none'}; "
                f"{remake(path)}"
            )
    return found


def _fitting(path: Path, found: KeptPredictions, num_images: int, num_classes: int) -> KeptPredictions:
    named = found.class_ids
    if len(named) != num_images or not ((named >= 0) & (named < num_classes)).all():
        raise MismatchError(
            f"{path}: has predictions of {len(named)} test images, the dataset has {num_images} of {num_classes} "
            f"classes; {remake(path)}"
        )
    return found
