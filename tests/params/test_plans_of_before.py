"""Plans in records of before plugins, read in today's words."""

import pytest
from method_stages import only_stage, school

from edpipe.params.plans.plan import StagePlan, knobs_as_now, plan_as_now
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.stage import StageKnobs

SINCE_LEVELS = (
    *("blocks", "num_blocks", "kept_blocks", "span"),
    *("hardest", "coarse", "frozen", "new_block", "fade_in", "fading", "fading_blocks"),
)
"""Fields that plans have since stages and blocks are counted apart, or later."""
BUDGET = StageKnobs(epochs=2)
METHODS = {
    "ce": {"name": "ce"},
    "kd": {"name": "kd", "teacher": "general"},
    "teskd": {"name": "teskd", "temperature": 3.0, "feature_weight": 1e-5},
    "ctkd": {"name": "ctkd", "scratch": "scratch", "expert": "expert", "attention_weight": 7.0},
}


def as_before(plan):
    """The same plan as edpipe wrote it before: two methods had fields of their own, which all plans held."""
    old = {name: value for name, value in plan.items() if name not in ("own_loss", *SINCE_LEVELS)}
    old["budget"] = {name: plan["budget"][name] for name in ("epochs", "images", "learning_rate")}
    own = plan["own_loss"] or {"kind": ""}
    knobs = {name: value for name, value in own.items() if name != "kind"}
    return old | {
        "teskd": knobs if own["kind"] == "teskd" else None,
        "attention_weight": own.get("attention_weight", 0.0),
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_plan_of_before_is_the_plan_of_now(name):
    plan = only_stage(BUDGET, **METHODS[name]).model_dump(mode="json")
    assert plan_as_now(as_before(plan)) == plan_as_now(plan) == plan
    assert StagePlan.model_validate(plan_as_now(as_before(plan))).model_dump(mode="json") == plan
    recipe = RecipeKnobs().model_dump(mode="json")
    assert knobs_as_now({"plan": as_before(plan), "recipe": recipe}) == {"plan": plan, "recipe": recipe}


def test_a_level_of_before_has_as_many_blocks_as_its_number():
    budgets = {"primary": BUDGET, "middle": BUDGET, "university": BUDGET}
    for plan in school(budgets, teacher="general", references="kept"):
        now = plan.model_dump(mode="json")
        assert plan_as_now(as_before(now)) == now
        assert (now["blocks"], now["num_blocks"]) == (now["number"], 3)
        assert now["kept_blocks"] == list(range(1, now["number"]))


def test_a_plan_of_another_edpipe_is_left_as_it_is():
    plan = only_stage(BUDGET, name="ce").model_dump(mode="json") | {"from_tomorrow": 1}
    assert plan_as_now(plan) == plan


def test_knobs_of_other_steps_stay_as_they_are():
    assert knobs_as_now({"network": {"model": "resnet8"}}) == {"network": {"model": "resnet8"}}
