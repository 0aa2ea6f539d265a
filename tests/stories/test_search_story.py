"""A search as a user runs it: trained on what lies there, widened later, and found out where it was altered."""

import re

import pytest
from project import copy_of, tiny_params

from edpipe.storage.records import read_record, write_record

pytestmark = pytest.mark.slow
RATE = "stages.middle.learning_rate"
RESULT = "results/search_rate.json"


def params_with(*rates):
    search = {"experiment": "ed", "over": {RATE: list(rates)}, "seeds": [7]}
    return tiny_params() | {"searches": {"rate": search}}


def steps_of(ran):
    assert ran.rc == 0, ran.text
    return sorted(re.findall(r"^(?:local)?(?:rule|\S+ start  ) (\w+):", ran.text, re.MULTILINE))


def test_a_search_trains_its_trials_and_nothing_else(finished_project, tmp_path):
    project = copy_of(finished_project, tmp_path / "project")
    project.write_params(params_with(0.05))
    assert steps_of(project.snakemake("--", RESULT)) == ["run_stage", "run_stage", "search"]
    narrow = project.read_json(RESULT)["trials"][0]
    project.write_params(params_with(0.2, 0.05))
    assert steps_of(project.snakemake("--", RESULT)) == ["run_stage", "run_stage", "search"], "the new trial alone"
    found = project.read_json(RESULT)
    assert narrow in found["trials"]
    assert len(found["trials"]) == found["num_trials"] == 2
    assert found["cost"]["with_figures"] == found["cost"]["artifacts"] == 4
    assert found["cost"]["cpu_seconds"] > 0
    assert steps_of(project.snakemake("-n", "--", RESULT)) == []
    assert not [path for path in project.files("artifacts/evaluations", "results") if "ed-" in path]
    assert project.edpipe_here("verify", "search_rate").rc == 0
    path = project.root / RESULT
    write_record(path, read_record(path) | {"num_trials": 8})
    ran = project.edpipe_here("verify", "search_rate")
    assert ran.rc == 2
    assert f"{RESULT}: num_trials is 8, computed again from its students it is 2;" in ran.out
    (project.root / RESULT).write_text("{}", encoding="utf-8")
    assert steps_of(project.snakemake("--", RESULT)) == ["search"]
    again = project.read_json(RESULT)
    assert again["digest"] == found["digest"]
