"""What a user can get wrong ends in one line, before anything is trained, and leaves nothing behind."""

import hashlib
import re
import shutil

import pytest
import safetensors.torch
from layouts import make_food101, make_image_folder
from project import copy_of, make_project, tiny_params

from edpipe.models.zoo.build import build_network

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

PACK = ("pack_dataset", "--dataset", "pictures")
STAGE = ("run_stage", "--experiment", "ed", "--seed", "0", "--stage", "primary")
TEACHER = ("--dataset", "digits", "--teacher", "specialists", "--subset", "primary")
DUMP = ("dump_soft_labels", *TEACHER, "--views", "0-0")
LABELS = "artifacts/soft_labels/digits/specialists"


def change(params, path, value):
    """Sets the value at a dotted path."""
    *sections, name = path.split(".")
    for section in sections:
        params = params[section]
    params[name] = value


def changed_params(*changes):
    params = tiny_params()
    for path, value in changes:
        change(params, path, value)
    return params


def pictures(reader, root, **knobs):
    """Tiny params with a dataset `pictures` of files."""
    knobs = {"reader": reader, "root": str(root), "image_size": 16, "channels": 3} | knobs
    return changed_params(("datasets.pictures", knobs))


def check_one_line(ran, line):
    """The command ended with this line alone; `line` is a pattern."""
    assert ran.rc == 2, ran.text
    assert len(ran.text.splitlines()) == 1, ran.text
    assert re.fullmatch(f"edpipe: {line}", ran.text.rstrip()), ran.text


def check_last_line(ran, line):
    """Snakemake ended with this line as its last and as the package's only one."""
    assert ran.rc != 0
    assert "Traceback" not in ran.text
    assert len(ran.said) == 1, ran.text
    assert ran.said[0] == ran.last_line
    assert re.fullmatch(f"edpipe: {line}", ran.last_line), ran.last_line


@pytest.fixture
def project(tmp_path):
    """A folder in which nothing was made yet."""
    return make_project(tmp_path / "project", tiny_params())


@pytest.fixture
def finished(tmp_path, finished_project):
    """A folder in which the experiment is done."""
    return copy_of(finished_project, tmp_path / "finished")


def made_files(project):
    return project.files("artifacts", "results", "logs")


# Found when params.yaml is read


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ([("recipes.tiny.batchsize", 3)], r"recipes\.tiny\.batchsize: unknown key; did you mean 'batch_size'\?"),
        (
            [("datasets.digits.reader", "digts")],
            r"datasets\.digits\.reader: 'digts' is not allowed; did you mean 'digits'\?",
        ),
        ([("experiments.ed.dataset", "digit")], r"experiments\.ed\.dataset: 'digit' is not in datasets; did you .*"),
        (
            [
                ("partitions.others", {"subsets": ["primary", "middle"], "ratio": [2, 1]}),
                ("teachers.specialists.partition", "others"),
            ],
            r"experiments\.ed\.method\.teacher: 'specialists' is made for partition 'others', this experiment teaches "
            r"'halves'; a stage would be without teacher; use the same partition in both",
        ),
    ],
    ids=["knob", "reader", "dataset", "teacher of another partition"],
)
def test_params_are_refused_before_a_plan_is_made(project, changes, line):
    project.write_params(changed_params(*changes))
    check_one_line(project.edpipe_here("check"), line)
    check_one_line(project.edpipe_here(*STAGE), line)
    assert made_files(project) == []


def test_snakemake_says_the_same_before_a_plan_is_made(project):
    project.write_params(changed_params(("recipes.tiny.batchsize", 3)))
    line = r"recipes\.tiny\.batchsize: unknown key; did you mean 'batch_size'\?"
    check_last_line(project.snakemake("--", "results/ed.json"), line)
    check_one_line(project.edpipe(*STAGE), line)
    assert made_files(project) == []


