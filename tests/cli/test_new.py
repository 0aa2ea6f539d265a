"""`edpipe new`: from a folder of images to a result in three lines, and nothing else in params.yaml is touched."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import make_image_folder
from project import ROOT, as_yaml, make_project, tiny_params
from watching import TIMEOUT_S

from edpipe.cli.commands.new_entries import (
    Choices,
    FolderFacts,
    batch_for,
    budgets,
    entries_of,
    epochs_for,
    gate_for,
    levels_for,
)
from edpipe.cli.main import main
from edpipe.errors import ParamsError
from edpipe.params.insert import insert_entries
from edpipe.params.load import load_params, parse_params
from edpipe.params.yaml_file import load_raw, parse_text

SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")
SMALL = as_yaml(tiny_params())
"""Sound params that are read in no time."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project folder with a small params.yaml alone, and in it `mine`: two classes of twelve images."""
    (tmp_path / "params.yaml").write_text(SMALL, encoding="utf-8")
    make_image_folder(tmp_path / "mine", ("apple", "pear"), per_class=12)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(*words):
    return main(["new", "photos", "--root", "mine", *words])


def params_text(folder):
    return (folder / "params.yaml").read_text(encoding="utf-8")


def without_added(text):
    """The text without the lines that the shipped one does not have, if these were only added."""
    kept, remaining = [], text.splitlines(keepends=True)
    for line in SHIPPED.splitlines(keepends=True):
        while remaining and remaining[0] != line:
            remaining.pop(0)
        kept += remaining[:1]
        remaining = remaining[1:]
    return "".join(kept)


# what is written


@pytest.mark.slow
def test_everything_else_stays_byte_for_byte(folder):
    (folder / "params.yaml").write_text(SHIPPED, encoding="utf-8")
    before = load_raw()
    assert new() == 0
    text = params_text(folder)
    assert without_added(text) == SHIPPED
    after = load_raw()
    for section, entries in before.items():
        kept = (
            {k: v for k, v in after[section].items() if k in entries} if isinstance(entries, dict) else after[section]
        )
        assert kept == entries
    added = {f"{s}.{name}" for s in before if isinstance(before[s], dict) for name in set(after[s]) - set(before[s])}
    assert added == {
        *(f"{section}.photos" for section in ("datasets", "partitions", "recipes", "students", "soft_labels")),
        *("teachers.photos_teacher", "teachers.photos_teacher_b"),
        *(f"experiments.photos_{kind}" for kind in ("ce", "ed", "kd")),
    }


@pytest.mark.slow
def test_comments_between_sections_and_windows_line_ends_are_kept(folder):
    text = SMALL.replace("\nteachers:", "\n# of teachers\n\nteachers:").replace("\n", "\r\n")
    (folder / "params.yaml").write_bytes(text.encode())
    assert new() == 0
    written = (folder / "params.yaml").read_bytes().decode()
    assert written.count("\r\n") == written.count("\n")
    assert "\r\n# of teachers\r\n\r\nteachers:" in written
    load_params()


@pytest.mark.slow
def test_the_form_of_ed_is_that_of_the_shipped_school(folder):
    (folder / "params.yaml").write_text(SHIPPED, encoding="utf-8")
    assert new() == 0
    params = load_params()
    shipped, made = (params.experiments[name].method for name in ("food101_ed", "photos_ed"))
    differing = {"teachers"}
    assert made.model_dump(exclude=differing) == shipped.model_dump(exclude=differing)
    assert made.teachers["university"] == ("photos_teacher", "photos_teacher_b")


@pytest.mark.slow
def test_what_was_done_is_said_with_the_command_that_comes_next(folder, capsys):
    assert new("--epochs", "7") == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "params.yaml: added photos: 2 classes, 16 train and 4 val images; each student sees 112 images",
        "now run: snakemake --cores 2 results/photos_ed.json",
        "and to compare: snakemake --cores 2 results/photos_{ed,kd,ce}.json && edpipe compare results/photos_*.json",
    ]


@pytest.mark.slow
def test_words_reach_their_knobs(folder):
    words = "--image-size 96 --channels 1 --teacher timm:resnet34 --student timm:resnet18 --pretrained --epochs 40"
    assert new(*words.split()) == 0
    params = load_params()
    dataset, teacher = params.datasets["photos"], params.teachers["photos_teacher_b"]
    assert (dataset.image_size, dataset.channels, dataset.encoding, dataset.stored_side) == (96, 1, "jpeg", 109)
    assert (teacher.network.model, teacher.network.source, teacher.fitting.seed) == ("timm:resnet34", "timm", 1)
    assert teacher.fitting.epochs == 10
    assert params.students["photos"].model == "timm:resnet18"
    assert params.soft_labels["photos"].space.augment.kind == "resized_crop"


