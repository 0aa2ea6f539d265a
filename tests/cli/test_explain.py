"""`edpipe explain`: what is said of an artifact that is sound, stale, absent, and of words that name none."""

import json
from pathlib import Path

import pytest
from pretended import params_with, pretend_all
from shipped import shipped_and_examples

from edpipe.cli.commands.explain import explain, explained, job_of, lines_of
from edpipe.errors import UsageError
from edpipe.params.load import parse_params
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.state.staleness import Verdict
from edpipe.storage.records import record_path

STUDENT = paths.student_path("digits_ed", 0, 2, "middle")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which digits_ed and digits_kd are made."""
    monkeypatch.chdir(tmp_path)
    pretend_all(tmp_path, ["digits_ed", "digits_kd"])
    return tmp_path


def explanation(path, changes=()):
    params = params_with(changes)
    return explained(params, job_of(params, Path(path)))


def test_a_sound_artifact_names_what_it_was_made_from_and_who_reads_it(folder):
    found = explanation(STUDENT)
    assert found.outcome.verdict is Verdict.CACHED
    lines = list(lines_of(found))
    assert lines[0] == str(STUDENT)
    assert "  made by     edpipe run_stage --experiment digits_ed --seed 0 --stage middle" in lines
    assert "  state       what would be made now; it is used as it is" in lines
    before = paths.student_path("digits_ed", 0, 1, "primary")
    assert before in dict(found.inputs)
    assert any(line.endswith(str(before)) for line in lines)
    assert any(line.startswith("  code        steps.run_stage ") or ", steps.run_stage " in line for line in lines)
    # The next stage of this seed, its evaluation, the result and the page; no other seed, and not digits_kd.
    readers = [(job.step, job.arguments.get("stage"), job.arguments.get("seed")) for job in found.readers]
    assert readers[:2] == [("run_stage", "university", 0), ("evaluate", None, 0)]
    assert [step for step, *_ in readers[2:]] == ["result", "report"]


def test_a_record_and_an_experiment_are_names_too(folder):
    params = params_with()
    assert job_of(params, record_path(STUDENT)) == job_of(params, STUDENT)
    assert job_of(params, folder / STUDENT) == job_of(params, STUDENT)
    assert job_of(params, Path("digits_ed")).outputs[0] == paths.result_path("digits_ed")


def test_a_stale_one_says_why_and_what_reads_it_waits(folder):
    change = ("experiments.digits_ed.stages.primary.learning_rate", 0.01)
    first = paths.student_path("digits_ed", 0, 1, "primary")
    found = explanation(first, [change])
    assert found.outcome.verdict is Verdict.STALE
    assert any("learning_rate" in line for line in lines_of(found))
    after = explanation(STUDENT, [change])
    assert after.outcome.verdict is Verdict.WAITS
    assert any(f"{first} (not what would be made now)" in line for line in lines_of(after))


def test_many_readers_are_counted(folder):
    lines = list(lines_of(explanation(paths.dataset_path("digits"))))
    of_digits = [name for name in params_with().experiments if name.startswith("digits_")]
    students = [job for job in jobs_of(params_with(), of_digits) if job.step == "run_stage"]
    assert any(line.strip() == f"{len(students)} × run_stage" for line in lines)


def test_an_absent_one_and_a_last_one(folder):
    params_result = explanation("digits_ce")
    assert params_result.outcome.verdict is Verdict.ABSENT
    page = explanation(paths.report_path("digits_ed"))
    assert list(lines_of(page))[-1] == "  read by     nothing: it is a last result"


def test_what_no_experiment_needs_is_explained_too(folder):
    found = explanation("artifacts/trajectories/digits/digits_teacher/seed0.h5")
    assert found.outcome.verdict is Verdict.ABSENT
    lines = list(lines_of(found))
    assert lines[2] == "  state       not there"
    assert not [line for line in lines if line.strip() == "absent"]
    assert found.readers == ()


def test_a_study_has_its_name(folder):
    params = parse_params(shipped_and_examples())
    assert job_of(params, Path("study_fashion_mnist")).outputs[0] == paths.study_path("fashion_mnist")


def test_json_has_all_of_it(folder, capsys, monkeypatch):
    monkeypatch.setattr("edpipe.cli.commands.explain.load_params", params_with)
    explain(STUDENT, is_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["verdict"], told["artifact"]) == ("edpipe-explanation", "cached", str(STUDENT))
    assert told["recorded"]["knobs"]["plan"]["name"] == "middle"
    assert "edpipe evaluate --experiment digits_ed --seed 0" in told["readers"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("digits_de", "explain: digits_de is neither an experiment nor a file that edpipe makes .*; did you mean"),
        ("notes.txt", "explain: notes.txt is neither an experiment"),
        ("artifacts/datasets/gone.h5", r"explain: artifacts/datasets/gone\.h5: params\.yaml has no dataset 'gone'"),
        ("artifacts/students/digits_ed/seed9/1_primary.json", "nothing of today's params.yaml makes this file"),
    ],
)
def test_other_words_are_one_line(folder, word, said):
    with pytest.raises(UsageError, match=said) as caught:
        job_of(params_with(), Path(word))
    assert "\n" not in str(caught.value)
