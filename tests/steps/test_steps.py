"""The steps, one after the other, on a few digits: teachers, soft labels, three stages, evaluation."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from project import as_yaml, without_cost
from school import LEVELS, params

from edpipe.cli.main import main
from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.errors import (
    EdpipeError,
    MismatchError,
    OtherClassesError,
    OtherTeacherError,
    OtherViewsError,
    TeacherError,
)
from edpipe.losses.kd import combine, kd_loss, task_loss
from edpipe.models.forward import forward
from edpipe.models.students.student import Student
from edpipe.models.zoo.build import build_network
from edpipe.params.load import load_params
from edpipe.pipeline.jobs import graph, students, teachers
from edpipe.pipeline.jobs.students import evaluate as evaluate_job
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.store import open_store
from edpipe.soft_labels.teacher_outputs import TeacherFiles, load_teacher
from edpipe.steps.dump_soft_labels import dump_soft_labels
from edpipe.steps.evaluate import EvaluationFiles, evaluate
from edpipe.steps.run_stage import run_stage
from edpipe.storage.records import read_record, record_path, write_record
from edpipe.storage.weights import read_weights
from edpipe.training.stage import inputs
from edpipe.training.stage.inputs import StageFiles
from edpipe.training.stage.student import build_student
from edpipe.views.pixels import normalise
from edpipe.views.sampling import view_of
from edpipe.views.spec import ViewRange

pytestmark = pytest.mark.slow
EXPERIMENTS = ("ed", "kd", "one_level")


def run_all(folder):
    """Every step but the report, in `folder`."""
    (folder / "params.yaml").write_text(as_yaml(params()), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for job in graph.jobs_of(load_params(), EXPERIMENTS):
            if job.step != "report":
                assert main(job.command.split()[1:]) == 0, job.command
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which everything has run once."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        patch.delenv("DVC_STAGE", raising=False)
        yield run_all(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def folder(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return finished


def stage_job(experiment, stage):
    job = students.run_stage(load_params(), experiment, 0, stage)
    previous = job.inputs["previous"]
    paths = (job.inputs[role] for role in ("indexes", "soft_labels", "teachers"))
    files = StageFiles(
        job.inputs["dataset"][0], job.inputs["partition"][0], previous[0] if previous else None, *paths, job.outputs[0]
    )
    return job.knobs, files


def dump_job(teacher, subset):
    """Knobs of the dump of views 0-3, and the teacher's files."""
    job = teachers.dump_soft_labels(load_params(), "digits", teacher, subset, "0-3")
    partition = (*job.inputs["partition"], None)[0]
    files = TeacherFiles(teacher, subset, job.inputs["dataset"][0], partition, job.inputs["teacher"][0])
    return job.knobs, files


def student_weights(experiment, name):
    return read_weights(Path(f"artifacts/students/{experiment}/seed0/{name}.safetensors"))


def test_a_student_starts_from_the_bytes_of_the_stage_before(folder):
    for before, stage in (("1_primary", "middle"), ("2_middle", "university")):
        knobs, files = stage_job("ed", stage)
        task = inputs.open_stage(0, knobs, files, torch.device("cpu"))
        student, trained = build_student(0, knobs, files, task)
        assert trained is student
        weights, record = student_weights("ed", before)
        body = {name: value for name, value in weights.items() if not name.startswith("reference.")}
        own = student.weights()
        assert body
        assert all(own[name].numpy().tobytes() == value.numpy().tobytes() for name, value in body.items())
        assert task.previous_digest == record["weights_digest"]


def test_the_last_student_is_exactly_the_named_network(folder):
    network = build_network("resnet8", 10, 1, 0)
    for experiment, name in (("ed", "3_university"), ("kd", "1_only"), ("one_level", "1_everything")):
        weights, _ = student_weights(experiment, name)
        assert weights.keys() == network.state_dict().keys()
        network.load_state_dict(weights)


