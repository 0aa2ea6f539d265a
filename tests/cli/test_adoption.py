"""What all kinds of adopted artifacts share: the mirror, old records, what is compared."""

import json
import os
from pathlib import Path

import pytest

from edpipe.cli.adoption.by_step import FUNCTIONS, evidence_of
from edpipe.cli.adoption.claim import Claim, UnshownError
from edpipe.cli.adoption.mirror import mirrored
from edpipe.cli.adoption.records import made_by_code, read_old_record, rewrite
from edpipe.errors import CorruptFileError
from edpipe.pipeline.jobs.step_table import STEP
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.job import Job, NoKnobs
from edpipe.storage.records import library_versions, read_record

RECORD = {"step": "run_stage", "knobs": {}, "inputs": {}, "code": {"steps.run_stage": "3"}, "versions": {"torch": "2"}}


def job_of(path, step="run_stage"):
    return Job(step, {}, NoKnobs(), {}, (path,))


def claim_of(record, other_machine=False):
    return Claim(job_of(Path("a.safetensors")), record, Path(), other_machine)


def test_what_happens_in_the_mirror_stays_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/b/x.json", "a/y.json", "z.json"):
        write_text_atomically(Path(name), name)
    with mirrored([Path("a/b/x.json"), Path("a/y.json"), Path("gone.json"), Path("a/y.json")]) as folder:
        assert folder == tmp_path
        assert Path("a/b/x.json").read_text() == "a/b/x.json"
        assert not Path("gone.json").exists()
        assert not Path("z.json").exists()
        write_text_atomically(Path("a/b/x.json"), "other")
        Path("a/y.json").unlink()
        mirror = Path.cwd()
    assert Path.cwd() == tmp_path
    assert not mirror.exists()
    assert [Path(name).read_text() for name in ("a/b/x.json", "a/y.json")] == ["a/b/x.json", "a/y.json"]


def test_a_record_that_is_rewritten_keeps_its_time(tmp_path):
    artifact = tmp_path / "a.safetensors"
    artifact.with_suffix(".json").write_text(json.dumps(RECORD))
    os.utime(artifact.with_suffix(".json"), ns=(1_000, 2_000))
    rewrite(job_of(artifact), RECORD | {"seed": 1})
    assert read_record(artifact.with_suffix(".json"))["seed"] == 1
    assert artifact.with_suffix(".json").stat().st_mtime_ns == 2_000


def test_old_records_lack_code_and_libraries(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({name: RECORD[name] for name in ("step", "knobs", "inputs")}))
    assert read_old_record(path) == RECORD | {"code": {}, "versions": {}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("{", "not a readable record"),
        ('{"step": "run_stage", "knobs": {}}', "has no 'inputs'"),
        (json.dumps(RECORD | {"file_digest": "0" * 16}), "altered since written"),
    ],
)
def test_records_that_are_none(tmp_path, text, words):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CorruptFileError, match=words):
        read_old_record(path)


def test_who_made_an_artifact():
    assert made_by_code(RECORD) == {"steps.run_stage": "3"}
    assert made_by_code(RECORD | {"code": "0123456789abcdef"}) == {"steps.run_stage": "0+0123456789abcdef"}
    assert made_by_code(RECORD | {"adopted": {"code": {"steps.run_stage": "1"}}}) == {"steps.run_stage": "1"}


def test_what_both_records_have_must_be_equal():
    claim = claim_of(RECORD | {"inputs": {"dataset": "0123"}, "seed": 1, "adopted": {}})
    fresh = {"inputs": {"dataset": "0123", "trajectory": []}, "code": {}, "versions": {}, "images_seen": 9}
    assert claim.compare(fresh) == {**claim.record, "inputs": {"dataset": "0123", "trajectory": []}, "images_seen": 9}
    with pytest.raises(UnshownError, match=r"^a\.safetensors: its seed is 1, made again it is 2$"):
        claim.compare({"seed": 2})
    with pytest.raises(UnshownError, match=r"its inputs\.dataset is '0123', made again it is '4567'"):
        claim.compare({"inputs": {"dataset": "4567"}})
    with pytest.raises(UnshownError, match=r"its seed is 1, made again it is \[0, 0, .{40,}…$"):
        claim.compare({"seed": [0] * 99})


def test_equal_bits_are_asked_for_where_libraries_and_machine_are_the_same():
    same = RECORD | {"versions": library_versions()}
    assert claim_of(same).needs_equality
    assert not claim_of(same, other_machine=True).needs_equality
    assert not claim_of(RECORD).needs_equality


@pytest.mark.parametrize("step", FUNCTIONS)
def test_each_kind_of_evidence_is_there(step):
    assert step in STEP
    assert callable(evidence_of(step))
