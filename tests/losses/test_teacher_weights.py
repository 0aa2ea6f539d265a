"""Panels of teachers: the weights of each rule against oracles, and the sum that is trained on."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.svm import OneClassSVM

from edpipe.losses.kd import kd_loss
from edpipe.losses.teacher_weights import _shortest_sum, teacher_weights

torch.set_num_threads(1)
RULES = ("aver", "ebkd", "aekd", "ca_mkd")
CAP = 0.6
SHAPES = st.tuples(st.integers(0, 9999), st.integers(2, 5), st.integers(1, 4), st.integers(2, 6), st.floats(0.5, 20))


def teacher_weighting(shape):
    """Student, teachers and labels; teachers are to the student, and to each other, as different as the seed wants."""
    seed, num_teachers, samples, classes, _ = shape
    rng = np.random.default_rng(seed)
    student, teachers = rng.normal(0, 3, (samples, classes)), rng.normal(0, 3, (num_teachers, samples, classes))
    teachers += rng.normal(0, 3, (samples, classes)) * rng.integers(0, 2)
    return student, teachers, rng.integers(0, classes, samples)


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def softmax(logits, axis=-1):
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def gradients(student, teachers, temperature):
    """Of each teacher's kd loss by autograd, averaged over the batch as in the AE-KD code: (teacher, class)."""
    student = torch.from_numpy(student).requires_grad_()
    losses = [kd_loss(student, teacher, temperature).mean() for teacher in torch.from_numpy(teachers)]
    return np.stack([torch.autograd.grad(loss, student)[0].numpy().mean(axis=0) for loss in losses])


def one_class_svm(gram):
    """The reference: weights of the one-class SVM with the authors' ν, which bounds each by 0.6 (or 1 / K).

    Slow, and no better than float32, where vectors depend on each other.
    """
    num_teachers = len(gram)
    nu = min(1, 1 / (CAP * num_teachers))
    svm = OneClassSVM(kernel="precomputed", nu=nu, tol=1e-6).fit(gram / np.trace(gram))
    weights = np.zeros(num_teachers)
    weights[svm.support_] = svm.dual_coef_[0] / (num_teachers * nu)
    return weights


def how_far_from_the_minimum(gram, weights):
    """What moving weight from one teacher to another could still gain, in parts of the mean squared gradient.

    0 exactly at the minimum of the convex problem: Lagrange's conditions for a sum and bounds.
    """
    slope = gram @ weights / (np.trace(gram) / len(gram))
    can_give, can_take = slope[weights > 0], slope[weights < CAP]
    return max(0.0, can_give.max() - can_take.min())


@settings(deadline=None)
@given(SHAPES, st.sampled_from(RULES), st.sampled_from([torch.float32, torch.float64]))
def test_the_weights_of_a_sample_add_up_to_1(shape, rule, dtype):
    student, teachers, labels = tensors(*teacher_weighting(shape))
    weights = teacher_weights(rule, student.to(dtype), teachers.to(dtype), labels, shape[4])
    assert weights.shape == teachers.shape[:2]
    assert weights.dtype == dtype
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(shape[2], dtype=dtype), rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(SHAPES)
def test_weights_by_average_entropy_and_confidence_are_the_formulas(shape):
    student, teachers, labels = teacher_weighting(shape)
    probs, num_teachers = softmax(teachers), len(teachers)
    entropies = -(probs * np.log(probs)).sum(axis=2)
    cross_entropies = -np.log(probs[:, np.arange(len(labels)), labels])
    for rule, expected in (
        ("aver", np.full(entropies.shape, 1 / num_teachers)),
        ("ebkd", (1 - entropies / entropies.sum(axis=0)) / (num_teachers - 1)),
        ("ca_mkd", (1 - softmax(cross_entropies, axis=0)) / (num_teachers - 1)),
    ):
        weights = teacher_weights(rule, *tensors(student, teachers, labels), shape[4])
        np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_two_teachers_are_weighed_by_hand():
    # Probabilities of two classes: (1/2, 1/2) and (3/4, 1/4); the label is the first.
    teachers, student, label = torch.tensor([[[1.0, 1.0]], [[3.0, 1.0]]]).log(), torch.zeros(1, 2), torch.tensor([0])
    entropies = [math.log(2), 0.25 * math.log(4) + 0.75 * math.log(4 / 3)]
    for rule, expected in (
        ("aver", [0.5, 0.5]),
        ("ebkd", [entropies[1] / sum(entropies), entropies[0] / sum(entropies)]),
        # exp(-log p) is 1/p: 2 against 4/3, so softmax gives 3/5 and 2/5 of the blame.
        ("ca_mkd", [0.4, 0.6]),
        # The student says what the first teacher says: its gradient is 0, and the bound alone leaves the second some.
        ("aekd", [0.6, 0.4]),
    ):
        weights = teacher_weights(rule, student, teachers, label, 4.0)
        assert weights.shape == (2, 1)
        assert weights[:, 0].tolist() == pytest.approx(expected), rule


