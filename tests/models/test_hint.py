"""Regressors of hints: RepDistiller's form and numbers, first weights from a seed alone, and sizes that do not fit."""

import pytest
import torch
import torch.nn.functional as F

from edpipe.errors import NetworkError
from edpipe.losses.features import hint_loss
from edpipe.models.students.hint import HintRegressor, hint_of
from edpipe.models.students.setting import HintShape
from edpipe.models.zoo.build import build_network

torch.set_num_threads(1)
SAME, TWICE, HALF, LARGER = (
    ((3, 6, 6), (5, 6, 6)),
    ((3, 8, 8), (5, 4, 4)),
    ((3, 4, 4), (5, 8, 8)),
    ((3, 7, 7), (5, 4, 4)),
)
"""Shapes of a student's and a teacher's maps, one pair for each form of the regressor."""


def waves(step, *shape):
    return torch.cos(step * torch.arange(torch.Size(shape).numel(), dtype=torch.float32)).view(shape)


@pytest.mark.parametrize(
    ("shapes", "loss", "gradient"),
    [
        (SAME, 0.4455539, 0.1011269),
        (TWICE, 0.4678815, 0.6544817),
        (HALF, 0.5113155, 0.8148839),
        (LARGER, 0.5316215, 0.6141659),
    ],
)
def test_its_numbers_are_those_of_repdistiller(shapes, loss, gradient):
    """Computed by HobbitLong/RepDistiller @ b84f547, ConvReg drawn from seed 0 and MSELoss, of the same maps."""
    student, teacher = shapes
    regressor = HintRegressor(student, teacher, seed=0)
    hint = waves(0.11, 2, *teacher).clamp(min=0)
    found = hint_loss(regressor(waves(0.37, 2, *student)), hint).mean()
    assert found.item() == pytest.approx(loss, rel=1e-5)
    (own,) = torch.autograd.grad(found, regressor.conv.weight)
    assert own.norm().item() == pytest.approx(gradient, rel=1e-5)


def test_it_is_convolution_bn_and_relu():
    regressor, maps = HintRegressor(*SAME, seed=1), waves(0.37, 4, *SAME[0])
    weight, bias = regressor.conv.weight, regressor.conv.bias
    mapped = torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], maps) + bias[:, None, None]
    mean, var = mapped.mean(dim=(0, 2, 3), keepdim=True), mapped.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(regressor(maps), ((mapped - mean) / (var + 1e-5).sqrt()).clamp(min=0))


def test_gradients_reach_the_regressor_and_the_student():
    regressor, student = HintRegressor(*SAME, seed=0), waves(0.37, 4, *SAME[0]).requires_grad_()
    hint_loss(regressor(student), waves(0.11, 4, *SAME[1]).relu()).mean().backward()
    assert {name for name, _ in regressor.named_parameters()} == {"conv.weight", "conv.bias", "bn.weight", "bn.bias"}
    for values in (regressor.conv.weight, regressor.bn.weight, regressor.bn.bias, student):
        assert values.grad.abs().max() > 1e-6


def test_a_regressor_learns_its_teacher():
    generator = torch.Generator().manual_seed(0)
    maps, mixed = torch.randn(16, 4, 5, 5, generator=generator), torch.randn(4, 4, generator=generator)
    hint = torch.einsum("oc,nchw->nohw", mixed, maps).relu()
    regressor = HintRegressor((4, 5, 5), (4, 5, 5), seed=0)
    optimizer = torch.optim.Adam(regressor.parameters(), lr=0.2)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = hint_loss(regressor(maps), hint).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 50


def test_a_regressor_is_drawn_from_its_seed_alone():
    before = torch.random.get_rng_state()
    first, same, other = (HintRegressor(*LARGER, seed=seed).conv.weight for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("student", [(0, 4, 4), (3, 0, 4)])
def test_a_regressor_of_nothing_is_refused(student):
    unchecked = getattr(HintRegressor.__init__, "__wrapped__", HintRegressor.__init__)
    with pytest.raises(ValueError, match=r"channels and pixels must be >= 1, got \(., ., 4\) and \(5, 4, 4\)"):
        unchecked(object.__new__(HintRegressor), student, (5, 4, 4), 0)


# Hints of a student: resnet8 gives maps of 16, 8 and 4 pixels for 16 pixels.


def resnet8_hint(side, *shape, stage=2):
    network = build_network("resnet8", 5, 1, 0)
    return hint_of(network, HintShape(stage, side, shape), (1, 16), 0), torch.randn(3, 32, 8, 8)


@pytest.mark.parametrize(("side", "teacher_side"), [(None, 8), (None, 4), (None, 16), (None, 5), (9, 8)])
def test_whole_maps_are_compared_whole(side, teacher_side):
    hint, maps = resnet8_hint(side, 7, teacher_side, teacher_side)
    assert torch.equal(hint(maps), hint.regressor(maps))
    assert hint(maps).shape == (3, 7, teacher_side, teacher_side)


@pytest.mark.parametrize("side", [8, 4, 3])
def test_maps_that_were_averaged_down_are_compared_so_behind_the_regressor(side):
    hint, maps = resnet8_hint(side, 7, side, side)
    assert hint.regressor.conv.kernel_size == (1, 1)
    torch.testing.assert_close(hint(maps), F.adaptive_avg_pool2d(hint.regressor(maps), side))


def test_the_loss_of_averaged_maps_is_never_more_than_that_of_whole_ones():
    (whole, maps), (averaged, _) = resnet8_hint(None, 7, 8, 8), resnet8_hint(4, 7, 4, 4)
    teacher = torch.randn(3, 7, 8, 8).relu()
    small = F.adaptive_avg_pool2d(teacher, 4)
    assert (hint_loss(averaged(maps), small) <= hint_loss(whole(maps), teacher)).all()


@pytest.mark.parametrize(
    ("side", "teacher_side", "message"),
    [
        (
            None,
            12,
            "model 'resnet8': stage 2 gives maps of 8×8, the teacher's hint is 12×12; the student's must be as large, "
            "larger, or half as large: give storage.hint.side 8 or less, or use another student",
        ),
        (
            10,
            10,
            "model 'resnet8': stage 2 gives maps of 8×8, the teacher's hint was averaged down to 10×10; use a smaller "
            "storage.hint.side, or another student",
        ),
    ],
)
def test_maps_that_are_too_small_are_refused(side, teacher_side, message):
    with pytest.raises(NetworkError) as caught:
        resnet8_hint(side, 7, teacher_side, teacher_side)
    assert str(caught.value) == message


def test_a_stage_that_the_student_does_not_have_is_refused():
    with pytest.raises(NetworkError) as caught:
        resnet8_hint(None, 7, 2, 2, stage=4)
    assert str(caught.value) == (
        "model 'resnet8': has 3 feature stages, the teacher's hint is of its stage 4; store the hint of a lower stage "
        "(storage.hint.feature_stage), or use another student"
    )
