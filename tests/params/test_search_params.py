"""`searches:` in params.yaml: which trials follow, what they are called, and what is refused in one line."""

import copy

import pytest
from shipped import shipped_and_examples

from edpipe.errors import ParamsError
from edpipe.params.load import parse_params
from edpipe.params.searches.trials import set_value

RAW = shipped_and_examples()
RATE, BATCH = "stages.only.learning_rate", "recipe.batch_size"
OVER = {RATE: [0.05, 0.1, 0.2], BATCH: [32, 64]}


def raw_with(*searches):
    raw = copy.deepcopy(RAW) | {"studies": {}}
    named = {f"s{number}": search for number, search in enumerate(searches)}
    return raw | {"searches": named}


def params_with(**changes):
    search = {"experiment": "digits_kd", "over": OVER, "seeds": [1000, 1001]} | changes
    return parse_params(raw_with({key: value for key, value in search.items() if value is not None}))


def names(params, search="s0"):
    return [trial.name for trial in params.trials[search]]


def test_a_trial_is_the_experiment_with_its_values():
    params = params_with()
    base, trial = params.experiments["digits_kd"], params.trials["s0"][1]
    assert trial.values == {RATE: 0.05, BATCH: 64}
    assert trial.experiment.stages["only"].learning_rate == 0.05
    assert trial.experiment.stages["only"].images == base.stages["only"].images
    assert (trial.experiment.method, trial.experiment.student) == (base.method, base.student)
    assert trial.experiment.seeds == (1000, 1001)
    found = params.with_trials
    assert found.recipes[found.experiments[trial.name].recipe].batch_size == 64
    assert found.recipes[base.recipe] == params.recipes[base.recipe]


def test_no_trial_and_no_recipe_of_one_stands_among_the_users_own():
    params = params_with()
    assert set(params.experiments) == set(RAW["experiments"])
    assert set(params.recipes) == set(RAW["recipes"])
    assert set(params.with_trials.experiments) == set(RAW["experiments"]) | set(names(params))
    assert not any(name.replace("_", "").isalnum() for name in names(params))


def test_the_whole_grid_is_in_order_of_the_paths_and_values():
    values = [tuple(trial.values.values()) for trial in params_with().trials["s0"]]
    assert values == [(0.05, 32), (0.05, 64), (0.1, 32), (0.1, 64), (0.2, 32), (0.2, 64)]


def test_a_larger_drawing_has_the_trials_of_a_smaller_one():
    drawn = {number: set(names(params_with(trials=number))) for number in range(1, 7)}
    assert [len(drawn[number]) for number in drawn] == list(drawn)
    assert all(drawn[number] < drawn[number + 1] for number in range(1, 6))
    assert drawn[6] == set(names(params_with()))


def test_the_seed_decides_the_drawing():
    # By sha256 of the seed and the point, which no library changes.
    assert names(params_with(trials=2)) == names(params_with(trials=2, seed=0))
    assert len({tuple(names(params_with(trials=2, seed=seed))) for seed in range(8)}) > 1


def test_a_trial_keeps_its_name_when_values_are_added_or_the_experiment_takes_its_value_over():
    before = set(names(params_with()))
    assert before < set(names(params_with(over={RATE: [*OVER[RATE], 0.4], BATCH: OVER[BATCH]})))
    raw = raw_with({"experiment": "digits_kd", "over": OVER, "seeds": [1000]})
    raw["experiments"]["digits_kd"]["stages"]["only"]["learning_rate"] = 0.2
    assert set(names(parse_params(raw))) == before


def test_equal_trials_of_two_searches_are_one_with_the_seeds_of_both():
    narrow = {"experiment": "digits_kd", "over": {RATE: [0.05]}, "seeds": [7]}
    batch = parse_params(RAW).recipes[RAW["experiments"]["digits_kd"]["recipe"]].batch_size
    params = parse_params(raw_with(narrow, narrow | {"over": {BATCH: [batch], RATE: [0.05]}, "seeds": [7, 8]}))
    assert names(params) == names(params, "s1")
    assert params.with_trials.experiments[names(params)[0]].seeds == (7, 8)


def test_another_budget_of_the_experiment_is_another_trial():
    raw = raw_with({"experiment": "digits_kd", "over": OVER, "seeds": [1000]})
    raw["experiments"]["digits_kd"]["stages"]["only"]["images"] += 64
    assert not set(names(parse_params(raw))) & set(names(params_with()))


def test_a_path_inside_of_another_comes_after_it():
    methods = [{"name": "kd", "teacher": "digits_teacher"}, {"name": "dkd", "teacher": "digits_teacher"}]
    params = params_with(over={"method.temperature": [2.0, 3.0], "method": methods})
    found = [(trial.experiment.method.name, trial.experiment.method.temperature) for trial in params.trials["s0"]]
    assert found == [("kd", 2.0), ("dkd", 2.0), ("kd", 3.0), ("dkd", 3.0)]