def test_values_on_snakemakes_command_line_are_refused(project):
    ran = project.snakemake("--config", "batch_size=3", "--", "results/ed.json")
    check_last_line(ran, r"--config batch_size: edit params\.yaml instead; .*")
    assert made_files(project) == []


def test_missing_params_file(project):
    (project.root / "params.yaml").unlink()
    line = (
        r"params\.yaml: not found; run edpipe in the folder that holds params\.yaml, "
        r"or make one with `edpipe init FOLDER`"
    )
    check_last_line(project.snakemake("--", "results/ed.json"), line)
    check_one_line(project.edpipe_here("check"), line)


# Found before the first job


@pytest.mark.parametrize(
    ("place", "step", "model", "nearest"),
    [
        ("students.resnet8.model", STAGE, "resnt8", "resnet8"),
        ("students.resnet8.model", STAGE, "timm:resnet1008", "timm:"),
        ("teachers.specialists.network.model", ("train_teacher", *TEACHER), "torchvision:resnt18", "torchvision:"),
    ],
)
def test_unknown_model_is_found_by_a_check_and_by_the_step(project, place, step, model, nearest):
    project.write_params(changed_params((place, model)))
    line = rf".*unknown model '{model}': did you mean '{nearest}.*"
    check_one_line(project.edpipe_here("check"), re.escape(place) + ": " + line[2:])
    check_one_line(project.edpipe_here(*step), line)
    assert made_files(project) == []


def test_unknown_model_is_found_before_the_first_job_and_leaves_no_lock(project):
    project.write_params(changed_params(("students.resnet8.model", "resnt8")))
    line = r"students\.resnet8\.model: unknown model 'resnt8': did you mean 'resnet8.*"
    check_last_line(project.snakemake("--", "results/ed.json"), line)
    assert made_files(project) == []
    project.write_params(tiny_params())
    ran = project.snakemake("--", "artifacts/datasets/digits.h5")
    assert ran.rc == 0, ran.text


def test_model_of_an_experiment_that_is_not_asked_for_is_not_looked_at(project):
    params = changed_params(("students.other", {"model": "resnt8"}), ("experiments.kd.student", "other"))
    project.write_params(params)
    ran = project.snakemake("--", "artifacts/datasets/digits.h5")
    assert ran.rc == 0, ran.text


# Found by the step that packs


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("pack_dataset", "--dataset", "digit"), r"datasets: no entry named 'digit'; did you mean 'digits'\?"),
        (
            ("evaluate", "--experiment", "ed", "--seed", "9"),
            r"seeds of experiment 'ed': 9 is not one of .*",
        ),
        (
            ("dump_soft_labels", *TEACHER, "--views", "0-1"),
            r"views of soft_labels\.digits: '0-1' is not one of them; allowed: 0-0, 1-1",
        ),
        (
            ("dump_soft_labels", *TEACHER, "--views", "first"),
            r"views of soft_labels\.digits: 'first' is not one of .*",
        ),
        (
            ("fetch_teacher", *TEACHER),
            r"teachers\.specialists\.network\.source: this teacher is made by `edpipe train_teacher`, not .*",
        ),
    ],
    ids=["dataset", "seed", "views", "no range", "source"],
)
def test_step_refuses_names_that_params_do_not_have(project, words, line):
    check_one_line(project.edpipe_here(*words), line)
    assert made_files(project) == []


@pytest.mark.parametrize(
    ("reader", "remedy"),
    [
        ("cifar10", r"put cifar-10-binary\.tar\.gz .* or the folder cifar-10-batches-bin into {root}, .*"),
        ("cifar100", r"put cifar-100-binary\.tar\.gz .* or the folder cifar-100-binary into {root}, .*"),
        ("fashion_mnist", "put train-images-idx3-ubyte.gz, .* into {root}"),
        ("food101", "put food-101.tar.gz or the folder food-101 .* into {root}"),
        ("folder", "make it and put the images there as <class>/<image>.*"),
    ],
)
def test_missing_raw_files_are_asked_for(project, tmp_path, reader, remedy):
    root = tmp_path / "raw"
    project.write_params(pictures(reader, root, download=False))
    check_one_line(project.edpipe_here(*PACK), rf"{root}: .*{remedy.format(root=root)}.*")
    assert made_files(project) == []


