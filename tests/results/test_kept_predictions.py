"""What an evaluation keeps of each test image."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from edpipe.errors import CorruptFileError
from edpipe.results.measures.kept_predictions import kept, read_predictions

KNOWN = np.array([2, 5, 7], dtype=np.int64)
PATH = Path("artifacts/evaluations/digits_ed/seed0.json")


def test_by_hand():
    logits = np.log(np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]], dtype=np.float32))
    assert kept(logits, KNOWN) == {"class_ids": [5, 2], "confidences": [0.5, 0.9]}


def test_of_equal_logits_the_lower_class_comes_first():
    assert kept(np.zeros((1, 3), dtype=np.float32), KNOWN) == {"class_ids": [2], "confidences": [0.3333]}


def test_without_images_there_is_nothing():
    assert kept(np.empty((0, 3), dtype=np.float32), KNOWN) == {"class_ids": [], "confidences": []}


@given(arrays(np.float32, (6, 3), elements=st.floats(-100, 100, width=32)))
def test_confidences_are_those_of_scipy(logits):
    found = kept(logits, KNOWN)
    assert np.allclose(found["confidences"], softmax(logits.astype(np.float64), axis=1).max(axis=1), atol=5.1e-5)
    assert found["class_ids"] == KNOWN[logits.argmax(axis=1)].tolist()


def test_what_is_kept_is_read_again():
    logits = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    found = read_predictions(PATH, {"predictions": kept(logits, KNOWN)})
    assert found.class_ids.tolist() == KNOWN[logits.argmax(axis=1)].tolist()
    assert found.confidences.tolist() == kept(logits, KNOWN)["confidences"]


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({}, r"has no predictions of test images, as evaluations of edpipe before 0\.1 have none; make it again with"),
        ({"predictions": [1]}, "has no predictions"),
        ({"predictions": {"class_ids": ["x"], "confidences": [0.5]}}, "has no predictions"),
        (
            {"predictions": {"class_ids": [1, 2], "confidences": [0.5]}},
            r"predictions: \(2,\) classes and \(1,\) confid",
        ),
        ({"predictions": {"class_ids": [[1]], "confidences": [[0.5]]}}, "must be lists of one length"),
    ],
)
def test_others_are_refused(evaluation, words):
    with pytest.raises(CorruptFileError, match=words):
        read_predictions(PATH, evaluation)