def test_any_level_may_be_named_in_a_mapping_of_levels():
    raw = raw_with({"experiment": "digits_ed", "over": {"method.easiest.middle": [0.5, 0.75]}, "seeds": [1000]})
    raw["experiments"]["digits_ed"]["method"]["easiest"] = {"primary": 0.5}
    found = [dict(trial.experiment.method.easiest) for trial in parse_params(raw).trials["s0"]]
    assert found == [{"primary": 0.5, "middle": share} for share in (0.5, 0.75)]


def test_another_recipe_is_the_one_that_is_reached_into():
    params = params_with(over={"recipe": ["small_images", "tiny_images"], BATCH: [48]})
    named = [params.with_trials.recipes[trial.experiment.recipe] for trial in params.trials["s0"]]
    found = [(recipe.batch_size, recipe.schedule) for recipe in named]
    own = parse_params(RAW).recipes
    assert found == [(48, own[name].schedule) for name in ("small_images", "tiny_images")]


def test_a_stage_can_have_its_recipe_varied():
    path = "stages.primary.recipe.batch_size"
    params = params_with(experiment="digits_ed", over={path: [16, 24], BATCH: [48]})
    found, base = params.with_trials, params.experiments["digits_ed"]
    sizes = []
    for trial in params.trials["s0"]:
        stages = trial.experiment.stages
        named = {stage: found.recipes[knobs.recipe or trial.experiment.recipe] for stage, knobs in stages.items()}
        sizes.append({stage: recipe.batch_size for stage, recipe in named.items()})
        assert {recipe.schedule for recipe in named.values()} == {params.recipes[base.recipe].schedule}
    assert sizes == [{"primary": size, "middle": 48, "university": 48} for size in (16, 24)]
    # It says the same as a recipe of the experiment alone.
    assert names(params_with(experiment="digits_ed", over={path: [48], BATCH: [48]})) == names(
        params_with(experiment="digits_ed", over={BATCH: [48]})
    )


def test_a_recipe_that_no_stage_uses_makes_no_trials():
    raw = raw_with({"experiment": "digits_kd", "over": {BATCH: [32, 64]}, "seeds": [1000]})
    raw["experiments"]["digits_kd"]["stages"]["only"]["recipe"] = "small_images"
    said = (
        r"^searches\.s0\.over: recipe\.batch_size 32 and recipe\.batch_size 64 are the same trial; remove one of these"
    )
    with pytest.raises(ParamsError, match=said):
        parse_params(raw)


def test_knobs_that_are_left_out_in_params_yaml_can_be_varied():
    params = params_with(experiment="digits_ed", over={"method.distill.standardise": [True], "method.easiest": [{}]})
    (trial,) = params.trials["s0"]
    assert trial.experiment.method.distill.standardise
    assert trial.experiment.method.distill.kind == "kd"


def test_a_place_in_a_list_is_set_by_its_number():
    raw = {"teachers": ["a", "b"]}
    set_value(raw, ["teachers", "1"], "c", {})
    assert raw == {"teachers": ["a", "c"]}
    with pytest.raises(LookupError):
        set_value(raw, ["teachers", "2"], "d", {})