@pytest.mark.parametrize("reader", ["cifar10", "fashion_mnist", "food101"])
def test_missing_raw_files_without_a_network_are_asked_for(project, tmp_path, reader):
    root = tmp_path / "raw"
    project.write_params(pictures(reader, root))
    ran = project.edpipe_here(*PACK)
    assert ran.rc == 2
    assert len(ran.said) == 1
    assert "Traceback" not in ran.text
    line = rf"edpipe: {root}: .* is not here and \S+ could not be fetched \(.*\); put .* into {root}"
    assert re.fullmatch(line, ran.last_line)
    assert made_files(project) == []
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_empty_class_folder_is_named(project, tmp_path):
    root = make_image_folder(tmp_path / "raw", per_class=4)
    (root / "yak").mkdir()
    project.write_params(pictures("folder", root))
    check_one_line(project.edpipe_here(*PACK), rf"{root}/yak: class yak has no image .*")
    assert made_files(project) == []


def test_unreadable_image_is_named_by_step_and_by_snakemake(project, tmp_path):
    root = make_image_folder(tmp_path / "raw", per_class=4)
    (root / "dog" / "0002.png").write_bytes(b"no image")
    project.write_params(pictures("folder", root))
    remedy = "replace or remove this file, or set unreadable: leave_aside"
    line = rf"{root}/dog/0002\.png: cannot be read as an image \(.*\); {remedy}"
    ran = project.edpipe_here(*PACK)
    assert ran.rc == 2
    assert re.fullmatch(f"edpipe: {line}", ran.last_line), "after all images were read"
    ran = project.snakemake("--", "artifacts/datasets/pictures.h5")
    assert ran.rc != 0
    assert len(ran.said) == 1, ran.text
    assert re.fullmatch(f"edpipe: {line}", ran.said[0])
    log = (project.root / "logs/pack_dataset/pictures.log").read_text(encoding="utf-8")
    assert log.splitlines()[-1:] == ran.said
    # What has been packed waits for the next call.
    assert [path for path in project.files("artifacts") if ".resume" not in str(path)] == []


def test_damaged_archive_is_named(project, tmp_path):
    root = make_food101(tmp_path / "raw", 1, 1, archive=True)
    archive = root / "food-101.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-5000])
    project.write_params(pictures("food101", root, encoding="jpeg"))
    check_one_line(
        project.edpipe_here(*PACK),
        rf"{archive}: has MD5 \w+, but 85eeb15f3717b99a5da872d97d918f87 is published; fetch this file again",
    )
    assert [path.name for path in root.iterdir()] == [archive.name]
    assert made_files(project) == []


# Found by steps that have inputs


def test_partition_that_does_not_fit_is_found_before_training(project):
    partition = {"subsets": ["primary", "middle"], "ratio": [1, 10_000]}
    project.write_params(changed_params(("partitions.halves", partition)))
    line = r"partition: ratio \[1, .*\] leaves a subset without a class: 10 classes .*; use fewer subsets, or .*"
    ran = project.snakemake("--", "results/ed.json")
    assert ran.rc != 0
    assert len(ran.said) == 1, ran.text
    assert re.fullmatch(f"edpipe: {line}", ran.said[0])
    assert project.files("logs") == ["logs/pack_dataset/digits.log", "logs/partition_dataset/digits-halves.log"]
    log = project.root / "logs/partition_dataset/digits-halves.log"
    assert log.read_text(encoding="utf-8").splitlines() == ran.said
    check_one_line(project.edpipe_here("partition_dataset", "--dataset", "digits", "--partition", "halves"), line)
    assert project.files("artifacts") == ["artifacts/datasets/digits.h5", "artifacts/datasets/digits.json"]


