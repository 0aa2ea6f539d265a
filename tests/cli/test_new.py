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
from PIL import Image
from project import ROOT, as_yaml, make_project, tiny_params
from watching import TIMEOUT_S

from edpipe.cli.main import main
from edpipe.cli.own_images.entries import entries_of, gate_for
from edpipe.cli.own_images.facts import FolderFacts, look_at
from edpipe.cli.own_images.sizes import Sizes, Wishes, batch_for, choose, epochs_for, school, subsets_for
from edpipe.cli.own_images.teacher import fetched_teacher
from edpipe.errors import DataError, ParamsError
from edpipe.models.zoo.build import build_network
from edpipe.params.load import load_params, parse_params
from edpipe.params.text.insert import insert_entries
from edpipe.params.yaml_file import load_raw, parse_text
from edpipe.pipeline.estimates import network_speed
from edpipe.storage.digests import sha256_file

SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")
SMALL = as_yaml(tiny_params())
"""Sound params that are read in no time."""


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    """What the measurement of any network says, unless a test says otherwise."""
    stages = ((16, 16, 16), (32, 8, 8), (64, 4, 4))
    monkeypatch.setattr(
        network_speed, "measured", lambda use: network_speed.NetworkSpeed(1000.0, 4000.0, 100_000, "cpu", stages)
    )


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
    differing = {"teacher", "teachers", "temperature", "distill", "levels"}
    assert made.model_dump(exclude=differing) == shipped.model_dump(exclude=differing)
    assert made.teachers["university"] == ("photos_teacher", "photos_teacher_b")


@pytest.mark.slow
def test_what_was_done_and_why_is_said_with_the_command_that_comes_next(folder, capsys):
    (folder / "mine/apple/Thumbs.db").write_bytes(b"x")
    assert new("--epochs", "7") == 0
    cores = len(os.sched_getaffinity(0))
    said = capsys.readouterr().out.splitlines()
    estimate = said.pop(6)
    assert re.fullmatch(
        rf"estimate: ~\d+ s on {cores} cores? for all three, ~1 min \d+ s one after the other; ~[\d.]+ MB", estimate
    )
    assert said == [
        "params.yaml: added photos: 2 classes, 16 train, 4 val and 4 test images",
        "left aside in mine: 1 Thumbs.db",
        "image size 16: half of the images are 20 pixels or more on their short side",
        "teacher resnet56, student resnet20: the largest of those that are tried",
        "each student gets the compute of 112 images: 7 epochs, 14 iterations of 8",
        "levels of ed: one block, two, then all of 3, with images of 8, 12, 16 pixels",
        f"now run: snakemake --cores {cores} results/photos_ed.json",
        f"and to compare: snakemake --cores {cores} results/photos_{{ed,kd,ce}}.json && "
        "edpipe compare results/photos_*.json",
    ]


@pytest.mark.slow
def test_words_reach_their_knobs(folder):
    words = "--image-size 96 --channels 1 --teacher timm:resnet18 --teacher-mode finetune --student timm:resnet18"
    assert new(*words.split(), "--epochs", "40") == 0
    params = load_params()
    dataset, teacher = params.datasets["photos"], params.teachers["photos_teacher"]
    assert (dataset.image_size, dataset.channels, dataset.encoding, dataset.stored_side) == (96, 1, "jpeg", 109)
    assert (teacher.network.model, teacher.network.source, teacher.fitting.epochs) == ("timm:resnet18", "timm", 10)
    assert (teacher.network.image_size, teacher.fitting.layers) == (128, "all")
    assert "photos_teacher_b" not in params.teachers
    assert params.students["photos"].model == "timm:resnet18"
    assert params.soft_labels["photos"].space.augment.kind == "resized_crop"


@pytest.mark.slow
def test_grey_images_are_packed_as_grey(folder):
    for path in (folder / "mine").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert new("--quick") == 0
    params = load_params()
    assert params.datasets["photos"].channels == 1
    assert params.experiments["photos_ed"].seeds == (0, 1)
    assert params.students["photos"].model == "resnet8"