@settings(deadline=None)
@given(st.integers(0, 9999), st.integers(1, 4), st.integers(2, 6), st.floats(0.5, 20))
def test_aekd_of_two_teachers_is_the_formula(seed, samples, classes, temperature):
    # Where the line through both gradients is next to 0, held between 0.4 and 0.6.
    student, teachers, labels = teacher_weighting((seed, 2, samples, classes, temperature))
    first, second = gradients(student, teachers, temperature)
    between = second - first
    assume(between @ between > 1e-3 * (first @ first + second @ second))  # else the ridge has its say
    expected = np.clip(second @ between / (between @ between), 1 - CAP, CAP)
    weights = teacher_weights("aekd", *tensors(student, teachers, labels), temperature)[:, 0].tolist()
    assert weights == pytest.approx([expected, 1 - expected], abs=1e-4)


def test_teachers_that_are_all_certain_share_equally():
    teachers = torch.tensor([[[1000.0, 0.0]], [[0.0, 1000.0]], [[1000.0, 0.0]]])
    weights = teacher_weights("ebkd", torch.zeros(1, 2), teachers, torch.tensor([0]), 1.0)
    torch.testing.assert_close(weights, torch.full((3, 1), 1 / 3))


# The shortest sum of gradients


@settings(deadline=None)
@given(SHAPES)
def test_aekd_has_the_shortest_sum_of_the_kd_losses_gradients(shape):
    student, teachers, labels = teacher_weighting(shape)
    vectors = gradients(student, teachers, shape[4])
    weights = teacher_weights("aekd", *tensors(student, teachers, labels), shape[4]).numpy()
    assert (weights == weights[:, :1]).all()
    weights = weights[:, 0]
    assert weights.max() <= CAP
    assert how_far_from_the_minimum(vectors @ vectors.T, weights) < 1e-7


