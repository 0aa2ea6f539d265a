"""What params.yaml alone decides is found before the first job: stages, maps, hints, sizes, sources of weights."""

import copy

import pytest
from shipped import shipped_and_examples

from edpipe.errors import ParamsError
from edpipe.params.load import parse_params
from edpipe.pipeline.jobs.model_checks import check_params

RAW = shipped_and_examples()
FOUR = ("a", "b", "c", "d")
ED = "experiments.digits_ed"
STORAGE = "soft_labels.digits.storage"
TEACHER = "teachers.digits_teacher.network"


def params(changes):
    raw = copy.deepcopy(RAW)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = raw
        for key in parents:
            place = place[key]
        place[last] = value
    return parse_params(raw)


def four_levels():
    """digits_ed with a level more than resnet8 has feature stages."""
    teacher = copy.deepcopy(RAW["teachers"][RAW["experiments"]["digits_kd"]["method"]["teacher"]])
    return {
        "partitions.quarters": {"subsets": list(FOUR)},
        f"{ED}.partition": "quarters",
        f"{ED}.stages": {level: {"epochs": 1} for level in FOUR},
        "teachers.whole": teacher,
        f"{ED}.method": {"name": "ed", "teacher": "whole"},
    }


def problems(changes, *experiments):
    with pytest.raises(ParamsError) as error:
        check_params(params(changes), experiments)
    return str(error.value).splitlines()


@pytest.mark.slow
def test_shipped_digits_have_no_problem():
    check_params(params({}), ("digits_ce", "digits_kd", "digits_ed"))


@pytest.mark.slow
def test_more_levels_than_feature_stages():
    assert problems(four_levels(), "digits_ed") == [
        "experiments.digits_ed.student: model 'resnet8': has 3 feature stages (sample, channel, height, width) but 4 "
        "blocks are asked for; use a partition of fewer subsets, fewer blocks in method.levels, or another model"
    ]
    check_params(params(four_levels()), ("digits_ce", "digits_kd"))
    check_params(params(four_levels()), ("digits_ed",), with_networks=False)
    check_params(params(four_levels() | {"students.resnet8.model": "cifar_resnet18"}), ("digits_ed",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{STORAGE}.attention": True, f"{TEACHER}.model": "vgg8"}, None),
        ({f"{STORAGE}.hint": {"feature_stage": 3}}, None),
        (
            {f"{STORAGE}.hint": {"feature_stage": 4}},
            "teachers.digits_teacher.network: model 'resnet14': has 3 feature stages (sample, channel, height, width), "
            "storage.hint.feature_stage 4 is none of them; give 1 to 3, remove storage.hint, or use another model",
        ),
    ],
)
def test_what_is_stored_of_a_teacher(changes, message):
    if message is None:
        check_params(params(changes), ("digits_kd",))
    else:
        assert problems(changes, "digits_kd") == [message]


def fitnet(**hint):
    return {
        f"{STORAGE}.hint": hint,
        "experiments.digits_kd.method": {"name": "fitnet", "teacher": "digits_teacher"},
    }


@pytest.mark.slow
def test_a_students_features_must_have_the_size_of_the_teachers_hint():
    for hint in ({}, {"side": 4}, {"side": 3}):
        check_params(params(fitnet(feature_stage=2, **hint)), ("digits_kd",))
    larger = fitnet(feature_stage=2) | {f"{TEACHER}.image_size": 24}
    assert problems(larger, "digits_kd") == [
        "experiments.digits_kd.student: model 'resnet8': stage 2 gives maps of 4×4, the teacher's hint is 12×12; the "
        "student's must be as large, larger, or half as large: give storage.hint.side 4 or less, or use another student"
    ]
    check_params(params(fitnet(feature_stage=2, side=4) | {f"{TEACHER}.image_size": 24}), ("digits_kd",))
    check_params(params(fitnet(feature_stage=2) | {f"{TEACHER}.image_size": 16}), ("digits_kd",))  # twice as large


@pytest.mark.slow
def test_a_level_without_an_attention_map_cannot_learn_by_them():
    school = copy.deepcopy(RAW["experiments"]["digits_ed"]["method"])
    by_level = {"primary": {"kind": "at"}, "middle": {"kind": "at"}}
    changes = {f"{STORAGE}.attention": True, "students.resnet8.model": "vgg8"}
    changes[f"{ED}.method"] = {**school, "distill_by_level": by_level}
    assert problems(changes, "digits_ed") == [
        "experiments.digits_ed.student: model 'vgg8': its part that is trained has no attention map; use another loss "
        "there, or another model"
    ]
    del by_level["primary"]  # the first block of vgg, which published code leaves out
    check_params(params(changes), ("digits_ed",))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["student", "teacher"])