KD = {"name": "kd", "teacher": "digits_teacher"}
WRONG = [
    ({"experiment": "digits_dk"}, "s0.experiment: 'digits_dk' is not in experiments; did you mean 'digits_kd'?"),
    ({"trails": 3}, "s0.trails: unknown key; did you mean 'trials'?"),
    ({"over": {}}, "s0.over: got {}; input should be a mapping with at least 1 item"),
    ({"over": {BATCH: []}}, "s0.over.recipe.batch_size: got []; input should be a list with at least 1 item"),
    ({"over": {BATCH: [32, 32]}}, "s0: over.recipe.batch_size: 32 stands there twice; write each value once"),
    ({"over": {RATE: [1, 1.0]}}, "s0: over.stages.only.learning_rate: 1.0 stands there twice; write each value once"),
    ({"seeds": [1, 1]}, "s0: seeds must differ, got [1, 1]"),
    (
        {"seeds": [5, 0]},
        "s0.seeds: 0 is a seed of experiment 'digits_kd' too; the students that choose the knobs must not be those "
        "that are reported; give others than [0, 1, 2]",
    ),
    (
        {"trials": 7},
        "s0.trials: 7 are more than the 6 points of the grid; give at most 6, or more values",
    ),
    (
        {"over": {BATCH: list(range(2, 1003))}},
        "s0: 1,001 trials; at most 1,000 are allowed; give fewer in trials",
    ),
    (
        {"over": {BATCH: list(range(2, 103)), "recipe.momentum": [k / 100 for k in range(100)]}, "trials": 3},
        "s0.over: the grid has 10,100 points; at most 10,000 are allowed; give fewer values",
    ),
    (
        {"over": {"recipe.batchsize": [32]}},
        "s0.over.recipe.batchsize: experiment 'digits_kd' has no such knob: 'batchsize' is unknown; did you mean "
        "'batch_size'?",
    ),
    (
        {"over": {"stages.onyl.images": [32]}},
        "s0.over.stages.onyl.images: experiment 'digits_kd' has no such knob: 'onyl' is unknown; did you mean 'only'?",
    ),
    (
        {"over": {"stages.only.images.x": [32]}},
        "s0.over.stages.only.images.x: experiment 'digits_kd' has no such knob: 'x' is unknown; it has no parts",
    ),
    (
        {"over": {"dataset": ["food101"]}},
        "s0.over.dataset: cannot be varied; trials are compared on one data set; write a search for each",
    ),
    ({"over": {"seeds": [[1]]}}, "s0.over.seeds: cannot be varied; write seeds of the search instead"),
    ({"over": {BATCH: [32, 1]}}, "s0.over.recipe.batch_size: got 1; input should be greater than or equal to 2"),
    ({"over": {RATE: [0.1, -1]}}, "s0.over.stages.only.learning_rate: got -1; input should be greater than 0"),
    (
        {"over": {"recipe": ["tiny_image"]}},
        "s0.over.recipe: 'tiny_image' is not in recipes; did you mean 'tiny_images'?",
    ),
    (
        {"over": {"stages.only.recipe.batch_size": [1]}},
        "s0.over.stages.only.recipe.batch_size: got 1; input should be greater than or equal to 2",
    ),
    (
        {"over": {"stages.only.recipe": ["tiny_image"], "stages.only.recipe.gamma": [0.5]}},
        "s0.over.stages.only.recipe: 'tiny_image' is not in recipes; did you mean 'tiny_images'?",
    ),
    (
        {"over": {"stages.only.recipe.gama": [1]}},
        "s0.over.stages.only.recipe.gama: experiment 'digits_kd' has no such "
        "knob: 'gama' is unknown; did you mean 'gamma'?",
    ),
    (
        {"over": {"stages.only.epochs": [1]}},
        "s0.over: with stages.only.epochs 1: stages.only: give exactly one of epochs, images and compute, got epochs "
        "and images",
    ),
    (
        {"over": {"method.task_weight": [0.3, 1.0], BATCH: [32]}},
        "s0.over: with method.task_weight 1.0, recipe.batch_size 32: method: task_weight 1 leaves nothing for the "
        "teacher; give distill_weight",
    ),
    (
        {"over": {"method.teacher": ["digits_techer"]}},
        "s0.over.method.teacher: 'digits_techer' is not in teachers; did you mean 'digits_teacher'?",
    ),
    (
        {"over": {"stages": [{"one": {"images": 64}}]}},
        "s0.over.stages: needs exactly ['only'] (method 'kd' has one stage), got ['one']",
    ),
    (
        {"over": {"method": [{"name": "aver", "teachers": ["digits_teacher"] * 2}], "method.teachers.2": ["x"]}},
        "s0.over: with method {'name': 'aver', 'teachers': ['digits_teacher', 'digits_teacher']}, method.teachers.2 x: "
        "no place '2' in a value",
    ),
    (
        {"over": {"method": [KD, KD | {"task_weight": 0.3}]}},
        "s0.over: method {'name': 'kd', 'teacher': 'digits_teacher'} and method {'name': 'kd', 'teacher': "
        "'digits_teacher', 'task_weight': 0.3} are the same trial; remove one of these values",
    ),
]


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[said[:60] for _, said in WRONG])
def test_what_is_wrong_is_one_line_with_its_place(changes, said):
    with pytest.raises(ParamsError) as error:
        params_with(**changes)
    assert str(error.value) == f"searches.{said}"


def test_a_search_and_an_experiment_cannot_share_a_file():
    raw = raw_with({"experiment": "digits_kd", "over": OVER, "seeds": [1000]})
    raw["experiments"]["search_s0"] = raw["experiments"]["digits_kd"]
    with pytest.raises(ParamsError, match=r"^searches\.s0: results/search_s0\.json belongs to experiments\.search_s0;"):
        parse_params(raw)


def test_many_searches_are_read_at_once():
    params = params_with(over={BATCH: list(range(2, 402))})
    assert len(set(names(params))) == 400


def test_a_reason_does_not_name_the_trial_either():
    levels = [{"name": "primary", "blocks": 1}, {"name": "rest", "blocks": 3}]
    with pytest.raises(ParamsError) as caught:
        params_with(experiment="digits_ed", over={"method.levels": [levels]})
    assert "needs exactly ['primary', 'rest'] (those of method.levels), got" in str(caught.value)
