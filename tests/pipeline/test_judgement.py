"""Whether an artifact may be used, as its own record and content say; the files are pretended."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edpipe.params.load import load_params
from edpipe.pipeline.jobs.teachers import make_teacher
from edpipe.pipeline.state import judgement
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts
from edpipe.pipeline.state.judgement import Judgement, judged, sound_paths
from edpipe.pipeline.state.staleness import Assessment, Verdict
from edpipe.storage.code.versions import tokens
from edpipe.storage.digests import digest_file
from edpipe.storage.job import Job, NoKnobs
from edpipe.storage.records import make_record, record_path, write_record


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A teacher whose weights and record lie there, without its dataset."""
    job = make_teacher(load_params(), "digits", "digits_specialists", "middle")
    monkeypatch.chdir(tmp_path)
    write(job)
    return job


def write(job, content=b"weights", **changes):
    path = job.outputs[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    record = make_record(job.step, job.knobs, {}, weights_digest=digest_file(path), subset="middle")
    write_record(record_path(path), record | {"code": tokens(job.units)} | changes)
    for file in job.outputs:
        os.utime(file, ns=(10**18, 10**18))


def verdict_of(job):
    checked = CheckedArtifacts()
    [found] = judged([job], checked)
    checked.save()
    return found.assessment.verdict, " ".join(found.assessment.reasons)


def test_what_would_be_made_now_is_current(job):
    assert verdict_of(job) == (Verdict.CACHED, "")


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({"knobs": {}}, Verdict.STALE, "knob"),
        ({"code": {"steps.train_teacher": "9"}}, Verdict.STALE, "code"),
        ({"subset": "primary"}, Verdict.DAMAGED, "is of subset primary, in the place of subset middle"),
        ({"weights_digest": "0" * 16}, Verdict.DAMAGED, "do not belong together"),
    ],
)
def test_another_record_makes_it_unfit(job, changes, verdict, reason):
    write(job, **changes)
    found = verdict_of(job)
    assert found[0] is verdict
    assert reason in found[1]


def test_no_record_no_use(job):
    record_path(job.outputs[0]).unlink()
    assert verdict_of(job)[0] is Verdict.DAMAGED


def test_absent_is_not_stale(job):
    job.outputs[0].unlink()
    assert verdict_of(job) == (Verdict.ABSENT, "")


def test_content_is_read_once_and_after_a_change_again(job, monkeypatch):
    read = []
    check = judgement.check_artifact
    monkeypatch.setattr(judgement, "check_artifact", lambda job, records: (read.append(job), check(job, records)))
    monkeypatch.setattr("edpipe.pipeline.state.checked_artifacts.CLOCK_TICK_NS", -1)
    verdict_of(job)
    assert verdict_of(job)[0] is Verdict.CACHED
    assert len(read) == 1
    job.outputs[0].write_bytes(b"WEIGHTS")
    os.utime(job.outputs[0], ns=(10**18, 10**18))
    assert verdict_of(job)[0] is Verdict.DAMAGED
    assert len(read) == 2


def test_what_is_gone_and_would_be_another_one_now_makes_stale_what_was_made_from_it(job, monkeypatch):
    monkeypatch.setattr("edpipe.pipeline.state.checked_artifacts.CLOCK_TICK_NS", -1)
    reader = replace(job, inputs={"teacher": job.outputs}, outputs=(Path("reader.h5"), Path("reader.json")))
    write(reader)
    verdict_of(job)
    for path in job.outputs:
        path.unlink()
    checked = CheckedArtifacts()
    assert [one.assessment.verdict for one in judged([job, reader], checked)] == [Verdict.ABSENT, Verdict.CACHED]
    slower = replace(job, knobs=NoKnobs())
    [gone, read] = judged([slower, reader], checked)
    assert gone.assessment.verdict is Verdict.ABSENT
    assert read.assessment.verdict is Verdict.STALE
    assert read.assessment.reasons == (f"{job.outputs[0]} is missing, and would be another one now",)


def chain(*names):
    return [
        Job("run_stage", {}, NoKnobs(), {"before": tuple(map(Path, names[:i][-1:]))}, (Path(name),))
        for i, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("verdicts", "present", "sound"),
    [("ccc", "abc", "abc"), ("scc", "abc", ""), ("csc", "abc", "a"), ("acc", "bc", "c"), ("cca", "ab", "ab")],
)
def test_only_what_stands_on_sound_inputs_is_sound(tmp_path, monkeypatch, verdicts, present, sound):
    monkeypatch.chdir(tmp_path)
    for name in present:
        Path(name).touch()
    kinds = {
        "c": Assessment(Verdict.CACHED),
        "s": Assessment(Verdict.STALE, ("knob",)),
        "a": Assessment(Verdict.ABSENT),
    }
    judgements = [
        Judgement(j, kinds[v], frozenset(), True) for j, v in zip(chain("a", "b", "c"), verdicts, strict=True)
    ]
    assert {str(path) for path in sound_paths(judgements)} == set(sound)
