"""Searches: what is measured of a trial's students, how trials are ordered, and what the search cost."""

import dataclasses
import json

import numpy as np
import pytest
from small_world import make_world

from edpipe.datasets import dataset_file
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import DataError, MismatchError
from edpipe.params.searches.knobs import SearchJobKnobs, SearchKnobs, TrialKnobs
from edpipe.results.comparison.search_table import rows_of, search_cost, search_facts, search_table
from edpipe.results.measures.cost import CostPart, Figures
from edpipe.results.measures.evaluation_inputs import load_student
from edpipe.results.measures.validation import measure_on_validation
from edpipe.steps import search as step
from edpipe.steps.run_stage import run_stage
from edpipe.storage.records import read_record, record_path

RATE = "stages.only.learning_rate"
VAL, TEST = (dataset_file.SPLITS.index(split) for split in ("val", "test"))


def knobs(*rates, seeds=(5, 6), trials=None):
    search = SearchKnobs(experiment="kd", over={RATE: rates}, seeds=seeds, trials=trials)
    return SearchJobKnobs(search, tuple(TrialKnobs(f"kd-{rate}", {RATE: rate}, 1, 0) for rate in rates))


def row(seed, top1, images=100):
    macs = 2_000_000_000 * images
    digest = f"{seed}{top1}"
    return {"seed": seed, "val_top1": top1, "val_samples": 50, "images_seen": images, "training_macs": macs} | {
        "weights_digest": digest
    }


ROWS = {
    "kd-0.1": [row(5, 0.5), row(6, 0.75)],
    "kd-0.2": [row(5, 0.75), row(6, 0.875)],
    "kd-0.4": [row(5, 0.875), row(6, 0.375)],
}


def part(seconds, cpu_seconds):
    return CostPart("run_stage", Figures(seconds, cpu_seconds, 100, 0, 1, None))


def contents(rows=ROWS, costs=None, **changes):
    found = knobs(*(float(name.removeprefix("kd-")) for name in rows), **changes)
    costs = costs or {name: [part(10.0, 4.0), part(20.0, 5.0)] for name in rows}
    return json.loads(json.dumps(search_facts("lr", found, rows) | {"cost": search_cost(costs)}, sort_keys=True))


def test_trials_stand_in_the_order_of_their_means_and_equal_ones_in_that_of_the_grid():
    found = contents()
    assert [trial["trial"] for trial in found["trials"]] == ["kd-0.2", "kd-0.1", "kd-0.4"]
    assert found["best"]["values"] == {RATE: 0.2}
    assert found["best"]["val_top1"]["mean"] == 0.8125
    # of 0.5 and 0.75: mean ± 12.7062 (Student's t, 1 degree of freedom) · (0.25/√2)/√2
    spread = found["trials"][1]["val_top1"]
    assert (spread["mean"], spread["n"]) == (0.625, 2)
    assert spread["high"] == pytest.approx(0.625 + 12.7062047 * 0.125, abs=1e-6)
    assert (found["split"], found["val_samples"], found["num_trials"], found["grid_points"]) == ("val", 50, 3, 3)


def test_the_whole_cost_of_the_search_is_in_its_file():
    found = contents()
    assert found["budget"] == {"students": 6, "images_seen": 600, "training_macs": 1_200_000_000_000}
    cost = found["cost"]
    assert (cost["seconds"], cost["cpu_seconds"], cost["artifacts"], cost["with_figures"]) == (90.0, 27.0, 6, 6)
    assert cost["trials"]["kd-0.2"] == {"seconds": 30.0, "cpu_seconds": 9.0, "artifacts": 2, "with_figures": 2}


def test_table_says_number_of_trials_cost_and_split():
    lines = search_table(contents(trials=2, rows={name: ROWS[name] for name in ("kd-0.1", "kd-0.2")})).splitlines()
    assert lines[0].startswith(f"| # | `{RATE}` | n | top1, val % |")
    assert lines[2] == "| 1 | 0.2 | 2 | 81.25 ± 79.41 | 200 | 0.4 | 9 |"
    assert lines[5] == (
        "Knobs of experiment kd: 2 of 2 points of the grid, drawn by seed 0. Judged by 50 validation images; the test "
        "split was not read."
    )
    assert lines[7] == "The search took 4 students, 400 images, 0.8 TMAC, 18 CPU seconds in 1 min 0 s."


def test_times_that_nobody_noted_are_not_taken_for_nothing():
    unknown = {"kd-0.1": [part(10.0, 4.0), CostPart("run_stage", None)], "kd-0.2": [CostPart("run_stage", None)] * 2}
    found = contents(rows={name: ROWS[name] for name in unknown}, costs=unknown)
    table = search_table(found)
    assert "| 1 | 0.2 | 2 | 81.25 ± 79.41 | 200 | 0.4 | – |" in table
    assert "Nobody noted what 3 of 4 trained stages took; they are not in the times." in table
    nothing = {name: [CostPart("run_stage", None)] * 2 for name in unknown}
    assert "0.8 TMAC.\n" in search_table(contents(rows={name: ROWS[name] for name in unknown}, costs=nothing))