@pytest.mark.slow
def test_splits_of_the_folder_are_left_to_it(folder):
    make_image_folder(folder / "split", splits={"train": 30, "val": 4, "test": 5})
    assert main(["new", "ours", "--root", "split"]) == 0
    added = load_raw()["datasets"]["ours"]
    assert added == {"reader": "folder", "root": "split", "image_size": 16, "channels": 3}


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


numbers = st.integers(1, 3_000_000)


def facts_of(num_train=223, num_classes=6, num_val=55, short_side=147, fractions=(0.2, 0.2), is_grey=False):
    names = tuple(f"class_{number}" for number in range(num_classes))
    return FolderFacts("mine", names, num_train, num_val, 70, *fractions, short_side, is_grey)


@settings(max_examples=30, deadline=None)
@given(numbers, st.integers(2, 2000), st.sampled_from([8, 64, 65, 224]), st.booleans(), st.sampled_from([0, 40, 5000]))
def test_any_folder_gives_sound_entries_at_equal_budgets(num_train, num_classes, side, has_splits, num_val):
    facts = facts_of(num_train, num_classes, num_val, fractions=(None, None) if has_splits else (0.2, 0.1))
    sizes = Sizes(side, 3, "resnet56", "resnet20", epochs_for(num_train), batch_for(num_train))
    text = insert_entries(SMALL, entries_of("photos", facts, sizes))
    params = parse_params(parse_text(text))
    totals = {
        sum(stage.compute for stage in params.experiments[f"photos_{kind}"].stages.values())
        for kind in ("ed", "kd", "ce")
    }
    assert totals == {epochs_for(num_train) * num_train}


@given(numbers)
def test_budgets_are_sized_to_the_images(num_train):
    assert 20 <= epochs_for(num_train) <= 100
    assert epochs_for(num_train) * num_train >= min(100 * num_train, 95_000)
    assert batch_for(num_train) in (8, 16, 32, 64)
    assert batch_for(num_train) <= max(num_train / 8, 8)


@given(st.integers(1000, 10**9), st.integers(8, 512), st.booleans())
def test_levels_share_the_whole_budget_and_their_images_grow(num_images, side, has_sizes):
    levels = school(num_images, side, has_sizes)
    assert sum(level.compute for level in levels) == num_images
    assert [level.blocks for level in levels] == [1, 2, *[3] * (len(levels) - 2)]
    sides = [level.image_size or side for level in levels]
    assert sides == sorted(sides)
    assert max(sides[:-1]) < side if has_sizes else set(sides) == {side}
    assert len({level.name for level in levels}) == len(levels)
    assert levels[-1].compute >= (0.29 if has_sizes else 0.98) * num_images


def test_a_school_of_photographs_is_the_shipped_one():
    shipped = parse_params(parse_text(SHIPPED)).experiments["food101_ed"]
    total = sum(stage.compute for stage in shipped.stages.values())
    found = {level.name: (level.compute, level.image_size) for level in school(total, 224)}
    assert found == {name: (stage.compute, stage.image_size) for name, stage in shipped.stages.items()}


@pytest.mark.slow
def test_a_student_of_one_image_size_has_levels_of_that_size(folder):
    assert new("--student", "vgg8", "--image-size", "8", "--epochs", "2") == 0  # which cannot take 6 pixels
    stages = load_params().experiments["photos_ed"].stages
    assert list(stages) == ["primary", "middle", "university"]
    assert {stage.image_size for stage in stages.values()} == {None}


# sizes that fit


def per_pixel(seconds):
    """An estimate that hangs on the image size and the student alone."""
    return lambda sizes: seconds * sizes.image_size**2 * (4 if sizes.student == "resnet20" else 1) * sizes.epochs


