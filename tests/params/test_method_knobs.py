"""Knobs of methods that would have no effect, or another than their words say, are refused; pages tell true weights."""

import copy

import pytest
from shipped import shipped_and_examples

from edpipe.errors import ParamsError
from edpipe.params.load import parse_params
from edpipe.params.plans.curriculum import curriculum
from edpipe.results.page.words import loss_text, method_text
from edpipe.steps.run_stage import _check_whole_batch

RAW = shipped_and_examples()
LEVELS = ("primary", "middle", "university")
PANEL = ["digits_teacher", "digits_teacher_b"]
SCHOOL = {"name": "ed", "teacher": "digits_specialists"}
GROWING = {
    "name": "ed",
    "classes": "all",
    "teachers": {level: PANEL[:k] for k, level in zip((1, 2, 2), LEVELS, strict=True)},
}


def params_with(method):
    raw = copy.deepcopy(RAW)
    raw["experiments"]["digits_ed" if method["name"] == "ed" else "digits_kd"]["method"] = method
    return parse_params(raw)


def plans_of(method):
    return curriculum(params_with(method), "digits_ed" if method["name"] == "ed" else "digits_kd")


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"name": "aver", "teachers": [PANEL[0]] * 2}, "teachers: teachers must differ"),
        (
            {**GROWING, "teachers": GROWING["teachers"] | {"middle": [PANEL[0]] * 2}},
            r"teachers\.middle: teachers must differ",
        ),
        ({**GROWING, "replay": False}, "replay: false has no meaning with classes: all"),
        ({**SCHOOL, "reference_weight": 0.3}, "reference_weight belongs to references: kept"),
        ({"name": "kd", "teacher": PANEL[0], "task_weight": 1.0}, "task_weight 1 leaves nothing for the teacher"),
        ({**SCHOOL, "task_weight": 2.0}, "task_weight 2 leaves nothing for the teacher"),
        ({"name": "dkd", "teacher": PANEL[0], "distill_weight": None}, "distill_weight"),
        ({"name": "dist", "teacher": PANEL[0], "distill_weight": None}, "distill_weight"),
        ({"name": "aver", "teachers": PANEL, "distill": {"kind": "fitnet"}}, "distill.kind"),
        ({"name": "logit_std", "teacher": PANEL[0], "distill_weight": None}, "distill_weight"),
    ],
)
def test_knobs_without_effect_are_refused_in_one_line(method, said):
    with pytest.raises(ParamsError, match=said) as caught:
        params_with(method)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ["aver", "ebkd", "aekd", "ca_mkd"])
def test_several_teachers_have_the_weights_of_published_code_and_any_loss_of_a_level(rule):
    (plain,) = plans_of({"name": rule, "teachers": PANEL})
    assert (plain.task_weight, plain.distill_weight, plain.temperature) == (1, 1, 4)
    assert plain == plans_of({"name": rule, "teachers": PANEL, "distill": {"kind": "kd"}})[0]
    assert loss_text(plain) == f"1 task + 1 kd ({rule}) at temperature 4"
    (dkd,) = plans_of({"name": rule, "teachers": PANEL, "distill": {"kind": "dkd", "beta": 2}})
    assert dkd == plain.model_copy(update={"algorithm": dkd.algorithm})
    assert dkd.algorithm.model_dump() == {"kind": "dkd", "alpha": 1, "beta": 2, "warmup": 1 / 12}
    assert loss_text(dkd) == f"1 task + 1 dkd ({rule}) at temperature 4"


def test_several_teachers_of_attention_maps_need_them_stored_and_have_the_weight_of_at():
    method = {"name": "aver", "teachers": PANEL, "distill": {"kind": "at"}}
    with pytest.raises(ParamsError, match=r"at learns from attention maps, .* set storage\.attention: true there$"):
        params_with(method)
    raw = copy.deepcopy(RAW)
    raw["soft_labels"]["digits"]["storage"]["attention"] = True
    for given, weight in ((None, 1000), (7, 7)):
        raw["experiments"]["digits_kd"]["method"] = method | ({} if given is None else {"distill_weight": given})
        assert curriculum(parse_params(raw), "digits_kd")[0].distill_weight == weight


