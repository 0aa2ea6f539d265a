"""Losses over groups of classes, and logits that pass from one reference to the next, by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edpipe.losses.coarse import group_batch, group_logits
from edpipe.losses.fade import faded
from edpipe.losses.stage_terms import StageBatch, TeacherTargets, batch_loss
from edpipe.params.plans.plan import all_subsets
from edpipe.params.stage import StageKnobs

GROUPS = torch.tensor([0, 1, 1, 0])
STUDENT = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64).log()
TEACHER = torch.tensor([[0.4, 0.1, 0.15, 0.35]], dtype=torch.float64).log()


def batch(label=3, other=None):
    target = TeacherTargets(torch.tensor([0]), TEACHER, torch.arange(4), torch.ones(1))
    return StageBatch(torch.zeros(1, 1, 4, 4), torch.tensor([label]), other, [target])


def loss(given, **weights):
    plan = all_subsets("only", StageKnobs(epochs=1), temperature=1.0, **weights)
    return batch_loss(plan, group_logits(STUDENT, GROUPS), group_batch(given, GROUPS)).item()


def test_probabilities_of_a_groups_classes_are_added_up():
    assert group_logits(STUDENT, GROUPS).exp().tolist() == [pytest.approx([0.5, 0.5])]
    assert group_logits(TEACHER, GROUPS).softmax(dim=1).tolist() == [pytest.approx([0.75, 0.25])]


@pytest.mark.parametrize("label", [0, 3])
def test_the_task_loss_does_not_tell_classes_of_a_group_apart(label):
    assert loss(batch(label), task_weight=1.0, distill_weight=0.0) == pytest.approx(math.log(2))


def test_the_distillation_loss_is_the_divergence_of_the_groups():
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert loss(batch(), task_weight=0.0, distill_weight=1.0) == pytest.approx(expected)


def test_a_mixed_image_has_the_groups_of_both_its_labels():
    given = group_batch(batch(0, other=(torch.tensor([2]), torch.tensor([0.3]))), GROUPS)
    assert (given.labels.tolist(), given.other[0].tolist(), given.other[1].tolist()) == (
        [0],
        [1],
        pytest.approx([0.3]),
    )


def test_a_teacher_of_some_classes_speaks_of_their_groups():
    part = TeacherTargets(torch.tensor([0]), TEACHER[:, 1:3], torch.tensor([1, 2]), torch.ones(1))
    found = group_batch(StageBatch(torch.zeros(1, 1, 4, 4), torch.tensor([1]), None, [part]), GROUPS).targets[0]
    assert found.columns.tolist() == [1]
    assert found.logits.tolist() == [pytest.approx([math.log(0.25)])]


def test_a_group_far_behind_has_a_finite_logit_and_gradient():
    logits = torch.tensor([[200.0, -200.0, -300.0, 100.0]], requires_grad=True)
    found = group_logits(logits, GROUPS)
    found.sum().backward()
    assert found.tolist() == [[200.0, -200.0]]
    assert logits.grad.tolist() == [pytest.approx([1.0, 1.0, 0.0, 0.0])]


def test_logits_pass_from_the_reference_before_to_the_own_ones():
    own, before = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[5.0, 7.0]])
    columns = torch.tensor([0, 2])
    assert faded(own, before, columns, 0.0).tolist() == [[5.0, 2.0, 7.0]]
    assert faded(own, before, columns, 0.25).tolist() == [[4.0, 2.0, 6.0]]
    assert faded(own, before, columns, 1.0).tolist() == own.tolist()


@given(st.floats(0, 1))
def test_gradients_are_shared_likewise(own_share):
    own, before = torch.zeros(1, 3, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    faded(own, before, torch.tensor([0, 2]), own_share).sum().backward()
    assert own.grad.tolist() == [pytest.approx([own_share, 1.0, own_share])]
    assert before.grad.tolist() == [pytest.approx([1 - own_share] * 2)]