def test_the_largest_that_fits_is_chosen_and_the_next_is_named():
    choice = choose(facts_of(), Wishes(minutes=60 / 60), per_pixel(60 / (32**2 * 4 * 100)))
    assert (choice.sizes.image_size, choice.sizes.teacher, choice.sizes.student) == (48, "resnet20", "resnet8")
    assert (choice.larger.image_size, choice.larger.student) == (48, "resnet20")


def test_where_nothing_fits_the_smallest_is_shortened_but_still_teaches():
    choice = choose(facts_of(), Wishes(), per_pixel(1000.0))
    assert (choice.sizes.image_size, choice.sizes.student, choice.sizes.epochs) == (32, "resnet8", 25)
    assert choice.seconds > choice.limit_s


def test_what_the_user_chose_is_kept():
    wishes = Wishes(image_size=40, channels=1, teacher="resnet32", student="resnet14", epochs=3)
    sizes = choose(facts_of(), wishes, per_pixel(1000.0)).sizes
    assert (sizes.image_size, sizes.channels, sizes.teacher, sizes.student, sizes.epochs) == (
        40, 1, "resnet32", "resnet14", 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "side"),
    [
        (facts_of(short_side=500), 64),
        (facts_of(num_train=50_000, short_side=500), 224),
        (facts_of(short_side=50), 48),
        (facts_of(short_side=5), 16),
    ],
)
def test_the_image_size_is_that_of_the_images_where_time_is_no_matter(facts, side):
    assert choose(facts, Wishes(), lambda _: 0.0).sizes.image_size == side


def test_a_network_without_an_estimate_is_taken():
    assert choose(facts_of(), Wishes(), lambda _: None).seconds is None


def test_broken_images_do_not_keep_the_others_from_being_looked_at(tmp_path):
    root = make_image_folder(tmp_path / "raw", per_class=4)
    (root / "cat/0000.png").write_bytes(b"")
    assert look_at(root).short_side == 20
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"of 12 files that were tried none is an image that can be read"):
        look_at(root)


# weights that others trained


def saved_weights(folder, num_classes=2, channels=3):
    import torch

    network = build_network("resnet8", num_classes, channels, seed=1)
    torch.save({"model": {f"module.{n}": v for n, v in network.state_dict().items()}}, folder / "theirs.pth")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "fitting"),
    [
        ((), {"epochs": 25.0, "layers": "classifier", "learning_rate": 0.05}),
        (("--teacher-mode", "finetune"), {"epochs": 25.0, "layers": "all", "learning_rate": 0.01}),
        (("--teacher-mode", "unchanged"), {"epochs": 0.0}),
    ],
)
def test_a_file_of_weights_becomes_the_teacher(folder, mode, fitting):
    saved_weights(folder)
    assert new("--teacher", "theirs.pth", "--teacher-model", "resnet8", *mode) == 0
    params = load_params()
    teacher = params.teachers["photos_teacher"]
    assert (teacher.network.source, teacher.network.location) == ("file", "theirs.pth")
    assert teacher.network.sha256 == sha256_file(folder / "theirs.pth")
    assert fitting.items() <= teacher.fitting.model_dump().items()
    assert params.experiments["photos_ed"].method.teachers["university"] == ("photos_teacher",)
    assert main(["check"]) == 0


@pytest.mark.slow
def test_pretrained_weights_of_timm_become_the_teacher(folder, capsys):
    assert new("--teacher", "timm:resnet18") == 0
    assert (
        "teacher timm:resnet18 (timm's weights, last layer trained: 16 training images are fewer than 1,000)"
        in capsys.readouterr().out
    )
    teacher = load_params().teachers["photos_teacher"]
    assert (teacher.network.source, teacher.network.image_size) == ("timm", 128)
    assert main(["check"]) == 0


