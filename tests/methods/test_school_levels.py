"""Knobs of a school's levels in params.yaml: which stage gets what, and what cannot be."""

import copy

import pytest
from method_stages import school
from school import params as school_params

from edpipe.errors import ParamsError
from edpipe.params.load import parse_params
from edpipe.params.stage import StageKnobs
from edpipe.pipeline.jobs.model_checks import check_params
from edpipe.results.page.words import loss_text, method_text

LEVELS = ("primary", "middle", "university")
BUDGETS = dict.fromkeys(LEVELS, StageKnobs(epochs=1))
WIDE = [{"name": "primary", "blocks": 1}, {"name": "middle", "blocks": 1}, {"name": "university", "blocks": 3}]
KNOBS = ("hardest", "coarse", "frozen", "new_block", "fade_in", "fading", "fading_blocks")
PLACE = "experiments.ed.method."


def plans(*fields, **knobs):
    """These fields of each level's plan."""
    found = school(BUDGETS, **{"teacher": "general", "classes": "all"} | knobs)
    return [tuple(getattr(plan, field) for field in fields) for plan in found]


def raw(student=None, **method):
    given = copy.deepcopy(school_params())
    given["experiments"]["ed"]["method"] = {"name": "ed", "teacher": "general", "classes": "all"} | method
    given["students"]["resnet8"] |= student or {}
    return given


def complaint(given):
    with pytest.raises(ParamsError) as caught:
        check_params(parse_params(given), ("ed",))
    return str(caught.value)


def test_without_these_knobs_levels_are_as_before():
    assert plans(*KNOBS) == [(1.0, False, 0, "drawn", 0.0, (), 0)] * 3


def test_knobs_of_single_levels_go_to_these():
    found = plans(
        *("hardest", "easiest", "coarse", "frozen"),
        hardest={"university": 0.5},
        easiest={"primary": 0.25},
        coarse=["primary", "middle"],
        frozen={"university": 2},
    )
    assert found == [(1.0, 0.25, True, 0), (1.0, 1.0, True, 0), (0.5, 1.0, False, 2)]


def test_only_levels_that_add_blocks_say_how_these_start():
    fields = ("new_block", "fade_in", "fading", "fading_blocks")
    knobs = {"new_block": "zero", "fade_in": 0.5}
    plain = ("drawn", 0.0, (), 0)
    assert plans(*fields, **knobs) == [plain, ("zero", 0.5, LEVELS, 1), ("zero", 0.5, LEVELS, 2)]
    assert plans(*fields, levels=WIDE, **knobs) == [plain, plain, ("zero", 0.5, LEVELS, 1)]
    growing = plans("fading", "fading_blocks", classes="growing", fade_in=1)
    assert growing == [((), 0), (LEVELS[:1], 1), (LEVELS[:2], 2)]
    assert plans("fading", "fading_blocks", new_block="zero") == [((), 0)] * 3


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ({"coarse": ["colege"]}, "coarse: 'colege' is not in the levels; known: middle, primary, university"),
        ({"frozen": {"midle": 1}}, "frozen: 'midle' is not in the levels; did you mean 'middle'?"),
        ({"frozen": {"middle": 0}}, "frozen.middle: got 0; input should be greater than or equal to 1"),
        (
            {"frozen": {"primary": 1}},
            "frozen.primary: got 1, but the level has 1 block and the one before has no blocks; what is frozen must "
            "have been trained, and one block must learn: remove it",
        ),
        (
            {"frozen": {"university": 3}},
            "frozen.university: got 3, but the level has 3 blocks and the one before has 2 blocks; what is frozen "
            "must have been trained, and one block must learn: give at most 2",
        ),
        (
            {"levels": WIDE, "frozen": {"middle": 1}},
            "frozen.middle: got 1, but the level has 1 block and the one before has 1 block; what is frozen must "
            "have been trained, and one block must learn: remove it",
        ),
        ({"fade_in": 1.5}, "fade_in: got 1.5; input should be less than or equal to 1"),
        ({"new_block": "null"}, "new_block: 'null' is not allowed; allowed: 'drawn' or 'zero'"),
        (
            {"classes": "growing", "coarse": ["primary"]},
            "coarse: level 'primary' teaches only subset 'primary', so there is nothing to be told apart; set classes: "
            "all or replay: true, or name a later level",
        ),
        (
            {"classes": "growing", "replay": False, "coarse": ["middle"]},
            "coarse: level 'middle' teaches only subset 'middle', so there is nothing to be told apart; set classes: "
            "all or replay: true, or name a later level",
        ),
        (
            {"coarse": ["primary", "university"]},
            "coarse: 'university' is the last level, which must learn the classes; name earlier ones alone",
        ),
        (
            {"levels": [{"name": "Primary", "blocks": 3}]},
            "levels.0.name: got 'Primary'; input should be a text that matches '^[a-z][a-z0-9_]*$'",
        ),
        (
            {"teacher": "specialists", "coarse": ["middle"]},
            "coarse: level 'middle' tells subsets apart, but teacher 'specialists' knows one subset at a time; use a "
            "teacher whose partition is absent",
        ),
    ],
)
def test_what_cannot_be_is_one_line(method, line):
    assert complaint(raw(**method)) == PLACE + line