@pytest.mark.slow
def test_splits_of_the_folder_are_left_to_it(folder):
    make_image_folder(folder / "split", splits={"train": 30, "val": 4, "test": 5})
    assert main(["new", "ours", "--root", "split"]) == 0
    added = load_raw()["datasets"]["ours"]
    assert added == {"reader": "folder", "root": "split", "image_size": 64, "channels": 3}


@pytest.mark.slow
def test_two_images_a_class_come_through(folder):
    make_image_folder(folder / "few", per_class=2)
    assert main(["new", "few", "--root", "few"]) == 0
    assert load_params().datasets["few"].test_fraction == 0.5


@pytest.mark.slow
def test_an_odd_root_is_quoted(folder):
    odd = 'a "b": #c ü'
    make_image_folder(folder / odd, per_class=5)
    assert main(["new", "odd", "--root", odd]) == 0
    assert load_params().datasets["odd"].root == odd


sizes = st.integers(1, 3_000_000)


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(2, 2000), st.sampled_from([8, 64, 65, 224]), st.booleans(), st.sampled_from([0, 40, 5000]))
def test_any_folder_gives_sound_entries_at_equal_budgets(num_train, num_classes, side, has_splits, num_val):
    fractions = (None, None) if has_splits else (0.2, 0.1)
    facts = FolderFacts("mine", num_classes, num_train, num_val, *fractions)
    is_pretrained = side > 64
    text = insert_entries(SMALL, entries_of("photos", facts, Choices(side, 3, None, None, is_pretrained, None)))
    params = parse_params(parse_text(text))
    totals = {
        sum(stage.images for stage in params.experiments[f"photos_{kind}"].stages.values())
        for kind in ("ed", "kd", "ce")
    }
    assert totals == {epochs_for(num_train) * num_train}


@given(sizes)
def test_budgets_are_sized_to_the_images(num_train):
    assert 20 <= epochs_for(num_train) <= 100
    assert epochs_for(num_train) * num_train >= min(100 * num_train, 95_000)
    assert batch_for(num_train) in (8, 16, 32, 64)
    assert batch_for(num_train) <= max(num_train / 4, 8)


@given(st.integers(2, 1000), st.integers(0, 1000))
def test_the_gate_is_between_guessing_and_perfect_or_open(num_classes, num_val):
    gate = gate_for(num_classes, num_val)
    assert gate == 0 if num_val < 50 else 1 / num_classes < gate + 0.005 < 0.56


@given(st.integers(3, 10**9), st.integers(2, 50))
def test_levels_share_the_whole_budget(num_images, num_classes):
    levels = levels_for(num_classes)
    shares = budgets(num_images, levels)
    assert tuple(shares) == levels
    assert len(levels) <= num_classes
    assert sum(shares.values()) == num_images
    assert min(shares.values()) >= 1


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9), min_size=1), min_size=1
    ),
    st.integers(1, 5),
    st.sampled_from(["", "\n", "# tail\n", "  # of the section\n"]),
)
def test_added_lines_belong_to_their_section_whatever_the_layout(sections, indentation, between):
    text = "".join(
        f"{name}:\n" + "".join(f"{' ' * indentation}{k}: {v}\n" for k, v in entries.items()) + between
        for name, entries in sections.items()
    )
    after = insert_entries(text, dict.fromkeys(sections, "new:\n  deep: 1\n"))
    assert yaml.safe_load(after) == {name: entries | {"new": {"deep": 1}} for name, entries in sections.items()}
    assert re.sub(r" *new:\n +deep: 1\n", "", after) == text


# refusals


def refused(capsys, *words):
    code = main(list(words))
    [line] = capsys.readouterr().err.splitlines()
    assert code == 2
    return line


