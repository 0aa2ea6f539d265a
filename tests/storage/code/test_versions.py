"""Versions of units: what jobs are told, how the file is sealed, and what becomes of earlier tokens."""

import pytest
import yaml

from edpipe.errors import CorruptFileError
from edpipe.storage.code import versions
from edpipe.storage.code.units import unit_digest, unit_names
from edpipe.storage.code.versions import CONFIRMED, HERE, Confirmed, confirmed, read_entries, settled, tokens

ENTRIES = {"steps.run_stage": Confirmed(1, "0" * 16), "losses.kd": Confirmed(3, "12345678901234e5")}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "confirmed.yaml"
    versions.write_confirmed(ENTRIES, path)
    return path


def test_what_is_written_is_read(path):
    assert confirmed(path) == read_entries(path) == ENTRIES


def test_landed_code_is_confirmed():
    edited = [unit for unit in unit_names(HERE) if versions.is_edited(unit)]
    assert not edited, "run `edpipe code confirm`, or with --bump where results change"


def test_every_unit_that_is_named_is_there():
    assert set(confirmed()) == set(unit_names(HERE))


def test_a_job_is_told_the_version_or_after_an_edit_the_digest_too(monkeypatch):
    unit = "losses.kd"
    digest = unit_digest(HERE, unit)
    for entries, told in (
        ({unit: Confirmed(4, digest)}, "4"),
        ({unit: Confirmed(4, "0" * 16)}, f"4+{digest}"),
        ({}, f"0+{digest}"),
    ):
        monkeypatch.setattr(versions, "confirmed", lambda entries=entries: entries)
        assert tokens([unit, unit]) == {unit: told}


def test_an_edit_that_was_confirmed_since_is_the_version(monkeypatch):
    monkeypatch.setattr(versions, "confirmed", lambda: ENTRIES)
    assert settled("losses.kd", "3+12345678901234e5") == "3"
    assert settled("losses.kd", "2+12345678901234e5") == "2+12345678901234e5"
    assert settled("losses.kd", "3+0000000000000000") == "3+0000000000000000"
    assert settled("losses.kd", "2") == "2"
    assert settled("losses.unknown", "1") == "1"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda text: text.replace("version: 3", "version: 4"), "altered since written; restore it with git, or"),
        (lambda text: text.replace('"0000', '"1000'), "altered since written; restore it with git, or"),
        (lambda text: text.replace("file_digest", "other_digest"), "holds something else"),
        (lambda text: text.replace("version: 3", "version: three"), "holds something else"),
        (lambda text: "[1]", "must be a mapping, got list; restore it with git"),
        (lambda text: "<<<<<<< HEAD\n" + text, "cannot be read"),
        (lambda text: "a: [", "cannot be read"),
    ],
)
def test_another_file_is_refused_in_one_line(path, change, line):
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    confirmed.cache_clear()
    with pytest.raises(CorruptFileError, match=line) as refusal:
        confirmed(path)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(CorruptFileError, match="cannot be read"):
        confirmed(tmp_path / "none.yaml")


def test_every_single_edit_of_the_shipped_file_is_refused(tmp_path):
    text = CONFIRMED.read_text(encoding="utf-8")
    contents = yaml.safe_load(text)
    kinds = [kind for kind in contents if kind != versions.SEAL]
    for kind in kinds:
        for name, entry in contents[kind].items():
            line = f'  {name}: {{version: {entry["version"]}, digest: "{entry["digest"]}"'
            other = text.replace(line, line.replace("{version: ", "{version: 9"))
            assert other != text
            path = tmp_path / f"{kind}_{name}.yaml"
            path.write_text(other, encoding="utf-8")
            with pytest.raises(CorruptFileError, match="altered since written"):
                confirmed(path)