@pytest.mark.parametrize("knobs", [{"new_block": "zero"}, {"fade_in": 0.5}])
def test_a_school_without_new_blocks_has_no_knob_of_them(knobs):
    given = raw(levels=[{"name": name, "blocks": 1} for name in LEVELS], **knobs)
    assert (
        complaint(given)
        == f"{PLACE}{next(iter(knobs))}: is of levels that add blocks, but all levels have 1; remove it"
    )


@pytest.mark.parametrize("knobs", [{"fade_in": 0.5}, {"frozen": {"middle": 1}}])
def test_the_authors_references_neither_fade_nor_stand_on_frozen_blocks(knobs):
    assert complaint(raw({"reference": "authors"}, **knobs)) == (
        f"{PLACE}{next(iter(knobs))}: does not go with a student whose reference is 'authors'; use reference: adapter"
    )


def test_sampled_rows_add_up_at_temperature_1_alone():
    given = raw(coarse=["primary"], temperature=2)
    sampled = {"precision": "sampled", "draws": 9, "temperature": 2, "max_kl": None}
    given["soft_labels"]["digits"]["storage"] = sampled
    given["experiments"] = {"ed": given["experiments"]["ed"]}
    assert complaint(given) == (
        f"{PLACE}coarse: adds up probabilities at temperature 1, but soft_labels.digits.storage samples at "
        "temperature 2; use another precision, or remove coarse"
    )
    sampled["temperature"] = given["experiments"]["ed"]["method"]["temperature"] = 1
    assert parse_params(given)


@pytest.mark.slow
def test_networks_whose_units_end_in_no_normalisation_cannot_start_as_shortcuts():
    assert complaint(raw({"model": "wrn_10_1"}, new_block="zero")) == (
        "experiments.ed.student: model 'wrn_10_1': new_block: zero needs residual units that end in a normalisation, "
        "and none was found in block 2; use new_block: drawn, or a residual network such as resnet20"
    )
    check_params(parse_params(raw(new_block="zero")), ("ed",))


def test_the_page_says_how_the_student_grows_and_what_fades():
    found = school(BUDGETS, teacher="general", classes="all", fade_in=0.25)
    assert "at each school level the student grows by one block and learns" in method_text("ed", found)
    assert loss_text(found[0]).endswith("at temperature 4")
    assert loss_text(found[1]).endswith("at temperature 4, of logits that come in over 0.25 of the stage")
    same = [plan.model_copy(update={"blocks": blocks}) for plan, blocks in zip(found, (1, 1, 3), strict=True)]
    assert "the student has its first 1, 1, 3 blocks and learns" in method_text("ed", same)
