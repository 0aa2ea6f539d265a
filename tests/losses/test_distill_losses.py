"""Each way to learn from one teacher, against float64 oracles, hand values and numerical gradients."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edpipe.losses.features import attention_loss, hint_loss
from edpipe.losses.kd import kd_loss
from edpipe.losses.logits import dist_loss, dkd_loss, standardise
from edpipe.models.splitting.attention_maps import attention_map

torch.set_num_threads(1)
SHAPES = st.tuples(st.integers(0, 9999), st.integers(1, 5), st.integers(1, 6), st.floats(0.5, 20))
WEIGHTS = st.floats(0, 10)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(0, 5, shape)


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def pair(shape):
    seed, samples, classes, _ = shape
    return draw(seed, samples, classes), draw(seed + 1, samples, classes)


def draw_labels(shape):
    seed, samples, classes, _ = shape
    return np.random.default_rng(seed + 2).integers(0, classes, samples)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def kl(p, q):
    return sum(float(a * math.log(a / b)) for a, b in zip(p, q, strict=True) if a > 0)


def dkd_parts(student, teacher, label):
    """TCKD, NCKD and the teacher's probability of the label, of one sample's softened logits."""
    p, q = softmax(teacher), softmax(student)
    others = [c for c in range(len(p)) if c != label]
    tckd = kl([p[label], p[others].sum()], [q[label], q[others].sum()])
    return tckd, kl(p[others] / p[others].sum(), q[others] / q[others].sum()), p[label]


def correlation(x, y):
    return np.corrcoef(x, y)[0, 1]


def dist_oracle(student, teacher, temperature, beta, gamma):
    q, p = softmax(student / temperature), softmax(teacher / temperature)
    inter = np.array([1 - correlation(a, b) for a, b in zip(q, p, strict=True)])
    intra = np.mean([1 - correlation(a, b) for a, b in zip(q.T, p.T, strict=True)])
    return temperature**2 * (beta * inter + gamma * intra)


# Decoupled KD


@settings(deadline=None)
@given(SHAPES.filter(lambda shape: shape[2] > 1), WEIGHTS, WEIGHTS)
def test_dkd_loss_is_the_formula(shape, alpha, beta):
    (student, teacher), labels, temperature = pair(shape), draw_labels(shape), shape[3]
    parts = [dkd_parts(s / temperature, t / temperature, c) for s, t, c in zip(student, teacher, labels, strict=True)]
    expected = [temperature**2 * (alpha * tckd + beta * nckd) for tckd, nckd, _ in parts]
    loss = dkd_loss(*tensors(student, teacher, labels), temperature, alpha, beta)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-7, atol=1e-7)


@settings(deadline=None)
@given(SHAPES.filter(lambda shape: shape[2] > 1))
def test_kd_is_tckd_and_as_much_nckd_as_the_teacher_leaves_to_other_classes(shape):
    (student, teacher), labels = tensors(*pair(shape)), torch.from_numpy(draw_labels(shape))
    target, others = (dkd_loss(student, teacher, labels, shape[3], *weights) for weights in ((1.0, 0.0), (0.0, 1.0)))
    label_probs = F.softmax(teacher / shape[3], dim=1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(
        target + (1 - label_probs) * others, kd_loss(student, teacher, shape[3]), rtol=1e-8, atol=1e-8
    )


def test_dkd_loss_by_hand():
    # Teacher (1/2, 3/8, 1/8), student (1/4, 3/8, 3/8): labels (1/2, 1/2) and (1/4, 3/4), others (3/4, 1/4), (1/2, 1/2).
    teacher, student = torch.tensor([[4.0, 3.0, 1.0]]).log(), torch.tensor([[2.0, 3.0, 3.0]]).log()
    tckd = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    nckd = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    label = torch.tensor([0])
    assert dkd_loss(student, teacher, label, 1.0, 1.0, 8.0).item() == pytest.approx(tckd + 8 * nckd, rel=1e-5)
    at_two = dkd_loss(2 * student, 2 * teacher, label, 2.0, 1.0, 8.0)
    assert at_two.item() == pytest.approx(4 * (tckd + 8 * nckd), rel=1e-5)


@settings(deadline=None)
@given(SHAPES, st.data())
def test_dkd_loss_knows_no_order_of_classes(shape, data):
    order = torch.tensor(data.draw(st.permutations(range(shape[2]))))
    (student, teacher), labels = tensors(*pair(shape)), torch.from_numpy(draw_labels(shape))
    before = dkd_loss(student, teacher, labels, shape[3], 1.0, 2.0)
    after = dkd_loss(student[:, order], teacher[:, order], order.argsort()[labels], shape[3], 1.0, 2.0)
    torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sure", [20.0, 200.0, 2000.0])
def test_dkd_gradients_are_finite_where_a_probability_is_1(dtype, sure):
    teacher = torch.tensor([[sure, 0.0, 1.0], [sure, 0.0, 1.0]], dtype=dtype)
    student = torch.tensor([[sure, 1.0, 0.0], [-sure, 1.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = dkd_loss(student, teacher, torch.tensor([0, 0]), 1.0, 1.0, 1.0)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    # What the others are to each other still counts when the label has all probability: no factor 1 - p.
    nckd = kl(*(softmax(np.array(logits)) for logits in ([0.0, 1.0], [1.0, 0.0])))
    assert loss[0].item() == pytest.approx(nckd, rel=1e-4)


def test_dkd_tells_a_surer_teacher_from_a_sure_one_beyond_the_digits_of_1():
    # 1 - p is 2e-9 and 9e-14 here, both 0 in float32.
    student, teacher = torch.tensor([[20.0, 0.0]], requires_grad=True), torch.tensor([[30.0, 0.0]])
    dkd_loss(student, teacher, torch.tensor([0]), 1.0, 1.0, 1.0).sum().backward()
    assert student.grad is not None
    assert student.grad[0, 1].item() == pytest.approx(math.exp(-20), rel=1e-3)


# DIST


@settings(deadline=None)
@given(SHAPES.filter(lambda shape: shape[1] > 1 and shape[2] > 1 and shape[3] >= 2), WEIGHTS, WEIGHTS)
def test_dist_loss_is_the_formula(shape, beta, gamma):
    (student, teacher), temperature = pair(shape), shape[3]
    loss = dist_loss(*tensors(student, teacher), temperature, beta, gamma)
    expected = dist_oracle(student, teacher, temperature, beta, gamma)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_dist_loss_by_hand():
    # Probabilities (3/4, 1/4), (1/4, 3/4) of the teacher; the student is wrong about the second sample, and less sure.
    teacher, student = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log(), torch.tensor([[3.0, 2.0], [4.0, 1.0]]).log()
    # Within samples: r = 1 and -1. Over the batch: two entries, against the teacher's order: r = -1 for both classes.
    torch.testing.assert_close(dist_loss(student, teacher, 1.0, 1.0, 0.0), torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(dist_loss(student, teacher, 1.0, 0.0, 3.0), torch.tensor([6.0, 6.0]))
    torch.testing.assert_close(dist_loss(2 * student, 2 * teacher, 2.0, 1.0, 1.0), 4 * torch.tensor([2.0, 4.0]))


@settings(deadline=None)
@given(SHAPES, WEIGHTS, WEIGHTS)
def test_dist_loss_looks_away_from_shifts_and_from_the_order_of_classes(shape, beta, gamma):
    student, teacher = tensors(*pair(shape))
    order = torch.from_numpy(np.random.default_rng(shape[0]).permutation(shape[2]))
    before = dist_loss(student, teacher, shape[3], beta, gamma)
    after = dist_loss(student[:, order] + 7, teacher[:, order] - 3, shape[3], beta, gamma)
    torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(SHAPES)
def test_a_student_that_is_its_teacher_loses_nothing(shape):
    (logits, _), labels, temperature = tensors(*pair(shape)), torch.from_numpy(draw_labels(shape)), shape[3]
    for exact in (logits, logits.float()):
        assert dist_loss(exact, exact, temperature, 1.0, 1.0).tolist() == [0.0] * shape[1]
        assert dkd_loss(exact, exact, labels, temperature, 1.0, 1.0).tolist() == [0.0] * shape[1]


@settings(deadline=None)
@given(SHAPES, st.sampled_from([torch.float32, torch.float64]))
def test_logit_losses_are_never_negative(shape, dtype):
    student, teacher = (logits.to(dtype) for logits in tensors(*pair(shape)))
    assert (dist_loss(student, teacher, shape[3], 1.0, 1.0) >= 0).all()
    assert (dkd_loss(student, teacher, torch.from_numpy(draw_labels(shape)), shape[3], 1.0, 1.0) >= -1e-3).all()


def loss_and_gradient(loss, student, *rest):
    student = student.clone().requires_grad_()
    value = loss(student, *rest)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    return value.detach(), gradient


def test_a_batch_of_one_has_no_relation_within_classes():
    student, teacher = (logits.float() for logits in tensors(*pair((0, 1, 5, 1.0))))
    value, gradient = loss_and_gradient(dist_loss, student, teacher, 2.0, 0.0, 1.0)
    assert value.tolist() == [0.0]
    assert not gradient.any()


def test_where_the_teacher_is_constant_dist_asks_for_nothing():
    uniform, student = torch.full((3, 5), 0.1), torch.from_numpy(draw(0, 3, 5)).float()
    value, gradient = loss_and_gradient(dist_loss, student, uniform, 1.0, 1.0, 1.0)
    assert value.tolist() == [0.0] * 3
    assert not gradient.any()


def test_where_only_the_student_is_constant_the_correlation_counts_as_0():
    uniform, teacher = torch.full((3, 5), 0.1), torch.from_numpy(draw(0, 3, 5)).float()
    value, gradient = loss_and_gradient(dist_loss, uniform, teacher, 1.0, 2.0, 3.0)
    assert value.tolist() == [5.0] * 3
    assert not gradient.any()


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 90.0, 1000.0])
def test_dist_is_finite_however_sure_the_networks_are(size):
    student, teacher = (size * logits.float() for logits in tensors(*pair((3, 4, 6, 1.0))))
    loss_and_gradient(dist_loss, student, teacher, 1.0, 1.0, 1.0)
    loss_and_gradient(dist_loss, student, -student, 1.0, 1.0, 1.0)
    loss_and_gradient(dist_loss, torch.zeros_like(student), teacher, 1.0, 1.0, 1.0)


def test_rounding_is_no_relation():
    # The teacher says the same of all samples, in logits that are shifted: its probabilities differ in the last digits.
    shifts = torch.linspace(0, 30, 8)[:, None]
    student, teacher = torch.from_numpy(draw(0, 8, 6)).float(), torch.from_numpy(draw(1, 1, 6)).float() + shifts
    assert len(F.softmax(teacher, dim=1).unique(dim=0)) > 1
    value, gradient = loss_and_gradient(dist_loss, student, teacher, 1.0, 0.0, 1.0)
    assert not value.any()
    assert not gradient.any()


@pytest.mark.parametrize("tail", [40.0, 69.0, 80.0, 88.0, 95.0, 103.0, 200.0])
def test_dist_gradients_are_finite_at_the_end_of_float32(tail):
    logits = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    logits[:, 2] -= tail
    loss_and_gradient(dist_loss, logits, logits.flip(0), 1.0, 1.0, 1.0)


def test_rare_classes_count_in_dist_as_common_ones_do():
    # The third class has 1e-12 of the probability; student and teacher disagree about it alone.
    tail = torch.tensor([-27.0, -28.0])
    common = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    student, teacher = torch.cat([common, tail[:, None]], 1), torch.cat([common, tail.flip(0)[:, None]], 1)
    torch.testing.assert_close(dist_loss(student, teacher, 1.0, 0.0, 1.0), torch.full((2,), 2 / 3))


# Logit standardisation


@settings(deadline=None)
@given(SHAPES.filter(lambda shape: shape[2] > 1), st.floats(0.5, 100), st.floats(-100, 100))
def test_standardise_is_the_z_score_and_forgets_scale_and_shift(shape, scale, shift):
    logits, _ = pair(shape)
    expected = (logits - logits.mean(axis=1, keepdims=True)) / (logits.std(axis=1, ddof=1, keepdims=True) + 1e-7)
    np.testing.assert_allclose(standardise(torch.from_numpy(logits)).numpy(), expected, rtol=1e-9, atol=1e-9)
    moved = standardise(torch.from_numpy(scale * logits + shift))
    np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(SHAPES, st.data())
def test_standardise_knows_no_order_of_classes(shape, data):
    order = torch.tensor(data.draw(st.permutations(range(shape[2]))))
    logits = torch.from_numpy(pair(shape)[0])
    torch.testing.assert_close(standardise(logits[:, order]), standardise(logits)[:, order], rtol=1e-9, atol=1e-9)


def test_standardise_by_hand():
    # Mean 2, squares 1, 0, 1, divided by 2: the deviation is 1.
    torch.testing.assert_close(standardise(torch.tensor([[1.0, 2.0, 3.0]])), torch.tensor([[-1.0, 0.0, 1.0]]))


@pytest.mark.parametrize("classes", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("level", [0.0, 0.1, 1234.567, 3e38])
def test_equal_logits_are_standardised_to_0(classes, level):
    value, gradient = loss_and_gradient(standardise, torch.full((2, classes), level))
    assert not value.any()
    assert gradient.abs().max() <= 1e7


# Attention and hints


def attention_oracle(small, large):
    """Mean squared difference where the large map's sides are whole multiples of the small one's."""
    factors = [b // s for b, s in zip(large.shape[1:], small.shape[1:], strict=True)]
    expected = []
    for s, b in zip(small, large, strict=True):
        blocks = b.reshape(s.shape[0], factors[0], s.shape[1], factors[1]).mean(axis=(1, 3))
        expected.append(((s - blocks / np.sqrt((blocks**2).sum())) ** 2).mean())
    return np.array(expected)


def draw_maps(seed, samples, height, width):
    maps = draw(seed, samples, height, width) ** 2
    return maps / np.sqrt((maps**2).sum(axis=(1, 2), keepdims=True))


@settings(deadline=None)
@given(st.integers(0, 9999), st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(1, 3)] * 2))
def test_attention_loss_is_the_formula_whichever_map_is_larger(seed, shape, factors):
    small = draw_maps(seed, *shape)
    large = draw_maps(seed + 1, shape[0], shape[1] * factors[0], shape[2] * factors[1])
    expected = attention_oracle(small, large) if factors != (1, 1) else ((small - large) ** 2).mean(axis=(1, 2))
    for maps in ((small, large), (large, small)):
        np.testing.assert_allclose(attention_loss(*tensors(*maps)).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_attention_loss_by_hand():
    # (3/5, 0; 4/5, 0) averaged down to one column is (3/10, 4/10), of length 1 again (3/5, 4/5).
    large, small = torch.tensor([[[0.6, 0.0], [0.8, 0.0]]]), torch.tensor([[[1.0], [0.0]]])
    assert attention_loss(large, small).item() == pytest.approx((0.4**2 + 0.8**2) / 2)
    assert attention_loss(large, torch.tensor([[[0.6], [0.8]]])).item() == pytest.approx(0, abs=1e-12)


def test_maps_that_are_larger_in_one_direction_each_meet_at_the_smaller_sides():
    wide, tall = torch.full((1, 1, 4), 0.5), torch.full((1, 4, 1), 0.5)
    assert attention_loss(wide, tall).tolist() == [0.0]


def test_attention_gradients_reach_the_student_also_where_nothing_is_active():
    for features in (torch.from_numpy(draw(0, 2, 3, 4, 4)).float(), torch.zeros(2, 3, 4, 4)):
        teacher_map = torch.from_numpy(draw_maps(1, 2, 2, 2)).float()
        _, gradient = loss_and_gradient(lambda f, t=teacher_map: attention_loss(attention_map(f), t), features)
        assert gradient.any() == features.any()


@settings(deadline=None)
@given(st.integers(0, 9999), st.tuples(*[st.integers(1, 4)] * 4))
def test_hint_loss_is_the_formula(seed, shape):
    student, teacher = draw(seed, *shape), draw(seed + 1, *shape)
    loss = hint_loss(*tensors(student, teacher)).numpy()
    np.testing.assert_allclose(loss, [((s - t) ** 2).mean() for s, t in zip(student, teacher, strict=True)], rtol=1e-9)
    assert not hint_loss(*tensors(teacher, teacher)).any()


# All of them


def test_gradients_are_those_of_the_losses():
    student, teacher = (torch.from_numpy(draw(seed, 3, 5) / 3).requires_grad_(not seed) for seed in (0, 1))
    labels, check = torch.tensor([4, 1, 0]), torch.autograd.gradcheck
    assert check(lambda s: dkd_loss(s, teacher, labels, 3.0, 1.5, 8.0), student)
    assert check(lambda s: dist_loss(s, teacher, 3.0, 2.0, 1.0), student)
    assert check(standardise, student)
    assert check(lambda s: kd_loss(standardise(s), standardise(teacher), 2.0), student)
    maps = torch.from_numpy(draw_maps(0, 2, 4, 6)).requires_grad_()
    for size in ((4, 6), (2, 3), (3, 4), (8, 9)):
        assert check(lambda m, size=size: attention_loss(m, torch.from_numpy(draw_maps(1, 2, *size))), maps)
    features = torch.from_numpy(draw(0, 2, 3, 2, 2)).requires_grad_()
    assert check(lambda f: hint_loss(f, torch.from_numpy(draw(1, 2, 3, 2, 2))), features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    student, teacher = (torch.from_numpy(draw(seed, 4, 50)).to(dtype) for seed in (0, 1))
    labels = torch.tensor([0, 1, 2, 49])
    for loss in (
        lambda s, t: dkd_loss(s, t, labels, 4.0, 1.0, 2.0),
        lambda s, t: dist_loss(s, t, 4.0, 1.0, 1.0),
        lambda s, t: standardise(s) + standardise(t),
        lambda s, t: attention_loss(s.reshape(4, 5, 10), t.reshape(4, 10, 5)),
        lambda s, t: hint_loss(s.reshape(4, 2, 5, 5), t.reshape(4, 2, 5, 5)),
    ):
        assert torch.equal(loss(student, teacher), loss(student.float(), teacher.float()))


def test_an_empty_share_of_a_batch_has_no_losses():
    logits, labels = torch.zeros(0, 5, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    for loss in (
        dkd_loss(logits, logits.detach(), labels, 4.0, 1.0, 1.0),
        dist_loss(logits, logits.detach(), 4.0, 1.0, 1.0),
        standardise(logits).sum(dim=1),
        attention_loss(torch.zeros(0, 4, 4), torch.zeros(0, 2, 2)),
        hint_loss(torch.zeros(0, 2, 4, 4), torch.zeros(0, 2, 4, 4)),
    ):
        assert loss.shape == (0,)


def test_values_out_of_range_are_refused():
    logits, labels = torch.zeros(1, 2), torch.tensor([0])
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"temperature must be > 0, got {temperature}"):
            dkd_loss(logits, logits, labels, temperature, 1.0, 1.0)
        with pytest.raises(ValueError, match=f"temperature must be > 0, got {temperature}"):
            dist_loss(logits, logits, temperature, 1.0, 1.0)
    for weight in (-0.5, math.nan):
        with pytest.raises(ValueError, match=f"alpha must be >= 0, got {weight}"):
            dkd_loss(logits, logits, labels, 1.0, weight, 1.0)
        with pytest.raises(ValueError, match=f"beta must be >= 0, got {weight}"):
            dkd_loss(logits, logits, labels, 1.0, 1.0, weight)
        with pytest.raises(ValueError, match=f"beta must be >= 0, got {weight}"):
            dist_loss(logits, logits, 1.0, weight, 1.0)
        with pytest.raises(ValueError, match=f"gamma must be >= 0, got {weight}"):
            dist_loss(logits, logits, 1.0, 1.0, weight)


def test_features_of_another_shape_are_refused():
    unchecked = getattr(hint_loss, "__wrapped__", hint_loss)
    with pytest.raises(ValueError, match=r"got \(1, 2, 4, 4\) and \(1, 3, 4, 4\); a HintRegressor changes the chan"):
        unchecked(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))