@settings(deadline=None)
@given(st.integers(0, 9999), st.integers(2, 10), st.integers(1, 40), st.sampled_from([0.0, 1e-9, 1e-5, 1.0]))
@example(0, 10, 1, 1.0)
@example(0, 10, 40, 1.0)
@example(0, 10, 40, 0.0)
def test_the_shortest_sum_is_exact_for_any_vectors(seed, num_teachers, length, difference):
    """`difference`: how far the other vectors are from the first."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(rng.integers(-1, 2), 1, (num_teachers, length)) * rng.choice([0.1, 1, 10], (num_teachers, 1))
    vectors = vectors[:1] + difference * (vectors - vectors[:1])
    gram = vectors @ vectors.T
    weights = _shortest_sum(torch.from_numpy(gram)).numpy()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights.min() >= 0
    assert weights.max() <= CAP
    assert how_far_from_the_minimum(gram, weights) < 1e-6
    assert np.array_equal(weights, _shortest_sum(torch.from_numpy(gram)).numpy())


@settings(deadline=None)
@given(st.integers(0, 9999), st.integers(2, 6))
def test_weights_are_those_of_the_one_class_svm(seed, num_teachers):
    vectors = np.random.default_rng(seed).normal(1, 1, (num_teachers, 30))
    gram = vectors @ vectors.T
    ours = _shortest_sum(torch.from_numpy(gram)).numpy()
    np.testing.assert_allclose(ours, one_class_svm(gram), atol=1e-4)


def test_gradients_are_averaged_over_the_batch_before_they_are_weighed():
    # The student gives both classes 1/2. The first teacher is wrong once to each side: its gradients of (-1/2, 1/2) and
    # (1/2, -1/2) are long, their mean is 0, and the shortest sum has as much of it as the bound allows.
    teachers = torch.tensor([[[50.0, 0.0], [0.0, 50.0]], [[1.0, 0.0], [1.0, 0.0]]])
    weights = teacher_weights("aekd", torch.zeros(2, 2), teachers, torch.tensor([0, 0]), 1.0)
    assert weights[:, 0].tolist() == pytest.approx([CAP, 1 - CAP])


@settings(deadline=None)
@given(SHAPES)
def test_aekd_is_the_one_class_svm_of_the_codes(shape):
    student, teachers, labels = teacher_weighting(shape)
    vectors = gradients(student, teachers, shape[4])
    assume(np.linalg.cond(vectors @ vectors.T) < 1e3)
    weights = teacher_weights("aekd", *tensors(student, teachers, labels), shape[4])[:, 0].numpy()
    np.testing.assert_allclose(weights, one_class_svm(vectors @ vectors.T), atol=1e-3)


def test_three_weights_are_the_best_of_a_fine_grid():
    steps = np.arange(121) / 200
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if -1e-9 <= 1 - a - b <= CAP + 1e-9])
    for seed in range(20):
        vectors = np.random.default_rng(seed).normal(0.5, 1, (3, 4))
        best = grid[np.linalg.norm(grid @ vectors, axis=1).argmin()]
        weights = _shortest_sum(torch.from_numpy(vectors @ vectors.T)).numpy()
        assert np.linalg.norm(weights @ vectors) <= np.linalg.norm(best @ vectors) + 1e-12
        assert np.linalg.norm((weights - best) @ vectors) < 0.05


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5]),
        ([[1.0, 0.0], [-2.0, 0.0]], [0.6, 0.4]),  # 2/3 and 1/3 would cancel, but the bound comes first
        ([[1.0, 0.0], [-1.25, 0.0]], [5 / 9, 4 / 9]),
        ([[1.0, 0.0], [3.0, 0.0]], [0.6, 0.4]),
        ([[3.0, 0.0], [1.0, 0.0]], [0.4, 0.6]),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [1 / 3, 1 / 3, 1 / 3]),
        ([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]], [0.5, 0.5, 0.0]),
        ([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0]], [0.25, 0.25, 0.25, 0.25]),
        ([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [1 / 3, 1 / 3, 1 / 3]),
        ([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0.25, 0.25, 0.5]),
    ],
)
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_shortest_sums_by_hand_whatever_the_unit(vectors, expected, scale):
    rows = torch.tensor(vectors, dtype=torch.float64) * scale
    assert _shortest_sum(rows @ rows.T).tolist() == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(SHAPES)
def test_teachers_that_agree_share_their_weight(shape):
    student, teachers, labels = tensors(*teacher_weighting(shape))
    doubled = torch.cat([teachers, teachers[:1]])
    weights = teacher_weights("aekd", student, doubled, labels, shape[4])[:, 0]
    assert weights[0].item() == pytest.approx(weights[-1].item(), abs=1e-4)


def test_gradients_that_are_no_numbers_stop_nothing():
    teachers = torch.zeros(3, 2, 4)
    weights = teacher_weights("aekd", torch.full((2, 4), math.nan), teachers, torch.tensor([0, 1]), 4.0)
    torch.testing.assert_close(weights, torch.full((3, 2), 1 / 3))


# All rules


@settings(deadline=None)
@given(SHAPES, st.sampled_from(RULES), st.data())
def test_rules_know_no_order_of_teachers(shape, rule, data):
    student, teachers, labels = tensors(*teacher_weighting(shape))
    order = torch.tensor(data.draw(st.permutations(range(len(teachers)))))
    if rule == "aekd":  # where several weights are as good, the ridge decides between them to fewer digits
        vectors = gradients(student.numpy(), teachers.numpy(), shape[4])
        assume(np.linalg.cond(vectors @ vectors.T) < 1e6)
    before = teacher_weights(rule, student, teachers, labels, shape[4])
    after = teacher_weights(rule, student, teachers[order], labels, shape[4])
    torch.testing.assert_close(before[order], after, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_one_teacher_counts_fully(rule, dtype):
    student, teachers, labels = tensors(*teacher_weighting((0, 1, 5, 7, 4.0)))
    student, teachers = student.to(dtype).requires_grad_(), teachers.to(dtype)
    weights = teacher_weights(rule, student, teachers, labels, 4.0)
    assert weights.tolist() == [[1.0] * 5]


@pytest.mark.parametrize("rule", RULES)
def test_no_gradient_flows_through_the_weights(rule):
    student, teachers, labels = tensors(*teacher_weighting((0, 3, 4, 5, 4.0)))
    student.requires_grad_()
    teachers.requires_grad_()
    weights = teacher_weights(rule, student, teachers, labels, 4.0)
    assert not weights.requires_grad


@settings(deadline=None)
@given(SHAPES, st.sampled_from(RULES))
def test_equal_teachers_weigh_the_same(shape, rule):
    student, teachers, labels = tensors(*teacher_weighting(shape))
    equal = teachers[:1].expand(shape[1], -1, -1)
    weights = teacher_weights(rule, student, equal, labels, shape[4])
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / shape[1]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_weighed_in_float32(rule, dtype):
    student, teachers, labels = tensors(*teacher_weighting((0, 3, 4, 50, 4.0)))
    student, teachers = student.to(dtype), teachers.to(dtype)
    weights = teacher_weights(rule, student, teachers, labels, 4.0)
    assert torch.equal(weights, teacher_weights(rule, student.float(), teachers.float(), labels, 4.0))


@pytest.mark.parametrize("rule", RULES)
def test_an_empty_share_of_a_batch_has_no_weights(rule):
    student, teachers, labels = torch.zeros(0, 5), torch.zeros(3, 0, 5), torch.zeros(0, dtype=torch.int64)
    weights = teacher_weights(rule, student, teachers, labels, 4.0)
    assert weights.shape == (3, 0)


def test_an_unknown_rule_is_refused():
    unchecked = getattr(teacher_weights, "__wrapped__", teacher_weights)
    with pytest.raises(ValueError, match="panel rule must be one of aver, ebkd, aekd, ca_mkd, got 'mean'"):
        unchecked("mean", torch.zeros(1, 2), torch.zeros(1, 1, 2), torch.tensor([0]), 1.0)


def test_a_panel_without_teachers_is_refused():
    student, nobody, labels = torch.zeros(1, 2), torch.zeros(0, 1, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="a panel needs at least 1 teacher, got 0"):
        teacher_weights("aver", student, nobody, labels, 1.0)


@pytest.mark.parametrize("rule", RULES)
def test_a_temperature_out_of_range_is_refused_by_every_rule(rule):
    arguments = torch.zeros(1, 2), torch.zeros(2, 1, 2), torch.tensor([0])
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"temperature must be > 0, got {temperature}"):
            teacher_weights(rule, *arguments, temperature)
