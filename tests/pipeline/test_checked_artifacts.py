"""Artifacts that were found sound are read again when, and only when, one of their files looks otherwise."""

import json
import os
import time
from pathlib import Path

import pytest

from edpipe.pipeline.jobs import paths
from edpipe.pipeline.state import checked_artifacts
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts, look_at

ARTIFACT, RECORD = Path("a.safetensors"), Path("a.json")
FILES = (ARTIFACT, RECORD)


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """One artifact that was checked."""
    monkeypatch.chdir(tmp_path)
    for path in FILES:
        path.write_text("content")
    time.sleep(2 * checked_artifacts.CLOCK_TICK_NS / 1e9)
    found = CheckedArtifacts()
    found.note(look_at(FILES), "0123")
    found.save()
    return found


def found_anew():
    entry = CheckedArtifacts().find(FILES)
    return entry.digest if entry else None


def test_what_looks_as_it_did_is_known(checked):
    assert found_anew() == "0123"
    before_ns = os.stat(paths.CHECKED).st_mtime_ns
    checked.save()
    assert os.stat(paths.CHECKED).st_mtime_ns == before_ns, "nothing new, nothing written"


def keep_time(path, change):
    before = os.stat(path)
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "same size and time": lambda path: keep_time(path, lambda path: path.write_text("CONTENT")),
    "longer": lambda path: path.write_text("contents"),
    "another file of the same time": lambda path: keep_time(path, lambda path: Path("new").rename(path)),
    "only touched": lambda path: os.utime(path, ns=(1, 1)),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_looks_otherwise_is_read_again(checked, change, path):
    Path("new").write_text("content")
    change(path)
    assert found_anew() is None


def test_a_time_that_we_set_ourselves_changes_nothing(checked):
    os.utime(ARTIFACT, ns=(1, 1))
    checked.note_time_set(ARTIFACT, ARTIFACT)
    checked.note_time_set(Path("unknown"), ARTIFACT)
    checked.save()
    assert found_anew() == "0123"


def test_what_was_just_written_is_not_remembered(checked):
    ARTIFACT.write_text("content")
    checked.note(look_at(FILES), "4567")
    assert checked.find(FILES) is None


def test_what_changed_while_it_was_read_is_not_remembered(checked):
    seen = look_at(FILES)
    os.utime(RECORD, ns=(1, 1))
    checked.note(seen, "4567")
    assert checked.find(FILES) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}'])
def test_a_memory_that_cannot_be_read_is_none(checked, text):
    paths.CHECKED.write_text(text)
    assert found_anew() is None


def test_the_memory_of_another_version_is_none(checked):
    contents = json.loads(paths.CHECKED.read_text())
    paths.CHECKED.write_text(json.dumps(contents | {"edpipe": "0.0.0"}))
    assert found_anew() is None


def test_a_folder_that_cannot_be_written_is_a_warning(checked, monkeypatch, capsys):
    paths.CHECKED.unlink()
    paths.CHECKED.mkdir()
    checked.note(look_at(FILES), "4567")
    checked.save()
    assert capsys.readouterr().err.startswith("warning: .edpipe/checked.json: cannot be written")