def test_earlier_students_have_a_reference_and_outputs_for_what_they_know(folder):
    for name, level, known in (("1_primary", 1, 3), ("2_middle", 2, 6)):
        weights, record = student_weights("ed", name)
        student = Student(build_network("resnet8", 10, 1, 0), level, 3, known, "adapter", 8, 1, 0)
        student.load(weights)
        assert record["known_class_ids"] == list(range(known))


def test_records_say_what_went_in(folder):
    dataset = open_dataset(Path("artifacts/datasets/digits.h5"))
    before = ""
    for number, level in enumerate(LEVELS, start=1):
        _, record = student_weights("ed", f"{number}_{level}")
        assert record["step"] == "run_stage"
        assert record["seed"] == 0
        assert record["images_seen"] == 64
        assert record["inputs"]["dataset"] == dataset.digest
        assert record["inputs"]["previous"] == before
        assert [use["subset"] for use in record["inputs"]["soft_labels"]] == list(LEVELS[:number])
        for use in record["inputs"]["soft_labels"]:
            teacher = read_record(Path(f"artifacts/teachers/digits/specialists/{use['subset']}.json"))
            assert use["teacher_digest"] == teacher["weights_digest"]
        assert record["knobs"]["plan"]["name"] == level
        assert record["knobs"]["recipe"]["batch_size"] == 32
        taught = dataset.sample_ids("train", record["known_class_ids"])
        assert record["taught_samples"] == len(taught)
        before = record["weights_digest"]


def test_no_record_names_this_machine(folder):
    for path in (folder / "artifacts").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(folder) not in text
        assert "/" not in "".join(read_record(path)), path


def test_a_school_of_one_level_with_a_full_teacher_is_kd(folder):
    ed, ed_record = student_weights("one_level", "1_everything")
    kd, kd_record = student_weights("kd", "1_only")
    assert ed_record["weights_digest"] == kd_record["weights_digest"]
    assert all(torch.equal(ed[name], kd[name]) for name in kd)
    assert ed_record["final_loss"] == kd_record["final_loss"]


def test_two_equal_runs_write_equal_bytes(folder, tmp_path):
    again = run_all(tmp_path)
    files = [
        p.relative_to(folder) for top in ("artifacts", "results") for p in (folder / top).rglob("*") if p.is_file()
    ]
    assert len(files) > 25
    for name in files:
        assert without_cost(folder / name) == without_cost(again / name), name
        assert "artifacts" not in name.parts or (folder / name).read_bytes() == (again / name).read_bytes(), name


def live_logits(batches, sample_ids):
    """The teacher asked anew, view by view, with the samples together as the dump had them."""
    _, files = dump_job("general", "all")
    teacher = load_teacher(files, batches.dataset)
    teacher.network.to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        for view in range(batches.spec.num_views):
            images = normalise(batches.views(sample_ids, np.full(len(sample_ids), view)), teacher.mean, teacher.std)
            yield forward(teacher.network, images, teacher.recipe).numpy()


def test_the_stored_teacher_is_the_live_teacher(folder):
    knobs, files = stage_job("kd", "only")
    task = inputs.open_stage(0, knobs, files, torch.device("cpu"))
    student, _ = build_student(0, knobs, files, task)
    sample_ids = task.dataset.sample_ids("train")
    live = np.stack(list(live_logits(task.batches, sample_ids)))
    store = open_store(files.soft_labels)
    assert len(store.files) == 3
    for view in range(9):
        assert np.array_equal(store.logits(sample_ids, np.full(len(sample_ids), view)), live[view])
    for start in (0, 32, 200):
        epochs, ids = task.stream.slice(start, start + 32)
        views = view_of(task.seed, epochs, ids, 9)
        images = normalise(task.batches.views(ids, views), task.dataset.mean, task.dataset.std)
        outputs = forward(student.eval(), images, knobs.recipe)
        targets = torch.from_numpy(live[views, np.searchsorted(sample_ids, ids)])
        truth = torch.from_numpy(task.dataset.labels[ids].astype(np.int64))
        online = combine(task_loss(outputs, truth), kd_loss(outputs, targets, 4.0), 0.3, 0.7)
        assert torch.equal(task.loss(student, task.batch(start, start + 32)), online)