def test_one_seed_has_no_interval_and_the_grid_may_be_whole():
    table = search_table(contents(rows={"kd-0.1": [row(5, 0.5)]}, seeds=(5,)))
    assert "| 1 | 0.1 | 1 | 50.00 | 100 | 0.2 |" in table
    assert "all 1 points of the grid." in table


def test_the_facts_follow_from_what_was_measured():
    found = contents()
    again = json.loads(json.dumps(search_facts("lr", knobs(0.1, 0.2, 0.4), rows_of(found))))
    assert again == {name: found[name] for name in again}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A world with students of two seeds, trained on labels alone."""
    world = make_world(tmp_path_factory.mktemp("search"), max_per_class=20)
    paths = []
    for seed in (5, 6):
        stage, files = world.stage([], (), out=f"seed{seed}", task_weight=1.0, distill_weight=0.0)
        run_stage(f"seed {seed}", seed, stage, files)
        paths.append(files.out)
    return world, paths


def made(world, paths, folder, found=None):
    found = found or knobs(0.05)
    out, table = folder / "search_lr.json", folder / "search_lr.md"
    costs = {path: part(1.0, 0.5) for path in paths}
    step.Search("lr", found, world.dataset, (world.partition,)).write(paths, costs, out, table)
    return read_record(out), table.read_text(encoding="utf-8")


def watch(monkeypatch, name):
    """What is given to a method of every data set from now on, first of all arguments."""
    given, method = [], getattr(dataset_file.Dataset, name)

    def watched(self, first, *rest):
        given.append(first)
        return method(self, first, *rest)

    monkeypatch.setattr(dataset_file.Dataset, name, watched)
    return given


@pytest.mark.slow
def test_neither_labels_nor_images_of_the_test_split_are_read(trained, tmp_path, monkeypatch):
    world, paths = trained
    expected = made(world, paths, tmp_path / "first")
    dataset = dataset_file.open_dataset(world.dataset)
    of_test = dataset.splits == TEST
    assert of_test.any()
    without = dataclasses.replace(dataset, labels=np.where(of_test, -1, dataset.labels).astype(np.int32))
    monkeypatch.setattr(step, "open_dataset", lambda _: without)
    splits, samples = watch(monkeypatch, "sample_ids"), watch(monkeypatch, "images")
    assert made(world, paths, tmp_path / "second") == expected
    assert set(splits) == {"val"}
    assert set(np.concatenate(samples)) == set(np.flatnonzero(dataset.splits == VAL))


@pytest.mark.slow
def test_what_is_measured_is_top1_on_the_validation_split(trained, tmp_path):
    world, paths = trained
    found, _ = made(world, paths, tmp_path)
    (trial,) = found["trials"]
    record = read_record(record_path(paths[0]))
    assert [seed["seed"] for seed in trial["seeds"]] == [5, 6]
    first = trial["seeds"][0]
    assert first["training_macs"] == record["training_macs_per_image"] * record["images_seen"]
    assert first["weights_digest"] == record["weights_digest"] == found["inputs"]["students"][0]
    dataset = dataset_file.open_dataset(world.dataset)
    assert first["val_samples"] == len(dataset.sample_ids("val"))
    assert (first["val_top1"] * first["val_samples"]) == pytest.approx(round(first["val_top1"] * first["val_samples"]))


@pytest.mark.slow
def test_two_equal_searches_differ_in_their_costs_alone(trained, tmp_path):
    world, paths = trained
    one, other = (made(world, paths, tmp_path / name)[0] for name in ("a", "b"))
    assert one == other
    assert one["digest"] == other["digest"]


@pytest.mark.slow
def test_students_of_other_seeds_are_refused(trained, tmp_path):
    world, paths = trained
    with pytest.raises(MismatchError, match="was trained with seed 6, not 5; run its stages again"):
        made(world, paths[::-1], tmp_path)
    assert not (tmp_path / "search_lr.json").exists()


@pytest.mark.slow
def test_without_validation_images_there_is_nothing_to_judge_by(trained):
    world, paths = trained
    dataset = dataset_file.open_dataset(world.dataset)
    train = np.where(dataset.splits == VAL, 0, dataset.splits)
    without = dataclasses.replace(dataset, splits=train)
    student = load_student(paths[0], dataset, read_partition(world.partition, dataset))
    with pytest.raises(DataError, match="data set 'digits' has no validation images, by which a search judges; give"):
        measure_on_validation(5, [student], without)


def test_values_that_are_groups_are_shown_alike_before_and_after_the_file_is_written():
    values = [{"name": "primary", "blocks": 1}], True, None, "bf"
    search = SearchKnobs(experiment="ed", over={"method.levels": values}, seeds=(5,))
    found = SearchJobKnobs(
        search, tuple(TrialKnobs(f"ed-{k}", {"method.levels": one}, 1, 0) for k, one in enumerate(values))
    )
    rows = {f"ed-{k}": [row(5, 0.5 - k / 8)] for k in range(len(values))}
    before = search_facts("levels", found, rows) | {"cost": search_cost({name: [part(1.0, 1.0)] for name in rows})}
    table = search_table(before)
    assert [line.split(" | ")[1] for line in table.splitlines()[2:6]] == [
        '[{"blocks":1,"name":"primary"}]',
        "true",
        "null",
        "bf",
    ]
    assert search_table(json.loads(json.dumps(before, sort_keys=True))) == table
