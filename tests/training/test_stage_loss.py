"""What a batch's loss is made of: teachers by their shares, panels, references that know fewer classes."""

import math

import pytest
import torch
import torch.nn.functional as F

from edpipe.errors import TrainingError
from edpipe.losses.kd import kd_loss, task_loss
from edpipe.losses.logits import dist_loss, dkd_loss
from edpipe.losses.stage_terms import StageBatch, TeacherTargets, batch_loss, restrict_classes
from edpipe.losses.teacher_weights import teacher_weights
from edpipe.methods.at import At
from edpipe.methods.dist import Dist
from edpipe.methods.dkd import Dkd
from edpipe.models.students.outputs import StudentOutputs
from edpipe.params.plans.plan import all_subsets
from edpipe.params.stage import StageKnobs

torch.set_num_threads(1)
BUDGET = StageKnobs(epochs=1)
LABELS = torch.tensor([0, 3, 1, 2, 3, 0])
ALL = torch.arange(4)


def draw(seed, *shape):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOGITS = draw(0, 6, 4)


def plan(**fields):
    given = {"temperature": 4.0, "task_weight": 0.3, "distill_weight": 0.7} | fields
    return all_subsets("only", BUDGET, **given)


def target(seed, rows=None, columns=ALL, share=1.0):
    rows = torch.arange(6) if rows is None else torch.tensor(rows)
    return TeacherTargets(rows, draw(seed, len(rows), len(columns)), columns, torch.full((len(rows),), share))


def batch(*targets, **fields):
    return StageBatch(torch.zeros(6, 1, 4, 4), LABELS, None, list(targets), **fields)


def test_without_teachers_only_labels_count():
    assert torch.equal(batch_loss(plan(), LOGITS, batch()), task_loss(LOGITS, LABELS))


def test_one_teacher_is_the_formula():
    one = target(1)
    expected = 0.3 * F.cross_entropy(LOGITS, LABELS, reduction="none") + 0.7 * kd_loss(LOGITS, one.logits, 4.0)
    torch.testing.assert_close(batch_loss(plan(), LOGITS, batch(one)), expected)


def test_specialists_teach_the_samples_of_their_classes_alone():
    low, high = target(1, [0, 2, 5], torch.tensor([0, 1])), target(2, [1, 3, 4], torch.tensor([2, 3]))
    found = batch_loss(plan(task_weight=0.0, distill_weight=1.0), LOGITS, batch(low, high))
    torch.testing.assert_close(found[[0, 2, 5]], kd_loss(LOGITS[[0, 2, 5]][:, :2], low.logits, 4.0))
    torch.testing.assert_close(found[[1, 3, 4]], kd_loss(LOGITS[[1, 3, 4]][:, 2:], high.logits, 4.0))


@pytest.mark.parametrize("rule", ["aver", "ebkd", "aekd", "ca_mkd"])
@pytest.mark.parametrize("num_teachers", [2, 3])
def test_panels_weigh_their_teachers_by_the_rule(rule, num_teachers):
    panel = [target(seed, share=1 / num_teachers) for seed in range(1, num_teachers + 1)]
    logits = torch.stack([one.logits for one in panel])
    shares = teacher_weights(rule, LOGITS, logits, LABELS, 4.0)
    expected = sum(share * kd_loss(LOGITS, own, 4.0) for share, own in zip(shares, logits, strict=True))
    knobs = plan(task_weight=0.0, distill_weight=1.0, teacher_weighting=rule)
    torch.testing.assert_close(batch_loss(knobs, LOGITS, batch(*panel)), expected, check_dtype=False)


@pytest.mark.parametrize("rule", ["aver", "ebkd", "aekd", "ca_mkd"])
@pytest.mark.parametrize("algorithm", [Dkd(kind="dkd", beta=2.0, warmup=0.0), Dist(kind="dist")])
def test_panels_weigh_any_loss_by_what_the_rule_makes_of_logits(rule, algorithm):
    panel = [target(seed, share=1 / 3) for seed in (1, 2, 3)]
    shares = teacher_weights(rule, LOGITS, torch.stack([one.logits for one in panel]), LABELS, 4.0)
    expected = torch.zeros(6, dtype=torch.float64)
    for share, one in zip(shares, panel, strict=True):
        if algorithm.kind == "dkd":
            expected += share * dkd_loss(LOGITS, one.logits, LABELS, 4.0, 1.0, 2.0)
        else:
            expected += share * dist_loss(LOGITS, one.logits, 4.0, algorithm.beta, algorithm.gamma)
    knobs = plan(task_weight=0.0, distill_weight=1.0, teacher_weighting=rule, algorithm=algorithm)
    torch.testing.assert_close(batch_loss(knobs, LOGITS, batch(*panel)), expected)


@pytest.mark.parametrize(
    ("rule", "second_weight"),
    [
        ("aver", 1 / 2),
        ("ebkd", math.log(2) / (math.log(2) + math.log(4) / 4 + math.log(4 / 3) * 3 / 4)),
        ("aekd", 0.4),
        ("ca_mkd", 3 / 5),
    ],
)
def test_two_teachers_by_hand(rule, second_weight):
    # Of two classes, the student and the first teacher give each 1/2, the second teacher 3/4 to the label.
    student, rows, columns = torch.zeros(1, 2), torch.tensor([0]), torch.arange(2)
    logits = [torch.tensor([[1.0, 1.0]]).log(), torch.tensor([[3.0, 1.0]]).log()]
    targets = [TeacherTargets(rows, own, columns, torch.tensor([0.5])) for own in logits]
    given = StageBatch(torch.zeros(1, 1, 4, 4), torch.tensor([0]), None, targets)
    knobs = plan(task_weight=0.0, distill_weight=1.0, temperature=1.0, teacher_weighting=rule)
    divergence = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    assert batch_loss(knobs, student, given).tolist() == pytest.approx([second_weight * divergence])