def test_a_teacher_under_its_gate_is_refused(folder, tmp_path):
    knobs, files = dump_job("general", "all")
    record = read_record(record_path(files.weights_path))
    with pytest.raises(TeacherError) as caught:
        dump_soft_labels(files, replace(knobs, min_top1=1.5), ViewRange(0, 4), tmp_path / "a" / "b.h5")
    assert str(caught.value) == (
        f"{files.weights_path}: top1 {record['top1']:.4f} on its {record['top1_split']} images is under "
        "teachers.general.min_top1 1.5; train it longer, or lower min_top1"
    )
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_other_classes_is_refused(folder, tmp_path):
    _, files = dump_job("general", "all")
    knobs, special = dump_job("specialists", "primary")
    with pytest.raises(MismatchError, match="this teacher was made from partition '', at hand is '"):
        dump_soft_labels(
            replace(special, weights_path=files.weights_path), knobs, ViewRange(0, 4), tmp_path / "a" / "b.h5"
        )
    assert not list(tmp_path.iterdir())


def test_records_of_soft_labels_say_what_is_in_them(folder):
    for path in sorted(Path("artifacts/soft_labels/digits/specialists/middle").glob("*.h5")):
        labels, record = open_soft_labels(path), read_record(record_path(path))
        teacher = read_record(Path("artifacts/teachers/digits/specialists/middle.json"))
        assert path.name == f"views_{record['views']}.h5"
        assert record["views"] == str(labels.views)
        assert record["digest"] == labels.digest
        assert record["teacher_forwards"] == labels.num_forwards == record["num_samples"] * labels.views.num_views
        assert record["size_bytes"] == path.stat().st_size
        assert record["kl_bound"] == labels.kl_bound(4.0) == 0
        assert record["inputs"]["teacher"] == {"digest": teacher["weights_digest"], "top1": teacher["top1"]}
        assert record["knobs"]["storage"]["precision"] == "float32"
    assert path.name == "views_8-8.h5"


def test_nothing_waits_to_be_resumed(folder):
    assert [p for p in (folder / "artifacts/soft_labels").rglob("*") if p.name.startswith(".")] == []


