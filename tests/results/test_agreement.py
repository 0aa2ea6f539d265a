"""How often student and teacher name the same class, counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.results.measures.agreement import agreement
from edpipe.results.measures.metrics import Hits

EVERY = np.arange(4)


def logits_of(*favourites):
    """Four classes; each image's favourites come in this order, the others last."""
    rows = np.zeros((len(favourites), 4))
    for row, names in zip(rows, favourites, strict=True):
        row[list(names)] = np.arange(len(names), 0, -1)
    return rows


def test_a_full_teacher_by_hand():
    student = logits_of((0,), (1,), (2,), (3,), (3,))
    assert agreement(student, EVERY, np.array([0, 1, 1, 3, 2]), EVERY) == Hits(3, 5)


def test_beside_a_specialist_the_student_chooses_among_its_classes():
    # First of all classes 3, 0, 2, 1; among 1 and 2: 2, 1, 2, 1.
    student = logits_of((3, 2, 1), (0, 1, 2), (2, 1), (1, 2))
    assert agreement(student, EVERY, np.array([2, 1, 1, 1]), np.array([1, 2])) == Hits(3, 4)


def test_columns_are_found_by_class_and_not_by_place():
    student = logits_of((2,), (3,))
    known = np.array([1, 4, 6, 9])
    assert agreement(student, known, np.array([6, 9]), np.array([6, 9])) == Hits(2, 2)
    assert agreement(student, known, np.array([9, 6]), np.array([6, 9])) == Hits(0, 2)


def test_of_equal_logits_the_lower_class_is_named():
    assert agreement(np.zeros((3, 4)), EVERY, np.array([1, 2, 3]), np.array([1, 2, 3])) == Hits(1, 3)


def test_no_image_is_no_hit():
    assert agreement(np.zeros((0, 4)), EVERY, np.zeros(0, dtype=np.int64), np.array([1, 2])) == Hits(0, 0)


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_it_is_the_share_of_equal_argmax_within_the_teachers_classes(num_samples, seed):
    rng = np.random.default_rng(seed)
    student, classes = rng.normal(size=(num_samples, 7)), np.sort(rng.choice(7, rng.integers(1, 8), replace=False))
    predicted = rng.choice(classes, num_samples)
    named = classes[student[:, classes].argmax(axis=1)]
    assert agreement(student, np.arange(7), predicted, classes) == Hits(int((named == predicted).sum()), num_samples)


@pytest.mark.parametrize(
    ("known", "predicted", "classes", "message"),
    [
        ([0, 1, 2, 3], [4], [3, 4], "the student must know the teacher's classes, got class 4, which is not among"),
        ([0, 1, 2, 3], [0], [1, 2], "the teacher names classes that it knows, got class 0, which is not among"),
    ],
)
def test_classes_that_do_not_belong_together_are_refused(known, predicted, classes, message):
    with pytest.raises(ValueError, match=f"^{message} "):
        agreement(np.zeros((1, 4)), *map(np.array, (known, predicted, classes)))


def test_a_logit_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        agreement(np.full((1, 4), np.nan), EVERY, np.array([0]), EVERY)