@pytest.mark.parametrize("rule", ["aver", "ebkd", "aekd", "ca_mkd"])
def test_one_teacher_is_kd_bit_for_bit_by_every_rule(rule):
    weights = {"task_weight": 0.0, "distill_weight": 1.0, "teacher_weighting": rule}
    alone = batch_loss(plan(**weights), LOGITS, batch(target(1)))
    assert torch.equal(alone, batch_loss(plan(**weights | {"teacher_weighting": "aver"}), LOGITS, batch(target(1))))


def test_two_teachers_of_one_sample_share_it_equally():
    everyone, some = target(1, share=1.0), target(2, [0, 2, 5], torch.tensor([0, 1]), share=0.5)
    both = TeacherTargets(everyone.rows, everyone.logits, ALL, torch.tensor([0.5, 1.0, 0.5, 1.0, 1.0, 0.5]))
    found = batch_loss(plan(task_weight=0.0, distill_weight=1.0), LOGITS, batch(both, some))
    kd = kd_loss(LOGITS, everyone.logits, 4.0)
    torch.testing.assert_close(found[[1, 3, 4]], kd[[1, 3, 4]])
    torch.testing.assert_close(
        found[[0, 2, 5]], (kd[[0, 2, 5]] + kd_loss(LOGITS[[0, 2, 5]][:, :2], some.logits, 4.0)) / 2
    )


def test_dkd_warms_up_over_its_share_of_the_stage():
    dkd = Dkd(kind="dkd", alpha=1.0, beta=2.0, warmup=0.5)
    knobs = plan(algorithm=dkd, task_weight=0.0, distill_weight=1.0)
    one = target(1)
    whole = dkd_loss(LOGITS, one.logits, LABELS, 4.0, 1.0, 2.0)
    for progress, factor in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.9, 1.0)):
        torch.testing.assert_close(batch_loss(knobs, LOGITS, batch(one, progress=progress)), factor * whole)


def test_a_smaller_set_of_outputs_gets_its_own_samples_renumbered():
    columns = torch.tensor([1, 3])
    some = target(2, [1, 2, 4], torch.tensor([1, 2, 3]))
    rows, part = restrict_classes(batch(some, target(1)), columns, 4)
    assert rows.tolist() == [1, 2, 4]
    assert part.labels.tolist() == [1, 0, 1]
    first, second = part.targets
    assert first.rows.tolist() == [0, 1, 2]
    assert first.columns.tolist() == [0, 1]
    assert torch.equal(first.logits, some.logits[:, [0, 2]])
    assert second.rows.tolist() == [0, 1, 2]
    assert torch.equal(second.logits, target(1).logits[[1, 2, 4]][:, [1, 3]])


def test_restricting_to_all_outputs_changes_nothing():
    given = batch(target(1), target(2, [0, 2, 5], torch.tensor([0, 1])))
    rows, part = restrict_classes(given, ALL, 4)
    assert rows.tolist() == list(range(6))
    assert torch.equal(batch_loss(plan(), LOGITS, part), batch_loss(plan(), LOGITS, given))


def test_mixed_labels_are_renumbered_too():
    given = StageBatch(torch.zeros(6, 1, 4, 4), LABELS, (torch.tensor([0, 1, 1, 2, 3, 0]), torch.rand(6)), [])
    _, part = restrict_classes(given, torch.tensor([1, 3]), 4)
    assert part.other is not None
    assert part.other[0].tolist() == [0, 0, 1]
    assert torch.equal(part.other[1], given.other[1][[1, 2, 4]])


def test_references_have_no_features_to_be_compared():
    maps = (torch.full((6, 2, 2), 0.5),)
    one = target(1)
    told = TeacherTargets(one.rows, one.logits, one.columns, one.share, (torch.eye(2).repeat(6, 1, 1) / 2**0.5,))
    knobs = plan(algorithm=At(kind="at"), task_weight=1.0, distill_weight=10.0)
    assert torch.equal(batch_loss(knobs, LOGITS, batch(told)), task_loss(LOGITS, LABELS))
    distance = (2 * (0.5 - 0.5**0.5) ** 2 + 2 * 0.5**2) / 4
    torch.testing.assert_close(
        batch_loss(knobs, LOGITS, batch(told), StudentOutputs(LOGITS, maps)) - task_loss(LOGITS, LABELS),
        torch.full((6,), 10 * distance, dtype=torch.float64),
    )


def test_dkd_of_a_specialist_finds_the_labels_among_its_own_classes():
    rows = [1, 3, 4]  # of classes 3, 2 and 3
    high = target(2, rows, torch.tensor([2, 3]))
    algorithm = Dkd(kind="dkd", alpha=1.0, beta=2.0, warmup=0.0)
    found = batch_loss(plan(algorithm=algorithm, task_weight=0.0, distill_weight=1.0), LOGITS, batch(high))
    expected = dkd_loss(LOGITS[rows][:, 2:], high.logits, torch.tensor([1, 0, 1]), 4.0, 1.0, 2.0)
    torch.testing.assert_close(found[rows], expected)


def test_a_loss_that_averages_over_the_samples_is_refused(monkeypatch):
    monkeypatch.setattr(Dkd, "losses", lambda self, pair: pair.student.mean())
    algorithm = Dkd(kind="dkd", alpha=1.0, beta=2.0, warmup=0.0)
    with pytest.raises(
        TrainingError, match=r"loss 'dkd': gave shape \(\), it must give one number for each of 6 samples"
    ):
        batch_loss(plan(algorithm=algorithm), LOGITS, batch(target(1)))
