"""Counts over single test images, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.results.measures.kept_predictions import KeptPredictions
from edpipe.results.measures.metrics import expected_calibration_error
from edpipe.results.page.answers import Answers

LABELS = [0, 0, 1, 1, 2]


def seed(named, confidences):
    return KeptPredictions(np.array(named, dtype=np.int64), np.array(confidences, dtype=np.float64))


def answers(teacher=None, labels=LABELS):
    """Two seeds, three classes; both are wrong on image 3, and say 2 and 0 there."""
    return Answers(
        np.arange(10, 10 + len(labels)),
        np.array(labels, dtype=np.int64),
        (seed([0, 1, 1, 2, 2], [0.9, 0.6, 0.8, 0.7, 1.0]), seed([0, 0, 1, 0, 2], [0.7, 0.4, 0.6, 0.5, 0.8])),
        3,
        "" if teacher is None else "t/all",
        None if teacher is None else np.array(teacher, dtype=np.int64),
    )


def test_confusion_by_hand():
    assert answers().confusion.tolist() == [[0.75, 0.25, 0.0], [0.25, 0.5, 0.25], [0.0, 0.0, 1.0]]


def test_pairs_that_are_confused_stand_in_order_and_end_where_there_are_none():
    found = answers([0, 1, 1, 1, 2]).confusions(10)
    assert [(one.label, one.named, one.share, one.teacher_share) for one in found] == [
        (0, 1, 0.25, 0.5),
        (1, 0, 0.25, 0.0),
        (1, 2, 0.25, 0.0),
    ]
    assert len(answers().confusions(2)) == 2
    assert answers().confusions(1)[0].teacher_share is None


def test_a_class_without_images_is_no_confusion():
    found = answers(labels=[0, 0, 1, 1, 1])
    assert np.isnan(found.confusion[2]).all()
    assert all(one.label != 2 for one in found.confusions(10))


def test_beside_the_teacher_by_hand():
    # The teacher errs on images 1 and 2; seed 0 on 1 and 3, seed 1 on 3.
    found = answers([0, 1, 0, 1, 2]).beside_teacher()
    assert found == {"both": 0.4, "student": 0.3, "teacher": 0.2, "neither": 0.1}
    assert answers().beside_teacher() == {}


def test_images_that_every_seed_gets_wrong():
    assert answers().always_wrong().tolist() == [False, False, False, True, False]


def test_of_equally_many_seeds_the_lower_class_is_named():
    assert answers().most_named.tolist() == [0, 0, 1, 0, 2]


def test_disputed_images_begin_with_the_surest():
    everything = np.ones(5, dtype=bool)
    found = answers([0, 0, 0, 1, 2]).disputed(everything, 3)
    assert [(one.sample_id, one.label, one.named, one.teacher_named) for one in found] == [
        (14, 2, 2, 2),
        (10, 0, 0, 0),
        (12, 1, 1, 0),
    ]
    assert [one.confidence for one in found] == pytest.approx([0.9, 0.8, 0.7])


def test_students_and_teacher_differ_where_most_seeds_do():
    assert answers([0, 1, 1, 0, 1]).differing().tolist() == [False, True, False, False, True]
    assert not answers().differing().any()


def test_bins_by_hand():
    found = {round(one["low"] * 15): one for one in answers().bins()}
    # 0.4 is closed above: bin 6 of 15 ends at 0.4; 0.6 ends bin 9, 0.8 ends bin 12.
    assert {k: one["images"] for k, one in found.items()} == {5: 1, 7: 1, 8: 2, 10: 2, 11: 2, 13: 1, 14: 1}
    assert (found[8]["top1"], found[8]["confidence"]) == (0.5, pytest.approx(0.6))


@given(st.integers(0, 2**32 - 1))
def test_bins_give_the_calibration_error(number):
    draw = np.random.default_rng(number)
    logits, labels = draw.normal(size=(50, 3)) * 3, draw.integers(0, 3, 50)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    one = seed(logits.argmax(axis=1), probabilities.max(axis=1))
    bins = Answers(np.arange(50), labels, (one,), 3).bins()
    gap = sum(b["images"] * abs(b["top1"] - b["confidence"]) for b in bins) / 50
    assert gap == pytest.approx(expected_calibration_error(logits, labels))
    assert sum(b["images"] for b in bins) == 50