def test_many_images_fine_tune_and_scratch_fetches_nothing():
    assert fetched_teacher("timm:resnet18", None, None, 1_000).mode == "finetune"
    assert fetched_teacher("timm:resnet18", None, "scratch", 1_000) is None
    assert fetched_teacher("resnet56", None, None, 1_000) is None
    assert fetched_teacher("timm:vit_tiny_patch16_224", None, None, 10).image_size == 224


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--teacher theirs.pth", r"--teacher theirs.pth: a file does not say which network .*; give --teacher-model"),
        ("--teacher none.pth --teacher-model resnet8", r"none.pth: there is no such file; put the teacher's weights"),
        ("--teacher theirs.pth --teacher-model resnet14", r"names do not fit the model: .*; correct model or location"),
        ("--teacher theirs.pth --teacher-model resnet8 --teacher-mode scratch", r"scratch: takes no weights; give"),
        ("--teacher resnet8 --teacher-model resnet8", r"--teacher-model resnet8: belongs to a file of weights; got"),
        ("--teacher resnet8 --teacher-mode probe", r"--teacher-mode probe: needs weights; give --teacher timm:NAME"),
        ("--teacher-mode unchanged", r"--teacher-mode unchanged: needs weights"),
        ("--teacher https://example.org/a.pth", r"a.pth: download the file and name it here; its sha256 is then"),
        ("--teacher timm:test_vit9", r"unknown model 'timm:test_vit9': did you mean"),
        ("--teacher timm:resnet18 --teacher-mode unchanged", r"unchanged: the classes of timm:resnet18 are not those"),
        ("--teacher three.pth --teacher-model resnet8 --teacher-mode unchanged", r"three.pth has other classes than"),
        ("--teacher none --teacher-mode magic", r"argument --teacher-mode: invalid choice: 'magic'"),
        ("--minutes 0", r"--minutes 0: must be more than 0"),
    ],
)
def test_weights_that_cannot_teach_are_refused(folder, capsys, words, line):
    saved_weights(folder, num_classes=3)
    (folder / "theirs.pth").rename(folder / "three.pth")
    saved_weights(folder)
    assert re.search(line, refused(capsys, "new", "photos", "--root", "mine", *words.split()))
    assert params_text(folder) == SMALL


@given(st.integers(2, 1000), st.integers(0, 1000))
def test_the_gate_is_between_guessing_and_perfect_or_open(num_classes, num_val):
    gate = gate_for(num_classes, num_val)
    assert gate == 0 if num_val < 50 else 1 / num_classes < gate + 0.005 < 0.56


@given(st.integers(2, 50))
def test_each_subset_has_a_class(num_classes):
    assert 2 <= len(subsets_for(num_classes)) <= min(num_classes, 3)


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
        (("photos", "--root", "mine", "--pretrained"), r"new: unknown option '--pretrained'; known: --ch"),
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
    macs = [result["budget"]["training_macs"] for result in found]
    assert max(macs) <= 1.03 * min(macs)
    names = [stage["name"] for stage in found[0]["setup"]["stages"]]
    assert names == ["primary", "middle", "university_8", "university_12", "university"]


def test_a_student_that_no_school_can_teach_is_refused(folder, capsys):
    before = params_text(folder)
    refused_line = refused(capsys, "new", "photos", "--root", "mine", "--student", "timm:vit_tiny_patch16_224")
    assert refused_line.startswith("edpipe: --student timm:vit_tiny_patch16_224: ")
    assert "cannot take images of 3×16×16" in refused_line
    size = ("--image-size", "4")
    assert "choose another" in refused(capsys, "new", "photos", "--root", "mine", "--student", "vgg8", *size)
    words = ("--student", "resnet8", "--teacher", "timm:vit_tiny_patch16_224", "--teacher-mode", "scratch")
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
    options = ["--root", "mine", "--student", "resnet8", "--teacher", "resnet8"]
    assert main(["new", "photos_before", *options]) == 0  # the speed of the network is remembered for the others
    words = [sys.executable, "-m", "edpipe", "new", *options]
    started = [
        subprocess.Popen([*words, f"photos{number}"], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        for number in range(3)
    ]
    assert [each.wait(TIMEOUT_S) for each in started] == [0, 0, 0]
    assert {f"photos{number}_ed" for number in range(3)} <= load_params().experiments.keys()
