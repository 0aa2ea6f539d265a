"""Forgetting and backward transfer by hand and by their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.results.measures.forgetting import backward_transfer, forgetting

NAN = float("nan")
# Three stages: subset 1 was best after stage 2.
SCHOOL = np.array([[0.8, NAN, NAN], [0.9, 0.7, NAN], [0.5, 0.75, 0.6]])


def test_forgetting_by_hand():
    lost = forgetting(SCHOOL)
    assert lost[:2] == pytest.approx([0.4, -0.05])
    assert lost[2] is None


def test_backward_transfer_by_hand():
    assert backward_transfer(SCHOOL) == pytest.approx(((0.5 - 0.8) + (0.75 - 0.7)) / 2)


@st.composite
def schools(draw):
    """Matrices of 1 to 5 stages, one subset introduced by each."""
    n = draw(st.integers(1, 5))
    return np.array([[draw(st.floats(0, 1)) if j <= i else NAN for j in range(n)] for i in range(n)])


@given(schools())
def test_numbers_are_those_of_the_definitions(matrix):
    n = len(matrix)
    expected = [max(matrix[i, j] for i in range(j, n - 1)) - matrix[-1, j] for j in range(n - 1)]
    assert forgetting(matrix) == [*expected, None]
    gains = [matrix[-1, j] - matrix[j, j] for j in range(n - 1)]
    assert backward_transfer(matrix) == (pytest.approx(sum(gains) / len(gains)) if gains else None)


@given(schools())
def test_forgetting_is_at_least_what_was_lost_since_first_taught(matrix):
    transfer = backward_transfer(matrix)
    if transfer is not None:
        lost = [value for value in forgetting(matrix) if value is not None]
        assert np.mean(lost) >= -transfer - 1e-12


def test_one_stage_forgets_nothing():
    matrix = np.array([[0.5, 0.6, 0.7]])
    assert forgetting(matrix) == [None, None, None]
    assert backward_transfer(matrix) is None


def test_subset_that_was_never_taught_does_not_count():
    matrix = np.array([[0.5, NAN], [0.4, NAN]])
    assert forgetting(matrix) == [pytest.approx(0.1), None]
    assert backward_transfer(matrix) == pytest.approx(-0.1)


def test_no_stage_is_refused():
    for measure in (forgetting, backward_transfer):
        with pytest.raises(ValueError, match="the matrix of top1 needs a row for each stage, got none"):
            measure(np.empty((0, 2)))
