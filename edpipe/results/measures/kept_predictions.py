"""What an evaluation keeps of each test image: the class that the last student names, and how sure it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from edpipe.errors import CorruptFileError, remake

KEY = "predictions"
DIGITS = 4
"""Decimals of a confidence: what comes after depends on the order in which a machine adds."""


@dataclass(frozen=True)
class KeptPredictions:
    """Of the test images whose classes the student knows, in the order of their ids."""

    class_ids: Int64[np.ndarray, " sample"]
    """The class that comes first."""
    confidences: Float64[np.ndarray, " sample"]
    """Its probability, 0 to 1, to four decimals."""


def kept(logits: Float[np.ndarray, "sample class"], known: Int64[np.ndarray, " class"]) -> dict[str, Any]:
    """What stands in the evaluation; `known` are the class ids of the columns."""
    scores = logits.astype(np.float64)
    if len(scores) == 0:
        return {"class_ids": [], "confidences": []}
    # The largest probability is 1 / Σ exp(logit - largest logit).
    confidences = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    return {
        "class_ids": known[scores.argmax(axis=1)].tolist(),
        "confidences": np.round(confidences, DIGITS).tolist(),
    }


def read_predictions(path: Path, evaluation: Mapping[str, Any]) -> KeptPredictions:
    """Of an evaluation whose seal was compared.

    Raises:
        CorruptFileError: it has none, or no numbers, or not as many of both.
    """
    try:
        entry = evaluation[KEY]
        class_ids = np.array(entry["class_ids"], dtype=np.int64)
        confidences = np.array(entry["confidences"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{path}: has no predictions of test images, as evaluations of edpipe before 0.1 have none; {remake(path)}"
        ) from error
    if class_ids.shape != confidences.shape or class_ids.ndim != 1:
        raise CorruptFileError(
            f"{path}: predictions: {class_ids.shape} classes and {confidences.shape} confidences, must be lists of one "
            f"length; {remake(path)}"
        )
    return KeptPredictions(class_ids, confidences)
