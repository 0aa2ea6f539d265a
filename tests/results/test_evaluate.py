"""Students that nobody trained, compared with teachers that nobody trained: shares counted by hand, and refusals."""

import numpy as np
import pytest
import torch
from small_world import make_world

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import CorruptFileError, MismatchError
from edpipe.models.students.student import Student
from edpipe.models.zoo.build import build_network
from edpipe.results.measures.student import StageStudent, setup_facts
from edpipe.results.measures.teacher_evaluation import (
    TeacherEvaluation,
    read_teacher_evaluation,
    write_teacher_evaluation,
)
from edpipe.steps.evaluate import EvaluationFiles, evaluate
from edpipe.steps.evaluate_teacher import evaluate_teacher
from edpipe.storage.records import make_record, read_record, record_path, write_record
from edpipe.storage.weights import write_weights

torch.set_num_threads(1)
HALVES = {"all": tuple(range(10)), "primary": tuple(range(5)), "middle": tuple(range(5, 10))}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), per_class=12)


def learnt_from(teachers):
    """What the record of a stage says of its soft labels."""
    return [
        {
            "teacher": files.teacher,
            "subset": files.subset,
            "digests": [],
            "teacher_digest": read_record(record_path(files.weights_path))["weights_digest"],
            "teacher_forwards": 0,
            "kl_bound": 0.0,
        }
        for files in teachers
    ]


def student(world, folder, teachers=(), seed=0):
    """A student of all classes with drawn weights, and the record of a stage taught by these teachers."""
    dataset = open_dataset(world.dataset)
    knobs, _ = world.stage(teachers, ())
    record = make_record(
        "run_stage",
        {"plan": knobs.plan, "student": knobs.student, "recipe": knobs.recipe, "views": knobs.views},
        {
            "dataset": dataset.digest,
            "partition": read_partition(world.partition, dataset).digest,
            "previous": "",
            "soft_labels": learnt_from(teachers),
            "trajectory": [],
        },
        seed=0,
        known_class_ids=list(range(10)),
        images_seen=10,
        taught_samples=10,
        training_macs_per_image=1,
        final_loss=1.0,
    )
    path = folder / "student.safetensors"
    write_weights(path, build_network("resnet8", 10, 1, seed).state_dict(), record)
    return path