def refused(knobs, files, out, error=EdpipeError):
    with pytest.raises(error) as caught:
        run_stage("t", 0, knobs, replace(files, out=out / "student.safetensors"))
    assert not list(out.glob("student*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def soft_labels_of(teacher, subset):
    """A teacher's index and its files, as roles of a stage."""
    index = Path(f"artifacts/soft_labels/digits/{teacher}/{subset}.json")
    return {"indexes": (index,), "soft_labels": tuple(sorted(index.with_suffix("").glob("*.h5")))}


def test_soft_labels_of_another_teacher_are_refused(folder, tmp_path):
    knobs, files = stage_job("ed", "primary")
    other_weights = tmp_path / "teacher.json"
    write_record(other_weights, {"weights_digest": "f" * 16})
    said = refused(knobs, replace(files, teachers=(other_weights,)), tmp_path, OtherTeacherError)
    assert said.startswith(f"{files.soft_labels[0]}: was made with teacher digest '")
    assert "asked for is 'ffffffffffffffff'" in said
    other = soft_labels_of("specialists", "middle")
    said = refused(knobs, replace(files, **other), tmp_path, OtherClassesError)
    assert said.startswith(f"{other['soft_labels'][0]}: its columns are classes [3, 4, 5], asked for are [0, 1, 2]")
    other = soft_labels_of("general", "all")
    said = refused(knobs, replace(files, **other), tmp_path, OtherTeacherError)
    assert said.startswith(f"{other['soft_labels'][0]}: was made with teacher 'general', asked for is 'specialists'")


def test_soft_labels_of_other_views_are_refused(folder, tmp_path):
    knobs, files = stage_job("ed", "primary")
    drawn = knobs.views.model_copy(
        update={"space": knobs.views.space.model_copy(update={"exhaustive": False}), "number": 9}
    )
    said = refused(replace(knobs, views=drawn), files, tmp_path, OtherViewsError)
    assert said.startswith(f"{files.soft_labels[0]}: was made with view spec ")


def test_a_stage_grown_from_another_dataset_is_refused(folder, tmp_path):
    knobs, files = stage_job("ed", "middle")
    for name in ("dataset", "partition"):
        before = tmp_path / name / "before.safetensors"
        before.parent.mkdir()
        shutil.copy(files.previous, before)
        record = read_record(record_path(files.previous))
        record["inputs"][name] = "f" * 16
        write_record(record_path(before), record)
        said = refused(knobs, replace(files, previous=before), tmp_path)
        assert said == f"{before}: was taught from another dataset or partition; run the stages again"


def evaluation_files(experiment):
    job = evaluate_job(load_params(), experiment, 0)
    students = tuple(p for p in job.inputs["students"] if p.suffix != ".json")
    return EvaluationFiles(
        job.inputs["dataset"][0], job.inputs["partition"][0], students, job.inputs["teacher_evaluations"]
    )


def test_evaluation_wants_an_unbroken_chain(folder, tmp_path):
    files = evaluation_files("ed")
    with pytest.raises(
        MismatchError, match="did not grow from the stage before it that is at hand; run the stages again"
    ):
        evaluate(0, replace(files, students=files.students[1:]), tmp_path / "a.json")
    kd = Path("artifacts/students/one_level/seed0/1_everything.safetensors")
    with pytest.raises(
        MismatchError, match=r"was taught from another dataset or partition \(.*\); run its stages again"
    ):
        evaluate(0, replace(files, students=(kd,)), tmp_path / "a.json")
    with pytest.raises(MismatchError, match="was trained with seed 0, not 1; run its stages again"):
        evaluate(1, files, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_an_evaluation_tells_all_that_a_result_needs(folder):
    contents = json.loads(Path("artifacts/evaluations/ed/seed0.json").read_text(encoding="utf-8"))
    matrix = [stage["top1_by_subset"] for stage in contents["stages"]]
    assert [[row[level] is not None for level in LEVELS] for row in matrix] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    dataset = open_dataset(Path("artifacts/datasets/digits.h5"))
    assert contents["metrics"]["test_samples"] == len(dataset.sample_ids("test"))
    assert [stage["images_with_teacher"] for stage in contents["stages"]] == [64, 64, 64]
    assert contents["metrics"]["val_samples"] == len(dataset.sample_ids("val"))
    assert list(contents["metrics"]["agreement"]) == sorted(f"specialists/{level}" for level in LEVELS)
    parameters = sum(p.numel() for p in build_network("resnet8", 10, 1, 0).parameters())
    assert contents["stages"][-1]["parameters"] == parameters


class Spy:
    """Which samples were looked at."""

    def __init__(self, monkeypatch):
        self.splits, self.seen = set(), set()
        sample_ids, images = Dataset.sample_ids, Dataset.images

        def spied_ids(dataset, split, *classes):
            self.splits.add(split)
            return sample_ids(dataset, split, *classes)

        def spied_images(dataset, ids):
            self.seen.update(ids.tolist())
            return images(dataset, ids)

        monkeypatch.setattr(Dataset, "sample_ids", spied_ids)
        monkeypatch.setattr(Dataset, "images", spied_images)


@pytest.mark.parametrize(
    "command",
    [
        "train_teacher --dataset digits --teacher specialists --subset primary",
        "dump_soft_labels --dataset digits --teacher specialists --subset primary --views 0-3",
        "verify_soft_labels --dataset digits --teacher specialists --subset primary",
        "run_stage --experiment ed --seed 0 --stage primary",
    ],
)
def test_only_evaluation_looks_at_test_images(folder, monkeypatch, command):
    test_ids = set(open_dataset(Path("artifacts/datasets/digits.h5")).sample_ids("test").tolist())
    spy = Spy(monkeypatch)
    assert main(command.split()) == 0
    assert spy.seen
    assert spy.seen.isdisjoint(test_ids)
    assert "test" not in spy.splits


def test_evaluation_looks_at_nothing_but_test_and_validation_images(folder, monkeypatch):
    dataset = open_dataset(Path("artifacts/datasets/digits.h5"))
    wanted = {*dataset.sample_ids("test").tolist(), *dataset.sample_ids("val").tolist()}
    spy = Spy(monkeypatch)
    assert main(["evaluate", "--experiment", "ed", "--seed", "0"]) == 0
    assert spy.seen == wanted
    assert spy.splits == {"test", "val"}


def test_a_teacher_is_measured_on_the_test_images_of_its_classes_alone(folder, monkeypatch):
    dataset = open_dataset(Path("artifacts/datasets/digits.h5"))
    primary = set(dataset.sample_ids("test", (0, 1, 2)).tolist())
    spy = Spy(monkeypatch)
    words = ["--dataset", "digits", "--teacher", "specialists", "--subset", "primary"]
    assert main(["evaluate_teacher", *words]) == 0
    assert spy.seen == primary
    assert spy.splits == {"test"}


def named_by(network, class_ids, sample_ids):
    """The class that a network names on each image."""
    dataset = open_dataset(Path("artifacts/datasets/digits.h5"))
    images = normalise(torch.from_numpy(dataset.images(sample_ids)), dataset.mean, dataset.std)
    with torch.inference_mode():
        return np.array(class_ids)[network.eval()(images)[:, list(class_ids)].argmax(dim=1).numpy()]


@pytest.mark.parametrize("experiment", ["ed", "kd"])
def test_agreement_is_that_of_the_networks_asked_anew(folder, experiment):
    dataset = open_dataset(Path("artifacts/datasets/digits.h5"))
    name = {"ed": "3_university", "kd": "1_only"}[experiment]
    student = build_network("resnet8", 10, 1, 0)
    student.load_state_dict(student_weights(experiment, name)[0])
    found = json.loads(Path(f"artifacts/evaluations/{experiment}/seed0.json").read_text(encoding="utf-8"))
    for teacher, share in found["metrics"]["agreement"].items():
        weights, record = read_weights(Path(f"artifacts/teachers/digits/{teacher}.safetensors"))
        network = build_network("resnet8", len(record["class_ids"]), 1, 0)
        network.load_state_dict(weights)
        ids = dataset.sample_ids("test", record["class_ids"])
        teachers = np.array(record["class_ids"])[named_by(network, range(len(record["class_ids"])), ids)]
        assert share == np.mean(named_by(student, record["class_ids"], ids) == teachers)
        assert found["teachers"][teacher]["top1"] == np.mean(teachers == dataset.labels[ids])
        assert found["teachers"][teacher]["test_samples"] == len(ids)
    val = dataset.sample_ids("val")
    assert found["metrics"]["val_top1"] == np.mean(named_by(student, range(10), val) == dataset.labels[val])


def test_the_result_carries_what_the_evaluations_say(folder):
    one = json.loads(Path("artifacts/evaluations/ed/seed0.json").read_text(encoding="utf-8"))
    gathered = json.loads(Path("results/ed.json").read_text(encoding="utf-8"))
    assert gathered["teachers"] == one["teachers"]
    means = {name: spread["mean"] for name, spread in gathered["summary"]["agreement"].items()}
    assert means == one["metrics"]["agreement"]


def test_the_wrong_step_for_a_teacher_is_refused_in_one_line(folder, capsys):
    assert main(["fetch_teacher", "--dataset", "digits", "--teacher", "general", "--subset", "all"]) == 2
    assert capsys.readouterr().err == (
        "edpipe: teachers.general.network.source: this teacher is made by `edpipe train_teacher`, not fetch_teacher\n"
    )