@pytest.mark.parametrize(
    ("is_right", "epochs", "line"),
    [
        (False, 1, r"\S+: has sha256 [0-9a-f]{64}, but 0{64} is declared; fetch it again, or correct sha256 .*"),
        (True, 0, r".*does not have 5 classes, so its classifier is untrained; set fitting\.epochs above 0 .*"),
    ],
    ids=["sha256", "classes"],
)
def test_fetched_teacher_that_is_not_the_declared_one(finished, tmp_path, is_right, epochs, line):
    weights = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(build_network("resnet8", 7, 1, 0).state_dict(), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest() if is_right else "0" * 64
    network = {"model": "resnet8", "source": "file", "location": str(weights), "sha256": digest}
    finished.write_params(
        changed_params(("teachers.specialists.network", network), ("teachers.specialists.fitting.epochs", epochs))
    )
    before = contents(finished)
    check_one_line(finished.edpipe_here("fetch_teacher", *TEACHER), line)
    assert contents(finished) == before


def test_weak_teacher_gives_no_soft_labels(finished):
    finished.write_params(changed_params(("teachers.specialists.min_top1", 1.0), ("teachers.general.min_top1", 1.0)))
    shutil.rmtree(finished.root / "artifacts/soft_labels")
    shutil.rmtree(finished.root / "logs")
    line = r"artifacts/teachers/digits/specialists/primary\.safetensors: top1 0\.\d+ on its \w+ images is under .*"
    check_one_line(finished.edpipe_here(*DUMP), line)
    ran = finished.snakemake("--", f"{LABELS}/primary/views_0-0.h5")
    assert ran.rc != 0
    assert len(ran.said) == 1, ran.text
    log = finished.root / "logs/dump_soft_labels/digits-specialists-primary-views_0-0.log"
    assert log.read_text(encoding="utf-8").splitlines() == ran.said
    assert finished.files("artifacts/soft_labels") == []


def test_soft_labels_of_another_teacher_are_refused(finished):
    folder = finished.root / LABELS
    for views, line in (
        ("0-0", rf"{LABELS}/primary/views_1-1\.h5: .* than {LABELS}/primary/views_0-0\.h5; .*"),  # a part of a store
        ("1-1", rf"{LABELS}/primary\.json: speaks of soft labels .*; verify them with .*"),  # and all of it
    ):
        shutil.copyfile(folder / f"middle/views_{views}.h5", folder / f"primary/views_{views}.h5")
        before = contents(finished)
        check_one_line(finished.edpipe_here(*STAGE), line)
        assert contents(finished) == before
    check_one_line(finished.edpipe_here("verify_soft_labels", *TEACHER), rf"{LABELS}/primary/views_0-0\.h5: .*subset.*")
    del before[f"{LABELS}/primary.json"]
    assert contents(finished) == before, "without an index no student is trained"


def contents(project):
    return {name: (project.root / name).read_bytes() for name in project.files("artifacts", "results")}


def test_quiet_run_still_says_why_it_failed(finished):
    finished.write_params(changed_params(("teachers.specialists.min_top1", 1.0)))
    ran = finished.snakemake("--quiet", "rules", "--", f"{LABELS}/primary/views_0-0.h5")
    assert ran.rc != 0
    assert len(ran.said) == 1, ran.text
    assert "min_top1" in ran.said[0]


def test_a_damaged_teacher_is_made_again_by_the_next_run(finished):
    weights = finished.root / "artifacts/teachers/digits/specialists/primary.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ran = finished.snakemake("--quiet", "rules", "--", f"{LABELS}/primary/views_0-0.h5")
    assert ran.rc == 0, ran.text
    assert weights.read_bytes() == data