def test_recipes_of_earlier_stages_are_named_where_they_differ_from_that_of_the_last():
    def stage(name, recipe):
        knobs = {"plan": {"name": name}, "student": {}, "views": {}, "recipe": recipe}
        student = Student(build_network("resnet8", 2, 1, 0), 1, 1, 2, "adapter", 8, 1, 0)
        return StageStudent(student, {"knobs": knobs}, 8)

    plain, slow = ({"batch_size": size} for size in (64, 8))
    stages = [stage("one", slow), stage("two", plain), stage("three", plain)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edpipe.results.measures.student.knobs_as_now", lambda knobs: knobs)
        found, alike = setup_facts(stages), setup_facts(stages[1:])
    assert (found["recipe"], found["stage_recipes"]) == (plain, {"one": slow})
    assert "stage_recipes" not in alike


def measured(world, folder, teachers):
    """Evaluations of these teachers."""
    paths = tuple(folder / files.teacher / f"{files.subset}.json" for files in teachers)
    for files, path in zip(teachers, paths, strict=True):
        evaluate_teacher(files, path)
    return paths


def made(world, folder, teachers=()):
    """All files of an evaluation."""
    paths = measured(world, folder, teachers)
    return EvaluationFiles(world.dataset, world.partition, (student(world, folder, teachers),), paths)


def evaluated(files, folder):
    evaluate(0, files, folder / "evaluation.json")
    return read_record(folder / "evaluation.json")


def say(monkeypatch, named, second=None):
    """Makes the student name this class for each image; of classes without it, the second."""

    def logits(network, recipe, images, sample_ids):
        found = np.zeros((len(sample_ids), 10), dtype=np.float32)
        rows = np.arange(len(sample_ids))
        found[rows, (named if second is None else second)[sample_ids]] = 1
        found[rows, named[sample_ids]] = 2
        return found

    monkeypatch.setattr("edpipe.results.measures.student.plain_logits", logits)


def teacher_saying(world, path, teacher, subset, named):
    """An evaluation in which a teacher names this class for each image of its classes."""
    dataset, before = open_dataset(world.dataset), read_teacher_evaluation(path)
    ids = dataset.sample_ids("test", HALVES[subset])
    predicted = tuple(named[ids].tolist())
    evaluation = TeacherEvaluation(teacher, subset, HALVES[subset], predicted, 0.5, 0.25, before.inputs)
    write_teacher_evaluation(path, evaluation, make_record("evaluate_teacher", {}, before.inputs))


@pytest.mark.slow
def test_agreement_by_hand(world, tmp_path, monkeypatch):
    teachers = [world.teacher(), world.teacher("primary")]
    files = made(world, tmp_path, teachers)
    labels = open_dataset(world.dataset).labels.astype(np.int64)
    # The student mistakes 0 for 9, and would then say 1; the full teacher 0 for 9 and 7 for 8; the specialist 0 for 1.
    say(monkeypatch, np.where(labels == 0, 9, labels), np.where(labels == 0, 1, labels))
    teacher_saying(
        world, files.teachers[0], "general", "all", np.where(labels == 0, 9, np.where(labels == 7, 8, labels))
    )
    teacher_saying(world, files.teachers[1], "specialists", "primary", np.where(labels == 0, 1, labels))
    found = evaluated(files, tmp_path)
    counts = np.bincount(labels[open_dataset(world.dataset).sample_ids("test")])
    assert found["metrics"]["agreement"] == {
        "general/all": (counts.sum() - counts[7]) / counts.sum(),
        "specialists/primary": 1.0,
    }
    assert found["metrics"]["top1"] == (counts.sum() - counts[0]) / counts.sum()
    assert found["teachers"]["specialists/primary"] == {"top1": 0.5, "ece": 0.25, "test_samples": counts[:5].sum()}


def test_beside_a_specialist_other_classes_are_neither_asked_about_nor_named(world, tmp_path, monkeypatch):
    teachers = [world.teacher("middle")]
    files = made(world, tmp_path, teachers)
    labels = open_dataset(world.dataset).labels.astype(np.int64)
    # Of middle's classes 5 … 9 the student names 0 first; then, within middle, what it is but for 8, which it calls 9.
    say(monkeypatch, np.zeros_like(labels), np.where(labels == 8, 9, labels))
    teacher_saying(world, files.teachers[0], "specialists", "middle", np.clip(labels, 5, 9))
    counts = np.bincount(labels[open_dataset(world.dataset).sample_ids("test", HALVES["middle"])], minlength=10)
    share = evaluated(files, tmp_path)["metrics"]["agreement"]["specialists/middle"]
    assert share == (counts.sum() - counts[8]) / counts.sum()


def test_an_evaluation_without_teachers_has_no_agreement(world, tmp_path):
    found = evaluated(made(world, tmp_path), tmp_path)
    assert found["metrics"]["agreement"] == found["teachers"] == {}
    assert found["inputs"]["teacher_evaluations"] == []


@pytest.mark.slow
def test_the_record_names_the_evaluations_in_their_order(world, tmp_path):
    teachers = [world.teacher("middle"), world.teacher(), world.teacher("primary")]
    files = made(world, tmp_path, teachers)
    digests = [read_teacher_evaluation(path).digest for path in files.teachers]
    assert evaluated(files, tmp_path)["inputs"]["teacher_evaluations"] == digests
    assert len(set(digests)) == 3


def test_validation_top1_is_of_the_validation_split(world, tmp_path, monkeypatch):
    dataset = open_dataset(world.dataset)
    labels, val = dataset.labels.astype(np.int64), dataset.sample_ids("val")
    named = labels.copy()
    named[val[:3]] = (labels[val[:3]] + 1) % 10
    say(monkeypatch, named)
    metrics = evaluated(made(world, tmp_path), tmp_path)["metrics"]
    assert (metrics["val_samples"], metrics["val_top1"]) == (len(val), (len(val) - 3) / len(val))
    assert metrics["top1"] == 1.0


@pytest.mark.slow
def test_without_validation_images_there_is_no_validation_top1(tmp_path):
    world = make_world(tmp_path / "world", per_class=12, val_fraction=0.0)
    metrics = evaluated(made(world, tmp_path), tmp_path)["metrics"]
    assert (metrics["val_samples"], metrics["val_top1"]) == (0, None)


@pytest.mark.slow
def test_a_teacher_without_test_images_has_no_agreement(world, tmp_path, monkeypatch):
    sample_ids = Dataset.sample_ids

    def without_primary(dataset, split, *classes):
        found = sample_ids(dataset, split, *classes)
        return found[dataset.labels[found] > 4] if split == "test" else found

    monkeypatch.setattr(Dataset, "sample_ids", without_primary)
    found = evaluated(made(world, tmp_path, [world.teacher("primary"), world.teacher("middle")]), tmp_path)
    assert found["metrics"]["agreement"]["specialists/primary"] is None
    assert found["metrics"]["agreement"]["specialists/middle"] is not None
    assert found["stages"][0]["top1_by_subset"]["primary"] is None


def refused(files, folder, error=MismatchError):
    with pytest.raises(error) as caught:
        evaluate(0, files, folder / "out" / "evaluation.json")
    assert not (folder / "out").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_an_evaluation_of_other_weights_is_refused(world, tmp_path):
    files = made(world, tmp_path, [world.teacher("primary", name="changed")])
    before = read_teacher_evaluation(files.teachers[0]).inputs["teacher"]
    evaluate_teacher(world.teacher("primary", seed=1, name="changed"), files.teachers[0])
    now = read_teacher_evaluation(files.teachers[0]).inputs["teacher"]
    path = files.teachers[0]
    assert refused(files, tmp_path) == (
        f"{path}: teacher weights {now} were measured, {files.students[0]} learnt from {before}; run its stages again "
        f"if the teacher is another one now, else measure it with `snakemake --force {path}`"
    )


@pytest.mark.slow
def test_a_teacher_that_was_not_measured_is_refused(world, tmp_path):
    files = made(world, tmp_path, [world.teacher("primary"), world.teacher("middle")])
    for teachers, told in ((files.teachers[:1], "specialists/primary"), ((), "none")):
        left = EvaluationFiles(files.dataset, files.partition, files.students, teachers)
        name = "specialists/middle" if teachers else "specialists/primary"
        assert refused(left, tmp_path) == (
            f"{files.students[0]}: learnt from teacher {name}, measured are: {told}; run its stages again"
        )


def test_a_missing_file_is_told_with_its_remedy(world, tmp_path):
    files = made(world, tmp_path, [world.teacher()])
    (path,) = files.teachers
    path.unlink()
    said = refused(files, tmp_path, CorruptFileError)
    assert said.startswith(f"{path}: not a readable record (")
    assert said.endswith(f"make it again with `snakemake --force {path}`")


@pytest.mark.slow
def test_a_teacher_from_whom_no_stage_learnt_is_refused(world, tmp_path):
    files = made(world, tmp_path, [world.teacher()])
    other = measured(world, tmp_path, [world.teacher("primary")])
    more = EvaluationFiles(files.dataset, files.partition, files.students, (*files.teachers, *other))
    assert refused(more, tmp_path) == f"{other[0]}: no stage learnt from this teacher; run the stages again"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dataset", "partition"])
def test_an_evaluation_on_other_data_is_refused(world, tmp_path, name):
    files = made(world, tmp_path, [world.teacher("primary")])
    (path,) = files.teachers
    found = read_teacher_evaluation(path)
    here = found.inputs[name]
    other = TeacherEvaluation(
        found.teacher,
        found.subset,
        found.class_ids,
        found.predicted_class_ids,
        found.top1,
        found.ece,
        found.inputs | {name: "f" * 16},
    )
    write_teacher_evaluation(path, other, make_record("evaluate_teacher", {}, other.inputs))
    assert refused(files, tmp_path) == (
        f"{path}: this teacher was measured on {name} 'ffffffffffffffff', at hand is '{here}'; make it again with "
        f"`snakemake --force {path}`"
    )


def test_every_stage_must_have_learnt_from_the_weights_that_were_measured(world, tmp_path):
    """A teacher that was trained anew between two stages shows in the first of them."""
    files = made(world, tmp_path, [world.teacher()])
    record = read_record(record_path(files.students[0]))
    record["inputs"]["soft_labels"] *= 2
    record["inputs"]["soft_labels"][1] = record["inputs"]["soft_labels"][1] | {"teacher_digest": "f" * 16}
    write_record(record_path(files.students[0]), record)
    assert f"{files.students[0]} learnt from ffffffffffffffff; " in refused(files, tmp_path)