def test_attention_has_a_weight_of_its_own_whatever_the_task_weighs():
    raw = copy.deepcopy(RAW)
    raw["soft_labels"]["digits"]["storage"]["attention"] = True
    raw["experiments"]["digits_kd"]["method"] = {"name": "at", "teacher": PANEL[0], "task_weight": 2.0}
    raw["experiments"]["digits_ed"]["method"] = {**SCHOOL, "distill": {"kind": "at"}, "task_weight": 2.0}
    for name in ("digits_kd", "digits_ed"):
        plan = curriculum(parse_params(raw), name)[0]
        assert (plan.task_weight, plan.distill_weight) == (2.0, 1000.0)
        assert loss_text(plan) == "2 task + 1000 at"


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"name": "ce", "label_smoothing": 0.1}, "task, labels smoothed by 0.1"),
        ({"name": "kd", "teacher": PANEL[0]}, "0.3 task + 0.7 kd at temperature 4"),
        ({"name": "logit_std", "teacher": PANEL[0]}, "0.1 task + 9 kd at temperature 2"),
        ({"name": "aver", "teachers": PANEL}, "1 task + 1 kd (aver) at temperature 4"),
        ({"name": "teskd"}, "TESKD: 0.2 of it task, the rest kd of its students"),
        (
            {**SCHOOL, "distill": {"kind": "dkd"}, "references": "kept", "anchor_weight": 0.5},
            "0.3 task + 0.7 dkd at temperature 4 + 0.3 for each earlier reference + 0.5 kd of the student before",
        ),
    ],
)
def test_pages_tell_the_weights_that_are_used(method, said):
    assert loss_text(plans_of(method)[-1]) == said


def test_pages_tell_which_levels_learn_subsets():
    plans = plans_of({**SCHOOL, "teacher": PANEL[0], "classes": "all", "coarse": ["middle"]})
    plain = "0.3 task + 0.7 kd at temperature 4"
    assert [loss_text(plan) for plan in plans] == [plain, f"{plain}, of subsets in place of classes", plain]


def test_pages_tell_of_a_teacher_that_learns_beside_the_student():
    plan = curriculum(parse_params(copy.deepcopy(RAW)), "fashion_mnist_ctkd")[0]
    assert loss_text(plan) == "1 task + 1 kd of fashion_scratch at temperature 4 + 1000 at"


def test_pages_say_whether_classes_arrive():
    assert method_text("ed", plans_of(SCHOOL)).endswith("classes arrive with the levels.")
    assert method_text("ed", plans_of(GROWING)).endswith("all classes are there from the start.")


@pytest.mark.slow
def test_every_method_has_its_words():
    for name, experiment in parse_params(copy.deepcopy(RAW)).experiments.items():
        text = method_text(experiment.method.name, curriculum(parse_params(copy.deepcopy(RAW)), name))
        assert text.endswith(".")


@pytest.mark.parametrize(
    ("method", "refused"),
    [
        ({"name": "dist", "teacher": PANEL[0]}, "dist"),
        ({**SCHOOL, "distill": {"kind": "dist"}}, "dist"),
        ({"name": "aekd", "teachers": PANEL}, "aekd"),
        ({"name": "aekd", "teachers": PANEL[:1]}, ""),
        ({"name": "aver", "teachers": PANEL}, ""),
        ({"name": "aver", "teachers": PANEL, "distill": {"kind": "dist"}}, "dist"),
        ({"name": "ca_mkd", "teachers": PANEL, "distill": {"kind": "dkd"}}, ""),
        ({"name": "kd", "teacher": PANEL[0]}, ""),
    ],
)
def test_losses_over_a_whole_batch_are_for_one_process(method, refused):
    plan = plans_of(method)[-1]
    _check_whole_batch(plan, 1)
    if not refused:
        _check_whole_batch(plan, 2)
        return
    with pytest.raises(ParamsError, match=f"{refused} compares the samples of a batch .*EDPIPE_PROCESSES=1"):
        _check_whole_batch(plan, 2)
