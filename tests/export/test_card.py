"""The model card: data, method, teachers and their licences, figures with their spread, limits."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from finished_students import DIGITS, PHOTOS, make_finished

from edpipe.export.card import card, cell, interval, spread
from edpipe.export.description import ExportedFile
from edpipe.export.finished import find_student
from edpipe.export.teachers import licence_of, teacher_origins
from edpipe.pipeline.jobs import paths
from edpipe.results.measures.metrics import mean_and_spread
from edpipe.results.result_file import SoftLabelUse
from edpipe.storage.records import record_path, write_record

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(make_finished(tmp_path))


def card_of(experiment, **files):
    student = find_student(experiment)
    files = {"safetensors": ExportedFile(digest="0" * 16), **files}
    return card(student, student.description.model_copy(update={"files": files}))


def taught(student, *names):
    """The student as if soft labels of these teachers had taught it."""
    uses = tuple(
        SoftLabelUse(
            teacher=name, subset="all", digests=(), teacher_digest=f"{i:016x}", teacher_forwards=1, kl_bound=None
        )
        for i, name in enumerate(names)
    )
    seeds = [
        seed.model_copy(
            update={"stages": (*seed.stages[:-1], seed.stages[-1].model_copy(update={"soft_labels": uses}))}
        )
        for seed in student.result.seeds
    ]
    return replace(student, result=student.result.model_copy(update={"seeds": tuple(seeds)}))


def test_the_card_says_what_a_user_must_know(folder):
    text = card_of(DIGITS)
    head = yaml.safe_load(text.split("---")[1])
    assert head["pipeline_tag"] == "image-classification"
    summary, own = find_student(DIGITS).result.summary, find_student(DIGITS).outcome.metrics
    for part in (
        "# ce, seed 0",
        "`resnet8`",
        "classes\napart: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9.",
        "(reader `digits`)",
        "Cross-entropy with the labels alone",
        "No teacher: labels alone.",
        f"| top1 | {own.top1 * 100:.2f} % | {spread(summary.top1)} | {interval(summary.top1)} |",
        "over 2 seeds\n(0, 1) of the same experiment",
        "It is the first of the experiment's seeds.",
        "## Limits",
        find_student(DIGITS).record["weights_digest"],
    ):
        assert part in text, part
    assert "timm" not in text


def test_a_student_of_timm_is_shown_how_timm_loads_it(folder):
    text = card_of(PHOTOS)
    assert 'timm.create_model("test_resnet", checkpoint_path="FOLDER/model.safetensors"' in text
    assert "stored as JPEG of quality 95" in text
    assert "Measured with the forward pass in bfloat16" in text


def test_files_state_how_they_were_compared(folder):
    onnx = ExportedFile(digest="1" * 16, checked_images=60, max_difference=2.5e-7, test_top1=0.5)
    int8 = ExportedFile(digest="2" * 16, calibration_images=512, test_top1=0.4875)
    text = card_of(PHOTOS, onnx=onnx, int8=int8)
    assert "a logit differs by 2.5e-07 of the largest at most, on 60 test images; both in float32, the student" in text
    assert (
        "int8: top1 on the test split is 48.75 %, that of the float32 ONNX file 50.00 %: a change of -1.25 points"
        in text
    )
    assert "measured on 512 images of the train split" in text


def test_teachers_are_named_with_their_licence(folder):
    student = taught(find_student(DIGITS), "own", "fetched", "gone")
    networks = {
        "own": {"model": "resnet14", "source": "train"},
        "fetched": {"model": "timm:convnext_atto.d2_in1k", "source": "timm"},
    }
    for number, (name, network) in enumerate(networks.items()):
        path = record_path(paths.teacher_path("digits", name, "all"))
        path.parent.mkdir(parents=True)
        write_record(path, {"weights_digest": f"{number:016x}", "knobs": {"network": network}})
    own, fetched, gone = teacher_origins(Path(), student.result, 0)
    assert (own.origin, own.licence) == ("trained from scratch on the same images", "no weights from elsewhere")
    assert (fetched.origin, fetched.licence) == ("pretrained weights of timm", "apache-2.0")
    assert (gone.origin, gone.licence) == ("its record is not here, or is of another teacher by now", "not known here")
    assert "| fetched/all | timm:convnext_atto.d2_in1k | pretrained weights of timm | apache-2.0 | – |" in card(
        student, student.description
    )


@pytest.mark.parametrize(
    ("knobs", "licence"),
    [
        ({"source": "timm", "model": "timm:resnetv2_50x1_bit.goog_in21k"}, "apache-2.0"),
        ({"source": "timm", "model": "timm:convnextv2_atto.fcmae_ft_in1k"}, "cc-by-nc-4.0"),
        (
            {"source": "torchvision", "model": "torchvision:regnet_y_16gf", "location": "IMAGENET1K_SWAG_E2E_V1"},
            "https://github.com/facebookresearch/SWAG/blob/main/LICENSE",
        ),
        (
            {"source": "torchvision", "model": "torchvision:resnet18", "location": None},
            "not known here; torchvision names none for these weights",
        ),
        ({"source": "url", "model": "resnet20", "location": "https://a/b"}, "not known here"),
        ({"source": "student", "model": "resnet20", "experiment": "kd"}, "as that student's"),
    ],
)
def test_licences(knobs, licence):
    assert licence_of(knobs) == licence


def test_names_cannot_break_a_table():
    assert cell("a|b\nc") == "a\\|b\\nc"
    assert spread(mean_and_spread([0.5])) == "50.00 %"
    assert interval(mean_and_spread([0.5])) == "–"