def test_images_too_small_for_a_network(what):
    place = {"student": "students.resnet8.model", "teacher": f"{TEACHER}.model"}[what]
    where = {"student": "experiments.digits_kd.student", "teacher": "teachers.digits_teacher.network"}[what]
    (line,) = problems({place: "torchvision:alexnet"}, "digits_kd")
    assert line.startswith(f"{where}: model 'torchvision:alexnet': cannot take images of 1×8×8: ")
    assert line.endswith("; change image_size or the model")


@pytest.mark.slow
def test_a_network_that_is_no_chain_cannot_grow_or_give_maps():
    vit = {"students.resnet8.model": "timm:test_vit", "datasets.digits.image_size": 160}
    (line,) = problems(vit, "digits_ed")
    assert line.startswith(
        "experiments.digits_ed.student: model 'timm:test_vit': cannot be split into blocks, because "
    )
    check_params(params(vit), ("digits_kd",))
    teacher = {f"{TEACHER}.model": "timm:test_vit", f"{TEACHER}.image_size": 160}
    check_params(params(teacher | {f"{STORAGE}.attention": False}), ("digits_kd",))
    (line,) = problems(teacher | {f"{STORAGE}.attention": True}, "digits_kd")
    assert line.startswith(
        "teachers.digits_teacher.network: model 'timm:test_vit': cannot be split into blocks, because "
    )
    assert "it has no attention maps" in line


@pytest.mark.slow
def test_teskd_needs_two_feature_stages():
    changes = {
        "experiments.digits_kd.method": {"name": "teskd"},
        "students.resnet8.model": "timm:test_vit",
        "datasets.digits.image_size": 160,
    }
    (line,) = problems(changes, "digits_kd")
    assert line.startswith("experiments.digits_kd.student: model 'timm:test_vit': ")
    assert "TESKD students" in line


@pytest.mark.slow
def test_the_authors_reference_needs_their_head():
    own = {"model": "resnet8", "reference": "authors"}
    authors = {"students.own": own, "experiments.digits_ed.student": "own"}
    check_params(params(authors), ("digits_ed",))
    (line,) = problems(
        authors | {"students.own": own | {"model": "timm:test_convnext"}, "datasets.digits.image_size": 64}, "digits_ed"
    )
    assert line.startswith(
        "experiments.digits_ed.student: model 'timm:test_convnext': its head is NormMlpClassifierHead, "
    )


def test_sampled_rows_serve_stages_that_know_all_classes():
    sampled = {STORAGE: {"precision": "sampled", "draws": 4, "temperature": 4.0, "max_kl": None, "attention": False}}
    of_all = {f"{ED}.method": {"name": "ed", "teacher": "digits_teacher"}}
    check_params(params(sampled), ("digits_kd", "digits_ed"))
    check_params(params(sampled | {f"{ED}.method": of_all[f"{ED}.method"] | {"classes": "all"}}), ("digits_ed",))
    assert problems(sampled | of_all, "digits_ed") == [
        "experiments.digits_ed.method: stage 'primary' knows only some classes of teacher 'digits_teacher', but "
        "sampled rows estimate its softmax over all of them; use another soft_labels.digits.storage.precision, "
        "classes: all, or a teacher that has a partition"
    ]


SAVED = {"model": "resnet14", "location": "gopher://x/y", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("network", "messages"),
    [
        (
            SAVED | {"source": "url"},
            ["teachers.digits_teacher.network.location: scheme 'gopher' is not allowed; use one of https, http, file"],
        ),
        (
            SAVED | {"source": "file", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
            [
                "teachers.digits_teacher.network.mean: has 3 numbers, images of dataset 'digits' have 1 channels; give "
                "as many, and as many in std"
            ],
        ),
        (
            {"model": "torchvision:resnet18", "source": "torchvision", "location": "IMAGENET"},
            ["teachers.digits_teacher.network: has no weights 'IMAGENET'; location must be one of IMAGENET1K_V1"],
        ),
        (
            {"model": "timm:test_resnet.nothing", "source": "timm"},
            None,
        ),
    ],
)
def test_sources_of_weights(network, messages):
    found = problems({TEACHER: network}, "digits_kd")
    assert messages is None or found == messages


def test_each_problem_is_one_line_and_stands_once():
    both = four_levels() | {f"{STORAGE}.hint": {"feature_stage": 9}}
    found = problems(both, "digits_ed", "digits_kd", "digits_ce")
    assert sorted(line.split(":")[0] for line in found) == [
        "experiments.digits_ed.student",
        "teachers.digits_teacher.network",
        "teachers.whole.network",
    ]
