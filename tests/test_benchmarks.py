"""The benchmarks still run: each of their parts, as small as it can be."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from project import ROOT

from edpipe.params.soft_labels import StorageKnobs
from edpipe.storage_costs import candidates

CPU = torch.device("cpu")


@pytest.fixture
def bench_store(monkeypatch):
    torch.set_num_threads(1)
    module = load("bench_store", monkeypatch)
    monkeypatch.setattr(module, "ROWS", 4)
    monkeypatch.setattr(module, "STEP_IMAGES", 4)
    return module


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
    monkeypatch.setattr(precision_table, "ask_teacher", lambda *words: trial)
    monkeypatch.setattr(sys, "argv", ["precision_table.py", "digits", "general", "all", "--rows", "50"])
    precision_table.main()
    header, rule, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("| precision | bytes a row | mean, largest, certified KL, τ = 4 | ")
    names = [cost.name for cost in candidates(10, StorageKnobs())]
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in names]
    assert {line.count("|") for line in (header, rule, *lines)} == {5}
