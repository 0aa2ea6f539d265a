"""The page of a result that was measured on real files: what is counted over images, refusals, and the same again."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from examples import evaluation, write_result
from measured_world import curves, measured, without_images
from small_world import make_world

from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import CorruptFileError, MismatchError
from edpipe.params.partition import PartitionKnobs
from edpipe.results.page.curves import curves_in
from edpipe.results.page.page import drawn
from edpipe.results.page.words import classes_arrive
from edpipe.results.result_file import read_result
from edpipe.steps.evaluate_teacher import evaluate_teacher
from edpipe.steps.partition_dataset import partition_dataset
from edpipe.steps.report import report
from edpipe.storage.records import read_record, without_seal, write_record

torch.set_num_threads(1)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), per_class=12)


@pytest.fixture(scope="module")
def files(world, tmp_path_factory):
    return measured(world, tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def page(files):
    return drawn(files, curves(files))


def words(page):
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_numbers_over_images_are_those_of_the_evaluations(files, page):
    dataset = open_dataset(files.dataset)
    labels = dataset.labels[dataset.sample_ids("test")]
    named = np.array([read_record(path)["predictions"]["class_ids"] for path in files.evaluations])
    teacher = np.array(read_record(files.teacher_evaluations[0])["predicted_class_ids"])
    wrong = int((named != labels).all(axis=0).sum())
    assert f"{wrong} of {len(labels)} test images" in words(page)
    right = (named == labels) & (teacher == labels)
    assert f"over all seeds, {right.mean() * 100:.1f} % are right with both" in words(page)
    assert [(n == labels).mean() for n in named] == pytest.approx(
        [seed.metrics.top1 for seed in read_result(files.result).seeds]
    )


def test_all_parts_are_there(page):
    titles = re.findall(r'<h2 id="[^"]*">([^<]*)', page)
    assert titles[:4] == ["Beside other results", "What was run", "Learning curves", "Accuracy after each stage"]
    assert {"Mistakes", "Budget and cost", "Calibration", "Provenance"} <= set(titles)
    for name in (
        "confusion matrix",
        "student minus teacher",
        "reliability diagram",
        "learning curve 2",
        "accuracy matrix",
    ):
        assert f'aria-label="Chart: {name}"' in page
    assert set(re.findall(r'download="([^"]*)"', page)) == {
        "accuracy_matrix.csv",
        "confusions.csv",
        "curves.json",
        "reliability.csv",
    }


def test_images_of_each_subset_are_shown_with_their_classes(files, page):
    assert "primary: 5 classes, such as 0, 1," in words(page)
    assert '<img src="data:image/jpeg;base64,' in page
    assert '<img src="data:image/jpeg;base64,' not in drawn(without_images(files))


@pytest.mark.parametrize(("arrive", "title"), [(True, "What each level introduces"), (False, "Classes of each subset")])
def test_only_where_classes_arrive_a_level_introduces_them(files, monkeypatch, arrive, title):
    monkeypatch.setattr("edpipe.results.page.page.classes_arrive", lambda stages: arrive)
    text = drawn(files)
    assert f'<h2 id="images">{title}</h2>' in text
    assert ("introduces" in text) == arrive


def test_classes_arrive_where_later_stages_know_more(files):
    [only] = read_result(files.result).setup.stages
    first = only.model_copy(update={"known": ("primary",)})
    assert classes_arrive((first, only))
    assert not classes_arrive((only, only))


def test_the_page_is_drawn_again_from_what_it_carries(files, page):
    assert drawn(files, curves_in(page)) == page
    assert drawn(files) != page


def test_without_evaluations_it_says_so(files):
    text = words(drawn(without_images(files)))
    assert "drawn without the evaluations of its seeds" in text
    assert "curves of these trainings are not here" in text


def rewritten(path, **changes):
    contents = {**without_seal(read_record(path)), **changes}
    write_record(path, contents)


def test_another_evaluation_is_refused(world, tmp_path):
    files = measured(world, tmp_path)
    rewritten(files.evaluations[1], seed=7)
    with pytest.raises(
        MismatchError, match=r"seed1\.json: is [0-9a-f]{16}, the result was made from [0-9a-f]{16}; make"
    ):
        drawn(files)


def test_another_number_of_seeds_is_refused(files):
    for evaluations in (files.evaluations[:1], (*files.evaluations, files.evaluations[0])):
        other = replace(files, evaluations=evaluations)
        with pytest.raises(MismatchError, match=rf"has 2 seeds, asked for are {len(evaluations)}; make the"):
            drawn(other)


def test_another_dataset_is_refused(files, tmp_path):
    other = make_world(tmp_path, per_class=9)
    with pytest.raises(MismatchError, match=r"was measured on dataset [0-9a-f]{16}, but .*dataset\.h5 holds"):
        report(replace(files, dataset=other.dataset), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_another_partition_is_refused(files, tmp_path):
    names, ratio = ("lower", "upper"), (1, 1)
    knobs = PartitionKnobs(subsets=names, ratio=ratio)
    partition_dataset(files.dataset, knobs, tmp_path / "other.json")
    with pytest.raises(MismatchError, match=r"was measured on partition [0-9a-f]{16}, but .*other\.json is"):
        drawn(replace(files, partition=tmp_path / "other.json"))


def test_another_teacher_is_refused(world, tmp_path):
    files = measured(world, tmp_path)
    other = tmp_path / "other.json"
    evaluate_teacher(world.teacher("primary"), other)
    with pytest.raises(
        MismatchError, match=r"other\.json: is [0-9a-f]{16}, .*seed0\.json was measured beside [0-9a-f]{16}"
    ):
        drawn(type(files)(files.result, files.dataset, files.partition, files.evaluations, (other,)))


def test_an_old_evaluation_is_refused(world, tmp_path, monkeypatch):
    monkeypatch.setattr("edpipe.results.measures.student.kept", lambda logits, known: {})
    with pytest.raises(CorruptFileError, match=r"seed0\.json: has no predictions of test images"):
        drawn(measured(world, tmp_path))


def test_predictions_of_other_images_are_refused(world, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "edpipe.results.measures.student.kept", lambda logits, known: {"class_ids": [1], "confidences": [0.5]}
    )
    with pytest.raises(
        MismatchError, match=r"has predictions of 1 test images, the dataset has \d+ of 10 classes; make"
    ):
        drawn(measured(world, tmp_path))


def test_beside_specialists_there_is_no_teacher_to_differ_from(world, tmp_path):
    teachers = (world.teacher("primary"), world.teacher("middle"))
    text = words(drawn(measured(world, tmp_path, teachers=teachers)))
    assert "Images on which students and teacher differ" not in text
    assert "Confusion matrix" in text


def test_results_beside_it_are_shown_and_named(world, tmp_path, files):
    other = measured(world, tmp_path, seeds=(2, 3), experiment="other")
    page = drawn(type(files)(files.result, beside=(other.result,)))
    seals = [read_result(path).file_digest for path in (files.result, other.result)]
    assert f'<meta name="edpipe-result" content="{" ".join(seals)}">' in page
    assert re.search(r"That is .* other \(\d+\.\d %\), the best of those beside it", words(page))


def test_results_of_other_data_are_refused(files, tmp_path):
    record = evaluation(0, "digits_ce")
    other = write_result(tmp_path, [record], "digits_ce")
    with pytest.raises(MismatchError, match=r"digits_ce\.json: was measured on dataset [0-9a-f]{16}, .*drawn\.json on"):
        drawn(replace(files, beside=(other,)))
