"""Levels, phases, image sizes and budgets of compute in params.yaml: what follows from them, and what is refused."""

import copy

import pytest
from method_stages import GivenSetting, method_of, school
from school import params as school_params

from edpipe.errors import ParamsError
from edpipe.params.load import parse_params
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.stage import StageKnobs
from edpipe.pipeline.jobs.students import run_stage

HALF, FULL = StageKnobs(compute=100, image_size=4), StageKnobs(compute=300)
LEVELS = [{"name": "small", "blocks": 1}, {"name": "whole", "blocks": 3}, {"name": "large", "blocks": 3}]
STAGES = {
    "small": {"compute": 100, "image_size": 4, "recipe": "slow"},
    "whole": {"compute": 100, "image_size": 6},
    "large": {"compute": 200},
}
PHASES = {"name": "kd", "teacher": "general", "phases": ["small", "whole", "large"]}


def params(method=None, stages=None):
    raw = copy.deepcopy(school_params())
    raw["recipes"]["slow"] = {"batch_size": 8}
    method = method or {"name": "ed", "classes": "all", "teacher": "general", "levels": LEVELS}
    experiment = raw["experiments"]["ed"] | {"method": method, "stages": stages or STAGES}
    raw["experiments"] = {"try": experiment}
    raw["tracked"], raw["studies"] = [], {}
    return raw


def complaint(**given):
    with pytest.raises(ParamsError) as caught:
        parse_params(params(**given))
    return str(caught.value)


def plans(**given):
    return curriculum(parse_params(params(**given)), "try")


def test_levels_have_blocks_and_sizes_of_their_own():
    found = plans()
    assert [(p.name, p.number, p.num_stages, p.blocks, p.num_blocks) for p in found] == [
        ("small", 1, 3, 1, 3),
        ("whole", 2, 3, 3, 3),
        ("large", 3, 3, 3, 3),
    ]
    assert [p.budget.image_size for p in found] == [4, 6, None]
    assert all(p.known == p.taught == ("primary", "middle", "university") for p in found)


def test_a_stage_has_its_own_recipe_and_its_name_is_no_knob_of_the_job():
    parsed = parse_params(params())
    jobs = [run_stage(parsed, "try", 0, name) for name in STAGES]
    assert [job.knobs.recipe.batch_size for job in jobs] == [
        8,
        *[parsed.recipes[parsed.experiments["try"].recipe].batch_size] * 2,
    ]
    assert [job.knobs.plan.budget.recipe for job in jobs] == [None] * 3
    assert "recipes.slow" in jobs[0].keys
    assert "recipes.slow" not in jobs[1].keys


def test_growing_classes_are_introduced_by_levels_of_their_names():
    levels = [{"name": n, "blocks": b} for n, b in (("primary", 1), ("again", 1), ("middle", 2), ("university", 3))]
    budgets = dict.fromkeys([level["name"] for level in levels], StageKnobs(epochs=1))
    setting = GivenSetting(given_levels=("primary", "middle", "university"), given_budgets=budgets)
    found = method_of(name="ed", teacher="general", levels=levels).stages(setting)
    assert [plan.known for plan in found] == [
        ("primary",),
        ("primary",),
        ("primary", "middle"),
        ("primary", "middle", "university"),
    ]
    without_replay = method_of(name="ed", teacher="general", levels=levels, replay=False).stages(setting)
    assert [plan.taught for plan in without_replay] == [("primary",), ("primary",), ("middle",), ("university",)]


def test_kept_references_are_those_of_earlier_depths():
    levels = [{"name": f"l{k}", "blocks": b} for k, b in enumerate((1, 1, 2, 2, 3, 3))]
    method = {"name": "ed", "classes": "all", "teacher": "general", "levels": levels, "references": "kept"}
    found = plans(method=method, stages={level["name"]: {"epochs": 1} for level in levels})
    assert [plan.kept_blocks for plan in found] == [(), (), (1,), (1,), (1, 2), (1, 2)]
    assert [len(plan.kept) for plan in found] == [0, 0, 1, 1, 2, 2]


def test_phases_share_one_schedule_by_their_budgets():
    found = plans(method=PHASES)
    assert [(p.name, p.number, p.num_stages, p.blocks, p.num_blocks) for p in found] == [
        ("small", 1, 3, 1, 1),
        ("whole", 2, 3, 1, 1),
        ("large", 3, 3, 1, 1),
    ]
    assert [p.window for p in found] == [(0.0, 0.25), (0.25, 0.5), (0.5, 1.0)]
    restarted = plans(method=PHASES | {"rate_schedule": "restarted"})
    assert [p.window for p in restarted] == [(0.0, 1.0)] * 3


@pytest.mark.parametrize("name", ["kd", "dkd", "ed"])
def test_a_loss_that_changes_on_the_way_knows_which_part_of_the_training_a_stage_is(name):
    distill = {"kind": "kd" if name == "kd" else "dkd"}
    if name == "ed":
        method = {"name": "ed", "classes": "all", "teacher": "general", "levels": LEVELS, "distill": distill}
    else:
        method = PHASES | {"name": name}
    spans = [plan.span for plan in plans(method=method)]
    assert spans == ([(0.0, 1.0)] * 3 if name == "kd" else [(0.0, 0.25), (0.25, 0.5), (0.5, 1.0)])


