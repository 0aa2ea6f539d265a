"""How often a student names the class that its teacher names (fidelity, Stanton et al. 2021); NumPy only."""

import numpy as np
from jaxtyping import Float, Int64

from edpipe.results.measures.metrics import Hits, top_k_hits


def agreement(
    logits: Float[np.ndarray, "sample class"],
    known: Int64[np.ndarray, " class"],
    predicted: Int64[np.ndarray, " sample"],
    teacher_classes: Int64[np.ndarray, " teacher_class"],
) -> Hits:
    """Samples whose largest logit, among the teacher's classes, is of the class that the teacher named; out of all.

    Args:
        logits: of the student.
        known: class ids of its columns, ascending.
        predicted: class ids that the teacher named for the same samples.
        teacher_classes: class ids that it chose among, ascending; the student knows them all.

    Raises:
        ValueError: the student lacks a class of the teacher's, the teacher named one that it does not know, or a logit
            is NaN.

    >>> student = np.array([[0.1, 0.3, 0.6], [0.5, 0.4, 0.1]])
    >>> agreement(student, np.arange(3), np.array([1, 1]), np.array([0, 1]))  # 2 is none of the teacher's classes
    Hits(correct=1, total=2)
    """
    _check_within("the student must know the teacher's classes", teacher_classes, known)
    _check_within("the teacher names classes that it knows", predicted, teacher_classes)
    columns = np.searchsorted(known, teacher_classes)
    return top_k_hits(logits[:, columns], np.searchsorted(teacher_classes, predicted).astype(np.int64), k=1)


def _check_within(rule: str, part: Int64[np.ndarray, " some"], whole: Int64[np.ndarray, " any"]) -> None:
    lacking = np.setdiff1d(part, whole)
    if len(lacking):
        raise ValueError(f"{rule}, got class {lacking[0]}, which is not among {whole.tolist()}")
