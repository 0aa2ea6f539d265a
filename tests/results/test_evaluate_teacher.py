"""Teachers asked about test images, and what is refused of the file that tells what they said."""

import json

import numpy as np
import pytest
import torch
from small_world import make_world, plain_batches

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.errors import CorruptFileError, MismatchError
from edpipe.models.forward import forward
from edpipe.params.recipe import RecipeKnobs
from edpipe.results.measures.teacher_evaluation import read_teacher_evaluation
from edpipe.soft_labels.teacher_outputs import load_teacher
from edpipe.steps.evaluate_teacher import evaluate_teacher
from edpipe.storage.records import read_record, record_path, write_record
from edpipe.views.pixels import normalise

torch.set_num_threads(1)
CLASSES = {"all": tuple(range(10)), "primary": tuple(range(5)), "middle": tuple(range(5, 10))}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), per_class=12)


def measured(world, folder, subset="all", **teacher):
    """The teacher's files and its evaluation."""
    files = world.teacher(subset, **teacher)
    path = folder / f"{subset}.json"
    evaluate_teacher(files, path)
    return files, path


def asked_anew(files, dataset, sample_ids):
    """Logits of these images, all at once."""
    teacher = load_teacher(files, dataset)
    images = normalise(plain_batches(dataset).plain(sample_ids), teacher.mean, teacher.std)
    with torch.inference_mode():
        return forward(teacher.network.eval(), images, teacher.recipe).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("subset", CLASSES)
def test_answers_are_the_teachers_on_the_test_images_of_its_classes_in_order(world, tmp_path, subset):
    files, path = measured(world, tmp_path, subset)
    dataset, found = open_dataset(world.dataset), read_teacher_evaluation(path)
    ids = dataset.sample_ids("test", CLASSES[subset])
    named = np.array(CLASSES[subset])[asked_anew(files, dataset, ids).argmax(axis=1)]
    assert found.class_ids == CLASSES[subset]
    assert found.predicted_class_ids == tuple(named)
    assert len(set(named)) > 2, "it tells images apart"
    assert found.top1 == np.mean(named == dataset.labels[ids])
    assert found.facts()["test_samples"] == len(ids) == read_record(path)["teacher_forwards"]


def test_the_calibration_error_is_of_the_same_answers(world, tmp_path):
    files, path = measured(world, tmp_path)
    dataset = open_dataset(world.dataset)
    ids = dataset.sample_ids("test")
    logits = asked_anew(files, dataset, ids).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, is_right = shares.max(axis=1), logits.argmax(axis=1) == dataset.labels[ids]
    bins = np.ceil(confidence * 15)
    gaps = [abs((is_right[bins == b] - confidence[bins == b]).sum()) for b in np.unique(bins)]
    assert read_teacher_evaluation(path).ece == pytest.approx(sum(gaps) / len(ids), abs=1e-5)


@pytest.mark.slow
def test_images_are_normalised_and_computed_as_the_teacher_learnt_them(world, tmp_path):
    """A fetched teacher has a mean of its own; the precision is that of its recipe."""
    files = world.teacher(name="fetched", recipe=RecipeKnobs(precision="bfloat16"))
    evaluate_teacher(files, tmp_path / "before.json")
    record = read_record(record_path(files.weights_path))
    write_record(record_path(files.weights_path), record | {"mean": [0.9], "std": [0.1]})
    evaluate_teacher(files, tmp_path / "after.json")
    dataset = open_dataset(world.dataset)
    ids = dataset.sample_ids("test")
    named = tuple(asked_anew(files, dataset, ids).argmax(axis=1))
    after = read_teacher_evaluation(tmp_path / "after.json")
    assert after.predicted_class_ids == named
    assert after.predicted_class_ids != read_teacher_evaluation(tmp_path / "before.json").predicted_class_ids
    write_record(record_path(files.weights_path), record)
    exact = world.teacher(name="fetched", recipe=RecipeKnobs(precision="float32"))
    evaluate_teacher(exact, tmp_path / "exact.json")
    assert read_teacher_evaluation(tmp_path / "exact.json").ece != read_teacher_evaluation(tmp_path / "before.json").ece


@pytest.mark.slow
def test_the_size_of_a_batch_decides_nothing(world, tmp_path, monkeypatch):
    _, path = measured(world, tmp_path)
    whole = read_teacher_evaluation(path)
    monkeypatch.setattr("edpipe.results.measures.predictions.EVALUATION_BATCH", 3)
    again = read_teacher_evaluation(measured(world, tmp_path)[1])
    assert again.predicted_class_ids == whole.predicted_class_ids
    assert again.ece == pytest.approx(whole.ece, abs=1e-5)


