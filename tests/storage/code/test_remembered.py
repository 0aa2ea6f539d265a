"""Digests of units that are kept from process to process: for the very same texts alone, and unused if damaged."""

import json
import sys

import pytest
from source_trees import write_tree

from edpipe.storage.code import remembered
from edpipe.storage.code.units import unit_digest
from edpipe.storage.digests import digest_json

UNIT = "steps.report"
STEP = {"steps__report": "from edpipe.pages import draw\n\n\ndef run():\n    return draw()\n"}


def open_tree(folder, monkeypatch, drawn):
    """A package of one step, looked at by a process that has computed nothing yet."""
    tree = write_tree(folder, pages=f"def draw():\n    return {drawn}\n", **STEP)
    begin_process(monkeypatch, tree)
    return tree


def begin_process(monkeypatch, tree):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(remembered, "HERE", tree)
    remembered._known.cache_clear()
    remembered._texts_digest.cache_clear()


@pytest.fixture(autouse=True)
def forget():
    yield
    remembered._known.cache_clear()
    remembered._texts_digest.cache_clear()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A package whose one digest was kept by an earlier process."""
    tree = open_tree(tmp_path / "one", monkeypatch, 1)
    assert remembered.remembered_digest(UNIT) == unit_digest(tree, UNIT)
    begin_process(monkeypatch, tree)
    return tree


@pytest.fixture
def computed(monkeypatch):
    """The units whose digests were computed since."""
    units = []
    monkeypatch.setattr(remembered, "unit_digest", lambda tree, unit: units.append(unit) or unit_digest(tree, unit))
    return units


def test_the_same_texts_are_not_analysed_again(tree, computed):
    assert remembered.remembered_digest(UNIT) == unit_digest(tree, UNIT)
    assert computed == []


def test_other_texts_are(tree, tmp_path, monkeypatch, computed):
    kept = remembered.path().read_bytes()
    other = open_tree(tmp_path / "other", monkeypatch, 2)
    remembered.path().parent.mkdir()
    remembered.path().write_bytes(kept)
    assert remembered.remembered_digest(UNIT) == unit_digest(other, UNIT) != unit_digest(tree, UNIT)
    assert computed == [UNIT]
    begin_process(monkeypatch, other)
    assert remembered.remembered_digest(UNIT) == unit_digest(other, UNIT)
    assert computed == [UNIT], "what was kept is now of the other texts"


def forged(contents):
    return json.dumps(contents | {"digests": {UNIT: "0" * 16}}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"[]",
        lambda data: b"\xff",
        lambda data: forged(json.loads(data)),
        lambda data: forged({"texts": json.loads(data)["texts"], "file_digest": digest_json({})}),
    ],
)
def test_a_damaged_file_is_not_used(tree, computed, damage):
    remembered.path().write_bytes(damage(remembered.path().read_bytes()))
    assert remembered.remembered_digest(UNIT) == unit_digest(tree, UNIT)
    assert computed == [UNIT]


def test_where_nothing_can_be_kept_it_is_computed(tmp_path, monkeypatch):
    tree = open_tree(tmp_path, monkeypatch, 1)
    remembered.path().parent.write_text("no folder")
    assert remembered.remembered_digest(UNIT) == unit_digest(tree, UNIT)


def test_nothing_is_kept_where_python_keeps_no_compiled_modules_either(tmp_path, monkeypatch):
    tree = open_tree(tmp_path, monkeypatch, 1)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert remembered.remembered_digest(UNIT) == unit_digest(tree, UNIT)
    assert not remembered.path().parent.exists()


def test_an_unknown_unit_is_refused(tree):
    with pytest.raises(KeyError):
        remembered.remembered_digest("steps.of_another_edpipe")
