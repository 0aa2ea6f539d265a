"""The teacher evaluation: JSON that says which class a teacher names on each test image of the classes it knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from edpipe.storage.digests import digest_json
from edpipe.storage.sealed_json import JsonFormat, read_sealed_json, write_sealed_json

FORMAT = JsonFormat("edpipe-teacher-evaluation", 1, "teacher evaluation")


@dataclass(frozen=True)
class TeacherEvaluation:
    """What one teacher was measured to be, and its answers, which students are compared with."""

    teacher: str
    subset: str
    """ "all": every class."""
    class_ids: tuple[int, ...]
    """Classes that it chooses among, ascending."""
    predicted_class_ids: tuple[int, ...]
    """One for each test image of these classes, in the order of their ids."""
    top1: float | None
    """Share of these images, 0 to 1; None: there are none."""
    ece: float | None
    """Expected calibration error, 0 to 1; None: there are no images."""
    inputs: dict[str, str]
    """Digests of dataset, partition (empty for a teacher of all classes) and teacher (its weights)."""

    @property
    def name(self) -> str:
        """What results call the teacher."""
        return f"{self.teacher}/{self.subset}"

    @property
    def classes(self) -> Int64[np.ndarray, " class"]:
        """Classes that it chooses among, as an array."""
        return np.array(self.class_ids, dtype=np.int64)

    @property
    def predicted(self) -> Int64[np.ndarray, " sample"]:
        """Its answers, as an array."""
        return np.array(self.predicted_class_ids, dtype=np.int64)

    def facts(self) -> dict[str, Any]:
        """What a result tells of the teacher."""
        return {"top1": self.top1, "ece": self.ece, "test_samples": len(self.predicted_class_ids)}

    def contents(self) -> dict[str, Any]:
        """All of it but the inputs, as it stands in the file."""
        return {
            **FORMAT.entries,
            "teacher": self.teacher,
            "subset": self.subset,
            "class_ids": list(self.class_ids),
            "predicted_class_ids": list(self.predicted_class_ids),
            **self.facts(),
        }

    @property
    def digest(self) -> str:
        """Of all of it: who reads an evaluation notes this."""
        return digest_json([self.contents(), self.inputs])


def write_teacher_evaluation(path: Path, evaluation: TeacherEvaluation, record: dict[str, Any]) -> None:
    """Writes the evaluation below what every record holds; the file is its own record."""
    total = {"teacher_forwards": len(evaluation.predicted_class_ids)}
    write_sealed_json(path, FORMAT, record | evaluation.contents() | total | {"digest": evaluation.digest})


def read_teacher_evaluation(path: Path) -> TeacherEvaluation:
    """The evaluation, whose inputs the caller holds against what is at hand.

    Raises:
        CorruptFileError: missing, no teacher evaluation, of another version, or altered.
    """
    return read_sealed_json(path, FORMAT, _parse)


def _parse(contents: dict[str, Any]) -> TeacherEvaluation:
    inputs, known, predicted = contents["inputs"], _ids(contents["class_ids"]), _ids(contents["predicted_class_ids"])
    if not set(predicted) <= set(known):
        raise ValueError(f"it names class {min(set(predicted) - set(known))}, which it does not know")
    return TeacherEvaluation(
        teacher=str(contents["teacher"]),
        subset=str(contents["subset"]),
        class_ids=known,
        predicted_class_ids=predicted,
        top1=_share(contents["top1"]),
        ece=_share(contents["ece"]),
        inputs={name: str(inputs[name]) for name in ("dataset", "partition", "teacher")},
    )


def _ids(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _share(value: Any) -> float | None:
    return None if value is None else float(value)