def test_only_the_level_of_such_a_loss_knows_it():
    budgets = {"a": StageKnobs(images=10), "b": StageKnobs(images=30)}
    found = school(budgets, teacher="general", distill_by_level={"b": {"kind": "dkd"}})
    assert [plan.span for plan in found] == [(0.0, 1.0), (0.25, 1.0)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"stages": STAGES | {"large": {"compute": 200, "images": 5}}},
            "experiments.try.stages.large: give exactly one of epochs, images and compute, got images and compute",
        ),
        (
            {"stages": STAGES | {"large": {"learning_rate": 0.1}}},
            "experiments.try.stages.large: give exactly one of epochs, images and compute, got none",
        ),
        (
            {"stages": STAGES | {"large": {"compute": 200, "image_size": 4}}},
            "experiments.try.stages.large.image_size: 4, but the student is to know images of 8 pixels after the last "
            "stage; remove it",
        ),
        (
            {"stages": STAGES | {"whole": {"compute": 200, "image_size": 9}}},
            "experiments.try.stages.whole.image_size: 9, but images of 'digits' have 8 pixels; give less",
        ),
        (
            {"stages": STAGES | {"whole": {"compute": 200, "recipe": "slwo"}}},
            "experiments.try.stages.whole.recipe: 'slwo' is not in recipes; did you mean 'slow'?",
        ),
        (
            {"method": PHASES, "stages": STAGES | {"large": {"epochs": 2}}},
            "experiments.try.method.rate_schedule: 'carried' needs the budgets of all stages in one of epochs, images "
            "and compute, got epochs and compute",
        ),
        (
            {"method": PHASES | {"phases": ["small", "small"]}},
            "experiments.try.method: phases must differ, got ['small', 'small']",
        ),
        (
            {
                "method": {"name": "kd", "teacher": "general", "rate_schedule": "carried"},
                "stages": {"only": STAGES["large"]},
            },
            "experiments.try.method: rate_schedule belongs to phases; remove it, or name phases",
        ),
        (
            {"method": PHASES | {"phases": ["small", "large"]}},
            "experiments.try.stages: needs exactly ['small', 'large'] (its phases), got ['small', 'whole', 'large']",
        ),
        (
            {"method": {"name": "ed", "teacher": "general", "classes": "all", "levels": LEVELS[::-1]}},
            "experiments.try.method: levels: blocks must not become fewer, got [3, 3, 1]",
        ),
        (
            {"method": {"name": "ed", "teacher": "general", "classes": "all", "levels": LEVELS[:1] * 2}},
            "experiments.try.method: levels: names must differ, got ['small', 'small']",
        ),
        (
            {"method": {"name": "ed", "teacher": "general", "levels": LEVELS}},
            "experiments.try.method.levels.0.name: 'small' is no subset, so the first level would have no class; name "
            "one of primary, middle, university, or set classes: all",
        ),
        (
            {
                "method": {
                    "name": "ed",
                    "teacher": "general",
                    "levels": [{"name": "primary", "blocks": 1}, {"name": "middle", "blocks": 3}],
                },
                "stages": {"primary": {"epochs": 1}, "middle": {"epochs": 1}},
            },
            "experiments.try.method.levels.1: 'middle' has all 3 blocks, so all classes must be known, but "
            "'university' is not introduced; name a level after it, at the latest this one, or set classes: all",
        ),
        (
            {
                "method": {
                    "name": "ed",
                    "classes": "all",
                    "teacher": "general",
                    "levels": LEVELS,
                    "distill": {"kind": "at"},
                }
            },
            "experiments.try.method: at learns from attention maps",
        ),
    ],
)
def test_a_mistake_is_one_line(given, message):
    assert complaint(**given).startswith(message)


def test_features_of_smaller_images_are_not_compared_with_stored_ones():
    raw = params(
        method={"name": "ed", "classes": "all", "teacher": "general", "levels": LEVELS, "distill": {"kind": "at"}}
    )
    raw["soft_labels"]["digits"]["storage"]["attention"] = True
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert str(caught.value) == (
        "experiments.try.stages.small.image_size: 4, but 'at' compares features with those of views of 8 pixels; "
        "remove it, or use a loss of logits in this stage"
    )


def test_a_reference_of_the_authors_grows_in_every_level():
    raw = params()
    raw["students"][raw["experiments"]["try"]["student"]]["reference"] = "authors"
    with pytest.raises(
        ParamsError, match=r"experiments.try.method.levels: a student whose reference is 'authors' grows"
    ):
        parse_params(raw)


def test_the_authors_first_reference_fits_one_size_so_no_anchor_compares_with_it():
    levels = [{"name": f"level{blocks}", "blocks": blocks} for blocks in (1, 2, 3)]
    method = {"name": "ed", "classes": "all", "teacher": "general", "levels": levels, "anchor_weight": 0.5}
    stages = {"level1": {"compute": 100, "image_size": 4}, "level2": {"compute": 100}, "level3": {"compute": 100}}
    raw = params(method=method, stages=stages)
    parse_params(raw)
    raw["students"][raw["experiments"]["try"]["student"]]["reference"] = "authors"
    with pytest.raises(ParamsError, match=r"^experiments\.try\.method\.anchor_weight: a student whose ref"):
        parse_params(raw)
    stages["level1"].pop("image_size")
    parse_params(raw)


@pytest.mark.parametrize("knob", ["phases", "levels"])
def test_stages_are_fewer_than_a_byte_of_their_seeds_can_tell_apart(knob):
    names = [f"s{k}" for k in range(256)]
    levels = {"name": "ed", "classes": "all", "levels": [{"name": name, "blocks": 1} for name in names]}
    method = {"name": "kd", "phases": names} if knob == "phases" else levels
    message = complaint(method=method | {"teacher": "general"}, stages={name: {"epochs": 1} for name in names})
    assert message.startswith(f"experiments.try.method.{knob}: ")
    assert "200" in message
