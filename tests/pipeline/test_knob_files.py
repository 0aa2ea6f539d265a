"""The files of knobs that DVC compares: they change with what a job hangs on and with nothing else, and stay small."""

import copy
import json
from pathlib import Path

import pytest
from made_project import params_with_ctkd
from project import tiny_params

from edpipe.params.load import parse_params
from edpipe.pipeline.dvc.knob_files import are_as_wanted, is_entry_as_wanted, place_of, texts_of, write_knob_files
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.state.running import knobs_digest


def jobs(raw, *experiments):
    return jobs_of(parse_params(raw), experiments or raw["experiments"])


def entries(raw):
    """By file and name, what is said of each job."""
    texts = texts_of(jobs(raw))
    return {(str(path), name): entry for path, text in texts.items() for name, entry in json.loads(text).items()}


def edited(path, value):
    raw = copy.deepcopy(params_with_ctkd())
    *groups, last = path.split(".")
    place = raw
    for group in groups:
        place = place[group]
    place[last] = value
    return raw


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_job_has_an_entry_and_only_seeds_share_one():
    raw = params_with_ctkd()
    raw["experiments"]["ed"]["seeds"] = [0, 1]
    found = jobs(raw)
    by_place = {}
    for job in found:
        by_place.setdefault(place_of(job), []).append(job)
    assert set(entries(raw)) == {(str(path), name) for path, name in by_place}
    for sharing in by_place.values():
        assert len({knobs_digest(job) for job in sharing}) == 1
        assert len({(job.step, *(v for k, v in job.arguments.items() if k != "seed")) for job in sharing}) == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("experiments.ed.stages.middle.images", 64),
        ("experiments.kd.method.temperature", 2),
        ("recipes.tiny.batch_size", 16),
        ("soft_labels.digits.views.number", 3),
        ("teachers.general.fitting.learning_rate", 0.2),
        ("datasets.digits.max_per_class", 13),
    ],
)
def test_an_edit_changes_the_entries_of_the_jobs_whose_knobs_it_changes(path, value):
    raw, other = params_with_ctkd(), edited(path, value)
    before, after = entries(raw), entries(other)
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    knobs = {place_of(job): job.knobs_text for job in jobs(raw)}
    knobs_now = {place_of(job): job.knobs_text for job in jobs(other)}
    assert changed == {(str(p), n) for p, n in knobs | knobs_now if knobs.get((p, n)) != knobs_now.get((p, n))}
    assert changed


def test_pages_beside_a_page_and_their_order_are_in_its_entry():
    first, second = (edited("experiments.ed.beside", names) for names in (["kd", "ctkd"], ["ctkd", "kd"]))
    place = ("workflow/knobs/experiments/ed.json", "report")
    assert entries(first)[place]["beside"] == ["kd", "ctkd"]
    assert entries(second)[place]["beside"] == ["ctkd", "kd"]
    assert entries(params_with_ctkd())[place]["beside"] == []


def test_other_code_is_another_entry(monkeypatch):
    before = entries(tiny_params())
    monkeypatch.setattr("edpipe.pipeline.dvc.knob_files.tokens", lambda units: dict.fromkeys(units, "99"))
    after = entries(tiny_params())
    assert after.keys() == before.keys()
    assert all(after[key]["code"] != before[key]["code"] for key in before)


def test_files_are_written_once_and_those_of_entries_that_are_gone_are_removed(folder):
    raw = tiny_params()
    assert write_knob_files(jobs(raw))
    assert not write_knob_files(jobs(raw))
    assert are_as_wanted(jobs(raw))
    assert not are_as_wanted(jobs(raw, "kd"))
    assert write_knob_files(jobs(raw, "kd"))
    assert sorted(str(path) for path in Path("workflow/knobs").rglob("*.json")) == [
        "workflow/knobs/datasets/digits.json",
        "workflow/knobs/experiments/kd.json",
        "workflow/knobs/teachers/digits/general.json",
    ]


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"run_stage-only": {}}'])
def test_a_file_that_says_something_else_is_not_as_wanted(folder, text):
    raw = tiny_params()
    write_knob_files(jobs(raw))
    (job,) = (job for job in jobs(raw, "kd") if job.step == "run_stage")
    assert is_entry_as_wanted(job)
    path, _ = place_of(job)
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert not is_entry_as_wanted(job)
    assert not are_as_wanted(jobs(raw))


def test_no_file_grows_with_the_number_of_experiments():
    """So what DVC reads for one stage does not, and for all stages it grows as they do."""
    few, many = params_with_ctkd(), params_with_ctkd()
    many["experiments"] |= {f"kd_{number}": copy.deepcopy(many["experiments"]["kd"]) for number in range(20)}
    texts, more = texts_of(jobs(few)), texts_of(jobs(many))
    assert len(more) == len(texts) + 20
    assert all(more[path] == text for path, text in texts.items())
