"""Losses against float64 oracles, hand values and numerical gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edpipe.losses.kd import combine, kd_loss, slice_kd_loss, task_loss

torch.set_num_threads(1)
SHAPES = st.tuples(st.integers(0, 9999), st.integers(1, 4), st.integers(1, 6), st.floats(0.5, 20))


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(0, 5, shape)


def kd_oracle(student, teacher, temperature):
    log_p, log_q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


@given(SHAPES)
def test_kd_loss_is_the_formula(shape):
    seed, samples, classes, temperature = shape
    student, teacher = draw(seed, samples, classes), draw(seed + 1, samples, classes)
    expected = kd_oracle(student, teacher, temperature)
    exact = kd_loss(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    np.testing.assert_allclose(exact.numpy(), expected, rtol=1e-9, atol=1e-9)
    single = kd_loss(torch.from_numpy(student).float(), torch.from_numpy(teacher).float(), temperature)
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-4, atol=1e-3)


@given(SHAPES)
def test_kd_loss_is_zero_for_equal_logits_and_never_negative(shape):
    seed, samples, classes, temperature = shape
    student, teacher = (
        torch.from_numpy(draw(seed, samples, classes)),
        torch.from_numpy(draw(seed + 1, samples, classes)),
    )
    assert kd_loss(teacher + 3, teacher, temperature).abs().max() < 1e-9
    assert kd_loss(student, teacher, temperature).min() > -1e-9


def test_kd_loss_by_hand():
    # Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2); at τ = 2 the same from doubled logits, times 4.
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kd_loss(student, teacher, 1.0).item() == pytest.approx(expected, rel=1e-5)
    assert kd_loss(student, 2 * teacher, 2.0).item() == pytest.approx(4 * expected, rel=1e-5)


def test_kd_gradient_hardly_depends_on_a_high_temperature():
    student = torch.from_numpy(draw(0, 3, 5)).requires_grad_()
    teacher = torch.from_numpy(draw(1, 3, 5))
    grads = [torch.autograd.grad(kd_loss(student, teacher, t).sum(), student)[0] for t in (100.0, 200.0)]
    torch.testing.assert_close(grads[0], grads[1], rtol=0.2, atol=0.05)


@given(SHAPES, st.data())
def test_slice_kd_looks_at_the_teachers_classes_alone(shape, data):
    seed, samples, classes, temperature = shape
    heads = classes + data.draw(st.integers(0, 4))
    columns = np.array(data.draw(st.permutations(range(heads)))[:classes])
    student, teacher = draw(seed, samples, heads), draw(seed + 1, samples, classes)
    tensors = torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(columns)
    sliced = slice_kd_loss(*tensors, temperature, "slice")
    np.testing.assert_allclose(
        sliced.numpy(), kd_oracle(student[:, columns], teacher, temperature), rtol=1e-9, atol=1e-9
    )


@given(SHAPES, st.data())
def test_full_kd_also_costs_what_is_given_to_other_classes(shape, data):
    seed, samples, classes, temperature = shape
    heads = classes + data.draw(st.integers(0, 4))
    columns = np.array(data.draw(st.permutations(range(heads)))[:classes])
    student, teacher = draw(seed, samples, heads), draw(seed + 1, samples, classes)
    tensors = torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(columns)
    full, sliced = (slice_kd_loss(*tensors, temperature, which).numpy() for which in ("full", "slice"))
    # KL(p ‖ q) = KL(p ‖ q within the slice) - log(what q gives to the slice).
    probs = np.exp(log_softmax(student / temperature))[:, columns].sum(axis=1)
    np.testing.assert_allclose(full, sliced - temperature**2 * np.log(probs), rtol=1e-7, atol=1e-7)


@given(SHAPES, st.floats(0, 0.9))
def test_task_loss_is_the_formula(shape, smoothing):
    seed, samples, classes, _ = shape
    logits = draw(seed, samples, classes)
    labels = np.random.default_rng(seed).integers(0, classes, samples)
    targets = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    loss = task_loss(torch.from_numpy(logits), torch.from_numpy(labels), smoothing)
    np.testing.assert_allclose(loss.numpy(), -(targets * log_softmax(logits)).sum(axis=1), rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_the_losses():
    student = torch.from_numpy(draw(0, 3, 5)).requires_grad_()
    teacher, columns, labels = torch.from_numpy(draw(1, 3, 3)), torch.tensor([4, 0, 2]), torch.tensor([4, 1, 0])
    for normalisation in ("slice", "full"):
        assert torch.autograd.gradcheck(lambda s, n=normalisation: slice_kd_loss(s, teacher, columns, 4.0, n), student)
    assert torch.autograd.gradcheck(lambda s: task_loss(s, labels, 0.1), student)
    kd = kd_loss(student[:, :3], teacher, 4.0)
    assert torch.autograd.gradcheck(lambda s: combine(task_loss(s, labels), kd.detach(), 0.3, 0.7), student)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(dtype):
    student, teacher = torch.from_numpy(draw(0, 2, 50)).to(dtype), torch.from_numpy(draw(1, 2, 50)).to(dtype)
    assert torch.equal(kd_loss(student, teacher, 4.0), kd_loss(student.float(), teacher.float(), 4.0))
    labels = torch.tensor([0, 1])
    assert torch.equal(task_loss(student, labels), task_loss(student.float(), labels))


def test_combine_by_hand():
    assert combine(torch.tensor([1.0, 3.0]), torch.tensor([10.0, 20.0]), 0.25, 2.0).tolist() == [20.25, 40.75]


def test_values_out_of_range_are_refused():
    logits = torch.zeros(1, 2)
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"temperature must be > 0, got {temperature}"):
            kd_loss(logits, logits, temperature)
    with pytest.raises(ValueError, match=r"temperature must be > 0, got 0\.0"):
        slice_kd_loss(logits, logits, torch.tensor([0, 1]), 0.0, "full")
    for weights in ((-0.1, 1.0), (1.0, -0.1)):
        with pytest.raises(ValueError, match=f"weights must be >= 0, got {weights[0]} and {weights[1]}"):
            combine(torch.zeros(1), torch.zeros(1), *weights)


def test_unknown_normalisation_is_refused():
    unchecked = getattr(slice_kd_loss, "__wrapped__", slice_kd_loss)
    with pytest.raises(ValueError, match="normalisation must be 'slice' or 'full', got 'half'"):
        unchecked(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0, 1]), 1.0, "half")
