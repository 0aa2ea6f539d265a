"""The loss of TESKD against a float64 oracle of the code's formula, numerical gradients, and where gradients go."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edpipe.losses.teskd import TeskdWeights, feature_loss, self_kd_loss, teskd_loss
from edpipe.models.students.teskd_branches import TeskdOutputs

torch.set_num_threads(1)
CASES = st.tuples(st.integers(0, 9999), st.integers(1, 5), st.integers(2, 6), st.integers(1, 4), st.integers(1, 3))
"""Seed, samples, classes, channels, students."""


def draw(seed, samples, classes, channels, students, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (students + 1, samples, classes))
    features = rng.normal(0, 3, (students + 1, samples, channels))
    labels = rng.integers(0, classes, samples)
    tensors = [[torch.from_numpy(x).to(dtype).requires_grad_() for x in values] for values in (logits, features)]
    (own, *others), (own_features, *other_features) = tensors
    return TeskdOutputs(own, others, own_features, other_features), torch.from_numpy(labels)


def arrays(outputs):
    return [
        [x.detach().double().numpy() for x in values]
        for values in (
            (outputs.logits, *outputs.student_logits),
            (outputs.features, *outputs.student_features),
        )
    ]


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def oracle(outputs, labels, temperature=4.0, task_share=0.2, feature_weight=1e-7):
    """The code's loss of a batch: one number."""
    (backbone, *students), (fixed, *features) = arrays(outputs)
    samples = np.arange(len(labels))
    total = task_share * sum(-np.log(softmax(x)[samples, labels]).mean() for x in (backbone, *students))
    target = softmax(backbone / temperature) + 1e-7
    for logits in students:
        divergence = (target * (np.log(target) - np.log(softmax(logits / temperature)))).sum() / len(labels)
        total += (1 - task_share) * temperature**2 * divergence
    for values in features:
        total += feature_weight * ((values - fixed) ** 2)[(values > 0) | (fixed > 0)].sum()
    return total


@settings(deadline=None)
@given(CASES, st.floats(0.5, 10), st.floats(0, 1), st.floats(0, 10))
def test_its_mean_over_a_batch_is_the_codes_loss(case, temperature, task_share, feature_weight):
    outputs, labels = draw(*case)
    found = teskd_loss(outputs, labels, TeskdWeights(temperature, task_share, feature_weight))
    assert found.shape == labels.shape
    expected = oracle(outputs, labels.numpy(), temperature, task_share, feature_weight)
    assert found.mean().item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_its_defaults_are_the_codes():
    outputs, labels = draw(0, 5, 6, 4, 3)
    assert teskd_loss(outputs, labels).mean().item() == pytest.approx(oracle(outputs, labels.numpy()), rel=1e-12)
    assert TeskdWeights() == TeskdWeights(4.0, 0.2, 1e-7, detach_target=False, feature_reduction="sum")


def test_by_hand():
    # All logits equal: two cross-entropies of ln 2; the kd loss of p = 1/2 + 1e-7 against 1/2 is 2e-7 to first order,
    # times τ² = 16. One active channel differs by 3, another is positive nowhere.
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    outputs = TeskdOutputs(zeros, [zeros], torch.tensor([[1.0, -2.0]]), [torch.tensor([[4.0, -1.0]])])
    found = teskd_loss(outputs, torch.tensor([0]), TeskdWeights(feature_weight=0.5))
    assert found.item() == pytest.approx(0.4 * np.log(2) + 0.8 * 16 * 2e-7 + 0.5 * 9, rel=1e-9)


def test_the_feature_term_grows_with_the_batch_unless_it_is_a_mean():
    outputs, labels = draw(1, 2, 3, 4, 2)
    twice = TeskdOutputs(
        *(torch.cat([x, x]) if torch.is_tensor(x) else [torch.cat([y, y]) for y in x] for x in outputs)
    )
    both = torch.cat([labels, labels])
    only_features = {"feature_weight": 1.0, "task_share": 1.0}
    tasks = teskd_loss(outputs, labels, TeskdWeights(task_share=1.0, feature_weight=0.0)).mean()
    for reduction, factor in (("sum", 2), ("mean", 1)):
        weights = TeskdWeights(**only_features, feature_reduction=reduction)
        small = teskd_loss(outputs, labels, weights).mean() - tasks
        large = teskd_loss(twice, both, weights).mean() - tasks
        torch.testing.assert_close(large, factor * small)


def test_a_mean_over_features_is_the_batch_sum_divided_by_the_samples():
    outputs, labels = draw(1, 4, 3, 4, 2)
    as_sum = teskd_loss(outputs, labels, TeskdWeights(feature_weight=0.5)).mean()
    as_mean = teskd_loss(outputs, labels, TeskdWeights(feature_weight=2.0, feature_reduction="mean")).mean()
    torch.testing.assert_close(as_mean, as_sum)


def test_shares_of_a_batch_add_up_to_its_loss():
    outputs, labels = draw(2, 5, 4, 3, 2)
    weights = TeskdWeights(feature_weight=1.0)
    whole = teskd_loss(outputs, labels, weights)

    def part(start, stop):
        cut = slice(start, stop)
        pieces = (x[cut] if torch.is_tensor(x) else [y[cut] for y in x] for x in outputs)
        return teskd_loss(TeskdOutputs(*pieces), labels[cut], weights, batch_size=5)

    torch.testing.assert_close(torch.cat([part(0, 3), part(3, 5)]), whole)