def test_the_record_says_what_went_in(world, tmp_path):
    dataset, partition = open_dataset(world.dataset), read_record(world.partition)
    for subset in ("all", "primary"):
        files, path = measured(world, tmp_path, subset)
        assert read_record(path)["step"] == "evaluate_teacher"
        assert read_record(path)["inputs"] == read_teacher_evaluation(path).inputs == {
            "dataset": dataset.digest,
            "partition": partition["digest"] if subset == "primary" else "",
            "teacher": read_record(record_path(files.weights_path))["weights_digest"],
        }  # fmt: skip
        assert str(tmp_path) not in path.read_text()


def test_asked_twice_gives_equal_bytes(world, tmp_path):
    for folder in ("a", "b"):
        measured(world, tmp_path / folder, "middle")
    assert (tmp_path / "a/middle.json").read_bytes() == (tmp_path / "b/middle.json").read_bytes()


@pytest.mark.slow
def test_other_weights_have_another_digest(world, tmp_path):
    digests = {read_teacher_evaluation(measured(world, tmp_path, seed=seed)[1]).digest for seed in (0, 1)}
    assert len(digests) == 2


def test_without_test_images_there_are_no_shares(world, tmp_path, monkeypatch):
    sample_ids = Dataset.sample_ids
    none = np.zeros(0, dtype=np.int64)
    monkeypatch.setattr(
        Dataset, "sample_ids", lambda d, split, *c: none if split == "test" else sample_ids(d, split, *c)
    )
    _, path = measured(world, tmp_path, "primary")
    found = read_teacher_evaluation(path)
    assert found.facts() == {"top1": None, "ece": None, "test_samples": 0}
    assert found.predicted_class_ids == ()


@pytest.mark.parametrize("name", ["dataset", "partition"])
def test_a_teacher_made_from_something_else_is_refused(world, tmp_path, name):
    files = world.teacher("primary", name=f"of_another_{name}")
    record = read_record(record_path(files.weights_path))
    record["inputs"][name] = "f" * 16
    write_record(record_path(files.weights_path), record)
    with pytest.raises(MismatchError) as caught:
        evaluate_teacher(files, tmp_path / "a" / "b.json")
    assert str(caught.value).startswith(
        f"{files.weights_path}: this teacher was made from {name} 'ffffffffffffffff', at hand is '"
    )
    assert str(caught.value).endswith(f"make it again with `snakemake --force {files.weights_path}`")
    assert not list(tmp_path.iterdir())


def test_damaged_weights_are_refused(world, tmp_path):
    files = world.teacher("primary", name="damaged")
    files.weights_path.write_bytes(files.weights_path.read_bytes()[:-1])
    with pytest.raises(MismatchError, match="they do not belong together"):
        evaluate_teacher(files, tmp_path / "a.json")


def rewritten(path, **changes):
    """The file with these keys changed and its digest made to fit, as a forger would do it."""
    contents = read_record(path) | changes
    write_record(path, {name: value for name, value in contents.items() if value is not ...})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: p.unlink(), "not a readable record"),
        (lambda p: p.write_text("{"), "not a readable record"),
        (lambda p: p.write_text("{}"), "not a teacher evaluation of version 1; make it again with"),
        (lambda p: rewritten(p, format="edpipe-result"), "not a teacher evaluation of version 1; make it again with"),
        (lambda p: rewritten(p, format_version=2), "not a teacher evaluation of version 1; make it again with"),
        (
            lambda p: p.write_text(p.read_text().replace('"top1": 0', '"top1": 1')),
            "altered since written; make it again",
        ),
        (
            lambda p: rewritten(p, class_ids=...),
            "not a whole teacher evaluation (KeyError('class_ids')); make it again",
        ),
        (lambda p: rewritten(p, predicted_class_ids=["a"]), "not a whole teacher evaluation (ValueError("),
        (
            lambda p: rewritten(p, class_ids=[0, 1]),
            "not a whole teacher evaluation (ValueError('it names class 2, which it does not know')); make it again",
        ),
        (lambda p: rewritten(p, inputs=[]), "not a whole teacher evaluation (TypeError("),
    ],
    ids=[
        "missing",
        "half",
        "empty",
        "foreign",
        "version",
        "altered",
        "no classes",
        "no class",
        "unknown class",
        "no inputs",
    ],
)
def test_a_file_that_is_no_whole_evaluation_is_refused_in_one_line(world, tmp_path, spoil, told):
    _, path = measured(world, tmp_path)
    spoil(path)
    with pytest.raises(CorruptFileError) as caught:
        read_teacher_evaluation(path)
    assert str(caught.value).startswith(f"{path}: {told}")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value).rsplit("`snakemake", 1)[1]


def test_the_file_is_json_that_any_program_reads(world, tmp_path):
    _, path = measured(world, tmp_path, "primary")
    contents = json.loads(path.read_text())
    assert (contents["teacher"], contents["subset"]) == ("specialists", "primary")
    assert set(contents["predicted_class_ids"]) <= set(contents["class_ids"])
