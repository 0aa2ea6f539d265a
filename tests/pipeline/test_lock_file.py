"""dvc.lock is written once for many stages, and reads for DVC as if DVC had written it."""

import types
from copy import deepcopy
from pathlib import Path

import pytest

from edpipe.errors import CorruptFileError
from edpipe.pipeline.dvc import lock_file

pytest.importorskip("dvc")

from dvc.utils.serialize import dumps_yaml, loads_yaml

ODD_WORDS = ["123e456", "0o17", "yes", "no", "1_000", "0123", "1:30", "2001-01-01", "~", "", "a: b", "é", "- x", "#"]
"""Texts that one version of YAML or another takes for something else."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def entries(monkeypatch):
    """What stages were saved with, by name, instead of DVC's stages."""

    def entry(stage):
        return {stage.name: stage.entry}

    monkeypatch.setattr("dvc.stage.serialize.to_lockfile", entry)
    return lambda **named: [types.SimpleNamespace(name=name, entry=entry) for name, entry in named.items()]


def lock():
    return loads_yaml(Path("dvc.lock").read_text(encoding="utf-8"))


def test_stages_are_put_beside_the_others(folder, entries):
    lock_file.put_stages(entries(a={"cmd": "x"}, b={"cmd": "y"}))
    lock_file.put_stages(entries(b={"cmd": "z"}, c={"cmd": "w"}))
    assert lock() == {"schema": "2.0", "stages": {"a": {"cmd": "x"}, "b": {"cmd": "z"}, "c": {"cmd": "w"}}}
    assert lock_file.stages_in_lock() == {"a", "b", "c"}


def test_stages_are_removed_and_the_file_goes_with_the_last(folder, entries):
    lock_file.put_stages(entries(a={"cmd": "x"}, b={"cmd": "y"}, c={"cmd": "z"}))
    lock_file.remove_stages(["a", "c", "unknown"])
    assert lock()["stages"] == {"b": {"cmd": "y"}}
    lock_file.remove_stages(["b"])
    assert not Path("dvc.lock").exists()
    lock_file.remove_stages(["b"])
    assert lock_file.stages_in_lock() == set()


def test_what_else_dvc_keeps_there_stays(folder, entries):
    Path("dvc.lock").write_text("schema: '2.0'\ndatasets:\n- name: d\n  rev: 1\n")
    lock_file.put_stages(entries(a={"cmd": "x"}))
    assert lock() == {"schema": "2.0", "datasets": [{"name": "d", "rev": 1}], "stages": {"a": {"cmd": "x"}}}


def test_texts_and_numbers_come_back_as_they_were(folder, entries):
    entry = {"cmd": ODD_WORDS, "params": {word: [word, 1, 1.5, 1e-05, True, None] for word in ODD_WORDS}}
    lock_file.put_stages(entries(a=entry))
    assert lock()["stages"]["a"] == entry


def test_it_is_written_in_dvcs_own_order_and_style(folder, entries):
    entry = {"cmd": "x", "deps": [{"path": "b", "hash": "md5", "md5": "0f"}], "outs": [{"path": "a", "size": 1}]}
    lock_file.put_stages(entries(z=entry, a=entry))
    alike = {"schema": "2.0", "stages": {"z": entry, "a": deepcopy(entry)}}  # one entry twice would be an alias
    assert Path("dvc.lock").read_text() == dumps_yaml(alike)


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n", "stages: [\n", "- a\n", "stages: [a]\n", "stages: {a: \xff}\n"])
def test_a_file_that_cannot_be_read_is_one_line_and_stays(folder, entries, text):
    before = text.encode("latin-1")
    Path("dvc.lock").write_bytes(before)
    line = r"^dvc\.lock: cannot be read \(.*\); mend it, or leave DVC out with EDPIPE_DVC=0$"
    for change in (lock_file.stages_in_lock, lambda: lock_file.put_stages(entries(a={})), lambda: remove("a")):
        with pytest.raises(CorruptFileError, match=line):
            change()
    assert Path("dvc.lock").read_bytes() == before


def remove(name):
    lock_file.remove_stages([name])


@pytest.mark.parametrize("number", [1, 10])
def test_it_is_parsed_and_written_once_for_any_number_of_stages(folder, entries, monkeypatch, number):
    lock_file.put_stages(entries(a={"cmd": "x"}))
    counts = {"_parsed": 0, "_write": 0}

    def counting(name, function):
        def call(*arguments):
            counts[name] += 1
            return function(*arguments)

        return call

    for name in counts:
        monkeypatch.setattr(lock_file, name, counting(name, getattr(lock_file, name)))
    lock_file.put_stages(entries(**{f"s{k}": {"cmd": "y"} for k in range(number)}))
    assert counts == {"_parsed": 1, "_write": 1}
    lock_file.remove_stages([f"s{k}" for k in range(number)])
    assert counts == {"_parsed": 2, "_write": 2}
