"""The benchmarks still run: each of their parts, as small as it can be."""

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from project import ROOT, as_yaml

from edpipe.params.soft_labels import StorageKnobs
from edpipe.params.yaml_file import load_raw
from edpipe.soft_labels.encoding.costs import candidates

CPU = torch.device("cpu")


@pytest.fixture
def bench_store(monkeypatch):
    torch.set_num_threads(1)
    module = load("bench_store", monkeypatch)
    monkeypatch.setattr(module, "ROWS", 4)
    monkeypatch.setattr(module, "STEP_IMAGES", 4)
    return module


@pytest.fixture
def bench_engine(monkeypatch):
    """With batches of four images, networks that take no time, and no process beside this one."""
    torch.set_num_threads(1)
    for name in ("bench_store", "school"):
        load(name, monkeypatch)
    module = load("bench_engine", monkeypatch)
    small = {"STEP_IMAGES": 4, "PHOTOS": 2, "STUDENT": "resnet8", "TEACHER": "resnet8", "USUAL_WORKERS": 0}
    for name, value in (small | {"GATHERED": 2}).items():
        monkeypatch.setattr(module, name, value)
    for name, size in (("SQUARES_RECIPE", 4), ("PHOTOS_RECIPE", 2)):
        monkeypatch.setattr(module, name, getattr(module, name).model_copy(update={"batch_size": size}))
    return module


@pytest.fixture
def bench_packing(monkeypatch):
    torch.set_num_threads(1)
    for name in ("bench_store", "school"):
        load(name, monkeypatch)
    return load("bench_packing", monkeypatch)


@pytest.fixture
def squares(bench_engine, tmp_path):
    """Eight squares, and soft labels of one view and of all."""
    dataset = bench_engine.write_squares(tmp_path / "squares.h5", 8, 4)
    return dataset, *(bench_engine.open_rows(tmp_path / f"{views}.h5", dataset, views) for views in (162, 1))


@pytest.fixture
def precision_table(monkeypatch):
    return load("precision_table", monkeypatch)


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def check(figures):
    """Every figure is a speed, or a ratio with its spread."""
    for value in figures.values():
        if isinstance(value, dict):
            assert 0 < value["min"] <= value["median"] <= value["max"]
            assert value["n"] == 1
        else:
            assert value > 0
    return list(figures)


@pytest.mark.slow
def test_gathering_and_input_of_a_tiny_file_are_measured(bench_store, capsys):
    with bench_store.exhaustive_file(300, 100, 3) as labels:
        assert (labels.num_forwards, len(labels.class_ids), labels.header.storage.precision) == (900, 100, "uint8")
        gather = bench_store.bench_gather(labels, 1, CPU)
        assert check(gather)[:2] == ["reader / memmap (speed)", "reader / h5py (speed)"]
        assert check(bench_store.bench_input(labels, 1, CPU))[:2] == [
            "views / step (time)",
            "soft labels / step (time)",
        ]
        path = labels.path
    assert not path.exists()
    bench_store.show("gather", gather)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("file    ")
    assert lines[1].startswith("gather  reader / memmap (speed): {")


def test_dumping_a_tiny_dataset_is_measured(bench_store):
    assert check(bench_store.bench_dump(1, 40, CPU))[0] == "dump / bare forward (speed)"


@pytest.mark.slow
def test_training_is_measured_with_and_without_cache(bench_engine, squares):
    dataset, many, one = squares
    figures = check(bench_engine.bench_student(dataset, many, 1, CPU))
    assert figures[:4] == [
        "cached / ce (speed)",
        "cached / online (speed)",
        "cached / usual (speed)",
        "batch / step (time)",
    ]
    assert check(bench_engine.bench_views(dataset, (many, one), 1, CPU))[0] == "162 views / 1 (speed)"


def test_memory_is_measured_in_the_order_in_which_it_is_taken(bench_engine, squares):
    dataset, many, _ = squares
    figures = bench_engine.held(dataset.path, many.files[0].path, 1, 1)
    assert figures["opening, MB"] <= figures["opening and training, MB"] <= figures["peak, MB"]
    assert figures["data set, MB"] == pytest.approx(8 * 3 * 32 * 32 / 1e6)
    assert figures["peak less data set, MB"] == pytest.approx(figures["peak, MB"] - figures["data set, MB"])