@pytest.mark.parametrize("detach_target", [False, True])
def test_gradients_are_the_numerical_ones(detach_target):
    outputs, labels = draw(3, 2, 3, 2, 2)
    fixed, target = outputs.features.detach(), outputs.logits.detach()
    weights = TeskdWeights(feature_weight=0.1, detach_target=detach_target)
    inputs = [*outputs.student_logits, *outputs.student_features]
    if not detach_target:  # else the numerical gradient would still see the target move
        inputs.append(outputs.logits)

    def loss(*values):
        own = target if detach_target else values[4]
        return teskd_loss(TeskdOutputs(own, [*values[:2]], fixed, [*values[2:4]]), labels, weights)

    assert torch.autograd.gradcheck(loss, inputs)


def test_the_kd_loss_pulls_at_the_backbone_unless_it_is_detached():
    outputs, _ = draw(4, 3, 4, 2, 1)
    student = outputs.student_logits[0]
    for detach_target in (False, True):
        loss = self_kd_loss(student, outputs.logits, 4.0, detach_target).sum()
        own, backbone = torch.autograd.grad(loss, (student, outputs.logits), allow_unused=True, retain_graph=True)
        assert own.abs().min() > 0
        assert (backbone is None) if detach_target else (backbone.abs().min() > 0)


def test_detaching_changes_the_gradient_but_not_the_loss():
    outputs, labels = draw(5, 3, 4, 2, 2)
    losses = [teskd_loss(outputs, labels, TeskdWeights(detach_target=detached)) for detached in (False, True)]
    assert torch.equal(*losses)
    free, detached = (torch.autograd.grad(loss.sum(), outputs.logits)[0] for loss in losses)
    cross_entropy = 0.2 * (torch.softmax(outputs.logits, 1) - torch.nn.functional.one_hot(labels, 4))
    torch.testing.assert_close(detached, cross_entropy)
    assert (free - detached).abs().max() > 1e-3


def test_the_backbones_features_stand_still():
    outputs, labels = draw(6, 3, 4, 2, 1)
    loss = teskd_loss(outputs, labels, TeskdWeights(feature_weight=1.0)).sum()
    own, fixed = torch.autograd.grad(loss, (outputs.student_features[0], outputs.features), allow_unused=True)
    assert own.abs().max() > 0
    assert fixed is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    outputs, labels = draw(7, 4, 5, 3, 2, dtype=dtype)
    loud = outputs._replace(student_features=[300 * x for x in outputs.student_features])  # its square is no float16
    found = teskd_loss(loud, labels, TeskdWeights(feature_weight=1e-3))
    assert found.dtype == torch.float32
    assert found.mean().item() == pytest.approx(oracle(loud, labels.numpy(), feature_weight=1e-3), rel=1e-4)


def test_extreme_logits_stay_finite():
    far = torch.tensor([[1e4, -1e4]])
    outputs = TeskdOutputs(far, [-far], torch.zeros(1, 1), [torch.zeros(1, 1)])
    assert teskd_loss(outputs, torch.tensor([0])).isfinite().all()


def test_channels_in_which_neither_is_positive_cost_nothing():
    student, backbone = torch.tensor([[-1.0, 1.0, -1.0, 0.0]]), torch.tensor([[-5.0, -5.0, 5.0, 0.0]])
    assert feature_loss(student, backbone).tolist() == [72.0]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be > 0, got nan"),
        ({"task_share": 1.5}, r"task_share must be in \[0, 1\], got 1.5"),
        ({"feature_weight": -1.0}, "feature_weight must be >= 0, got -1.0"),
        ({"feature_weight": float("nan")}, "feature_weight must be >= 0, got nan"),
    ],
)
def test_weights_outside_their_range_are_an_error(knobs, message):
    with pytest.raises(ValueError, match=message):
        TeskdWeights(**knobs)


def test_the_kd_loss_alone_checks_its_temperature_too():
    with pytest.raises(ValueError, match="temperature must be > 0, got -1"):
        self_kd_loss(torch.zeros(1, 2), torch.zeros(1, 2), -1.0)


@pytest.mark.parametrize(("num_logits", "num_features"), [(0, 0), (2, 1), (0, 1)])
def test_students_without_logits_or_features_are_an_error(num_logits, num_features):
    outputs, labels = draw(8, 2, 3, 2, 2)
    odd = outputs._replace(
        student_logits=outputs.student_logits[:num_logits], student_features=outputs.student_features[:num_features]
    )
    with pytest.raises(ValueError, match=f"got {num_logits} of logits and {num_features} of features"):
        teskd_loss(odd, labels)


def test_a_share_larger_than_its_batch_is_an_error():
    outputs, labels = draw(9, 3, 3, 2, 1)
    with pytest.raises(ValueError, match="batch_size must be >= the 3 samples given, got 2"):
        teskd_loss(outputs, labels, batch_size=2)


@pytest.mark.parametrize("reduction", ["batch", "none"])
def test_an_unknown_reduction_is_an_error(reduction):
    with pytest.raises(ValueError, match=f"feature_reduction must be 'sum' or 'mean', got '{reduction}'"):
        TeskdWeights.__post_init__(_unchecked(reduction))


def _unchecked(reduction):
    """Weights past the type check of the tests, which would refuse the word first."""
    weights = TeskdWeights()
    object.__setattr__(weights, "feature_reduction", reduction)
    return weights