def test_an_existing_name_is_refused_and_nothing_written(folder, capsys):
    assert refused(capsys, "new", "digits", "--root", "mine") == (
        "edpipe: params.yaml: datasets.digits, soft_labels.digits are there already; choose another name than 'digits'"
    )
    assert params_text(folder) == SMALL


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("Photos", "--root", "mine"),
            r"'Photos': names are lower-case letters, digits and _, beginning with a letter",
        ),
        (("true", "--root", "mine"), r"'true': names are .*, and no keyword"),
        (("photos", "--root", "nowhere"), r"nowhere: there is no such folder; make it and put the images there as"),
        (("photos", "--root", "mine/apple"), r"mine/apple: holds no class folders; arrange the images as <class>"),
        (("photos", "--root", "one"), r"one: holds one class, only; there must be two or more to tell apart"),
        (
            ("photos", "--root", "single"),
            r"class lonely has 1 train, 0 val, 0 test images; each class needs at least 1",
        ),
        (("photos", "--root", "mine", "--image-size", "3"), r"datasets.photos.image_size: got 3; input should be"),
        (("photos", "--root", "mine", "--epochs", "0"), r"--epochs 0: must be 1 or more"),
        (("photos", "--root", "mine", "--student", "resnet21"), r"students.photos.model: unknown model 'resnet21'"),
        (
            ("photos", "--root", "mine", "--pretrained"),
            r"--pretrained: needs a teacher of timm, got 'resnet56'; give --teacher timm:",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(folder, capsys, words, line):
    make_image_folder(folder / "one", ("only",))
    make_image_folder(folder / "single", ("apple",))
    make_image_folder(folder / "single", ("lonely",), per_class=1)
    assert re.search(line, refused(capsys, "new", *words))
    assert params_text(folder) == SMALL


def test_params_that_are_wrong_already_are_told_first(folder, capsys):
    (folder / "params.yaml").write_text(SMALL.replace("channels: 1", "channels: 2"))
    assert "datasets.digits.channels: 2 is not allowed" in capsys_first(capsys, "new", "photos", "--root", "mine")


def capsys_first(capsys, *words):
    assert main(list(words)) == 2
    return capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("text", ["a: {x: 1}\n", "a: {}\n", "a: 1\n", "a:\n"])
def test_a_section_in_one_line_is_not_added_to(text):
    with pytest.raises(ParamsError, match="a: its entries must stand on lines of their own to be added to"):
        insert_entries(text, {"a": "y: 1\n"})


def test_a_section_that_is_missing_is_begun():
    assert insert_entries("a:\n  x: 1", {"b": "y:\n  z: 2\n"}) == "a:\n  x: 1\n\nb:\n  y:\n    z: 2\n"


# the whole way


@pytest.mark.slow
def test_three_lines_lead_from_two_classes_of_twelve_images_to_a_result(tmp_path):
    project = make_project(tmp_path / "project")
    make_image_folder(tmp_path / "images", ("apple", "pear"), per_class=12)
    words = ["--image-size", "16", "--teacher", "resnet8", "--student", "resnet8", "--epochs", "3"]
    assert project.edpipe("new", "photos", "--root", str(tmp_path / "images"), *words).rc == 0
    results = [f"results/photos_{kind}.json" for kind in ("ed", "kd", "ce")]
    ran = project.snakemake(*results, "results/photos_ed.html", cores=2)
    assert ran.rc == 0, ran
    compared = project.edpipe("compare", *results, "--json", "comparison.json")
    assert compared.rc == 0, compared
    found = [json.loads((project.root / path).read_text()) for path in results]
    assert {result["budget"]["images_seen"] for result in found} == {48}
    assert [stage["name"] for stage in found[0]["setup"]["stages"]] == ["primary", "university"]


def test_a_student_that_no_school_can_teach_is_refused(folder, capsys):
    before = params_text(folder)
    refused_line = refused(capsys, "new", "photos", "--root", "mine", "--student", "timm:vit_tiny_patch16_224")
    assert refused_line.startswith("edpipe: --student timm:vit_tiny_patch16_224: ")
    assert "cannot take images of 3×64×64" in refused_line
    size = ("--image-size", "4")
    assert "choose another" in refused(capsys, "new", "photos", "--root", "mine", "--student", "vgg8", *size)
    words = ("--student", "resnet8", "--teacher", "timm:vit_tiny_patch16_224")
    assert refused(capsys, "new", "photos", "--root", "mine", *words).startswith(
        "edpipe: --teacher timm:vit_tiny_patch16_224: "
    )
    assert params_text(folder) == before


@pytest.mark.parametrize("root", ["", ".", "../{name}"])
def test_the_project_itself_is_no_root(folder, capsys, root):
    root = root.format(name=folder.name)
    assert refused(capsys, "new", "photos", "--root", root) == (
        f"edpipe: --root '{root}': is the project's own folder; name the folder that holds the images"
    )


@pytest.mark.slow
def test_a_tilde_that_the_shell_left_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert main(["new", "photos", "--root", "~/mine"]) == 0


@pytest.mark.slow
def test_a_linked_params_file_stays_a_link(folder):
    (folder / "params.yaml").rename(folder / "real.yaml")
    (folder / "params.yaml").symlink_to("real.yaml")
    assert new() == 0
    assert (folder / "params.yaml").is_symlink()
    assert "photos_ed" in (folder / "real.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_calls_at_once_add_all_their_entries(folder):
    words = [sys.executable, "-m", "edpipe", "new", "--root", "mine", "--student", "resnet8", "--teacher", "resnet8"]
    started = [
        subprocess.Popen([*words, f"photos{number}"], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        for number in range(3)
    ]
    assert [each.wait(TIMEOUT_S) for each in started] == [0, 0, 0]
    assert {f"photos{number}_ed" for number in range(3)} <= load_params().experiments.keys()