@pytest.mark.slow
def test_a_loop_of_ones_own_is_measured_beside_the_pipelines(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    for name in ("bench_store", "school"):
        load(name, monkeypatch)
    module = load("bench_own_loop", monkeypatch)
    monkeypatch.setattr(module, "STUDENT", "resnet8")
    monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setattr(module, "STEPS", 1)
    index, dataset, rows_per_s = module.store_rows(tmp_path, 8, 4)
    assert rows_per_s > 0
    assert check(module.bench_loop(index, dataset, 1))[0] == "own loop / pipeline (speed)"
    assert check(module.bench_batch(index, dataset, 1))[0] == "collate / pipeline's batch (time)"


@pytest.mark.slow
def test_photos_made_ahead_are_measured(bench_engine, tmp_path):
    photos = bench_engine.write_photos(tmp_path / "photos.h5", 4, 2)
    names = check(bench_engine.bench_photos(photos, 1, 1, CPU))
    assert names[:2] == ["batches, 1 thread / 0 (speed)", "batches, 2 threads / 0 (speed)"]


@pytest.mark.slow
def test_packing_and_loading_a_few_files_are_measured(bench_packing, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    monkeypatch.setattr(bench_packing, "WORKERS", 0)
    root = bench_packing.write_folder(tmp_path / "raw", 8)
    packing = check(bench_packing.bench_packing(root, tmp_path, 1))
    assert packing[0] == "packing / one-process Pillow (speed)"
    assert check(bench_packing.bench_loading(root, tmp_path, 1))[0] == "packed / ImageFolder (speed)"
    assert "2 classes, 6 train, 0 val, 2 test" in capsys.readouterr().err


@pytest.mark.slow
def test_a_push_and_a_pull_are_measured(monkeypatch, tmp_path):
    pytest.importorskip("dvc_s3")
    module = load("bench_push", monkeypatch)
    with module.serving_s3() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        found = module.bench(tmp_path, 2, store)
    assert list(found) == ["push", "push, again", "push, one job", "pull", "pull, again"]
    assert (found["push"]["PUT"], found["push, one job"]["PUT"]) == (4, 2)
    assert "PUT" not in found["push, again"]
    assert found["pull"]["GET"] >= 4
    assert all(figures["cpu_s"] > 0 for figures in found.values())


def test_a_live_teacher_says_what_a_cache_of_it_would(bench_engine, squares):
    dataset, many, _ = squares
    room, plain = (bench_engine.task(dataset, stores, bench_engine.SHIFTS, CPU) for stores in ([many], []))
    teacher = bench_engine.build_network("resnet8", 4, 3, 0)
    cached, online = room.batch(0, 4), bench_engine.Online(plain, room, teacher).batch(0, 4)
    assert torch.equal(cached.images, online.images)
    assert torch.equal(cached.targets[0].rows, online.targets[0].rows)
    assert torch.equal(cached.targets[0].columns, online.targets[0].columns)
    assert cached.targets[0].logits.shape == online.targets[0].logits.shape
    assert not teacher.training


def test_runs_are_taken_in_turn_after_one_that_does_not_count(bench_store):
    order = []
    seconds = bench_store.alternate(2, lambda: order.append("a"), lambda: order.append("b"))
    assert order == ["a", "b"] * 3
    assert [len(taken) for taken in seconds] == [2, 2]


def test_a_ratio_is_that_of_paired_runs(bench_store):
    assert bench_store.ratio([4, 6, 2], [2, 2, 2]) == {"median": 2, "min": 1, "max": 3, "n": 3}


def test_the_table_has_a_row_for_each_precision(precision_table, monkeypatch, capsys):
    logits = np.random.default_rng(0).normal(0, 3, (50, 10)).astype(np.float32)
    trial = SimpleNamespace(logits=logits, sample_ids=np.arange(50))
    monkeypatch.setattr(precision_table, "load_params", lambda: None)
    monkeypatch.setattr(precision_table, "measure_teacher", lambda *words: trial)
    monkeypatch.setattr(sys, "argv", ["precision_table.py", "digits", "general", "all", "--rows", "50"])
    precision_table.main()
    header, rule, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("| precision | bytes a row | mean, largest, certified KL, τ = 4 | ")
    names = [cost.name for cost in candidates(10, StorageKnobs())]
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in names]
    assert {line.count("|") for line in (header, rule, *lines)} == {5}


@pytest.fixture
def bench_growth(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return load("bench_growth", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["confusion", "names", "easiest", "check", "plan", "makespan"])
def test_each_case_of_growth_runs(bench_growth, case):
    assert list(bench_growth.CASES) == ["confusion", "names", "easiest", "check", "plan", "makespan"]
    found = bench_growth.measured(case, 40)
    assert found["size"] == 40
    assert found["seconds"] >= 0
    assert found["mb"] >= 0


def test_the_exponent_is_the_slope_of_the_logarithms(bench_growth):
    assert bench_growth.exponent([10, 100, 1000], [2.0, 20 * 10**0.5, 2000]) == pytest.approx(1.5)


@pytest.fixture
def bench_dvc(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return load("bench_dvc", monkeypatch)


def test_a_project_of_a_group_more_has_38_jobs_more(bench_dvc):
    assert [bench_dvc.num_jobs(number) for number in (1, 2, 3)] == [40, 78, 116]
    bench_dvc.write_params(2)
    assert len(bench_dvc.load_params().tracked) == 4, "and what is written can be read"


def test_a_few_jobs_are_taken_out_of_dvc_lock(bench_dvc, tmp_path):
    stages = {name: {"cmd": name} for name in ("report@a", "result@a", "report@b", "report@c", "report@d")}
    (tmp_path / "dvc.lock").write_text(as_yaml({"schema": "2.0", "stages": stages}))
    bench_dvc.forget_some()
    assert list(load_raw(tmp_path / "dvc.lock")["stages"]) == ["result@a", "report@d"]
