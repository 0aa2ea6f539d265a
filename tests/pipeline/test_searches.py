"""The jobs of searches: ordinary ones of students, and one that measures them; in plans, checks and the cache."""

import copy
import json
from pathlib import Path

import pytest
from project import as_yaml, tiny_params

from edpipe.cli.main import main
from edpipe.errors import ParamsError
from edpipe.params.load import load_params, parse_params
from edpipe.pipeline.cache.places import Kind, place_of, why_gone
from edpipe.pipeline.jobs import graph, paths, resources, searches, students
from edpipe.pipeline.jobs.model_checks import check_params
from edpipe.pipeline.jobs.step_table import STEP
from edpipe.pipeline.state.judgement import all_jobs

RATE, BATCH = "stages.only.learning_rate", "recipe.batch_size"


def raw_with(**changes):
    search = {"experiment": "kd", "over": {RATE: [0.05, 0.1], BATCH: [16]}, "seeds": [7, 8]} | changes
    return copy.deepcopy(tiny_params()) | {"searches": {"lr": search}}


def params_with(**changes):
    return parse_params(raw_with(**changes))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(as_yaml(raw_with()), encoding="utf-8")
    return tmp_path


def test_the_students_of_trials_are_made_by_ordinary_jobs():
    params = params_with()
    found = graph.jobs_of_searches(params, ["lr"])
    trained = [job for job in found if job.step == "run_stage"]
    assert [(job.arguments["experiment"], job.arguments["seed"]) for job in trained] == [
        (trial.name, seed) for trial in params.trials["lr"] for seed in (7, 8)
    ]
    own = students.run_stage(params, "kd", 0, "only")
    knobs = json.loads(trained[-1].knobs_text)
    assert knobs["recipe"]["batch_size"] == 16
    assert knobs["plan"]["budget"]["learning_rate"] == 0.1
    wanted = json.loads(own.knobs_text)
    wanted["recipe"]["batch_size"] = 16
    assert knobs == wanted
    assert trained[-1].inputs == own.inputs  # teacher and soft labels are those of all
    assert trained[-1].units == own.units


def test_the_experiment_itself_is_neither_trained_nor_evaluated():
    found = graph.jobs_of_searches(params_with(), ["lr"])
    assert {job.step for job in found} == {
        *("pack_dataset", "partition_dataset", "train_teacher", "dump_soft_labels", "verify_soft_labels"),
        *("run_stage", "search"),
    }
    assert not [path for job in found for path in job.all_inputs if path not in {p for j in found for p in j.outputs}]


def test_the_job_of_a_search_reads_every_stage_of_every_student():
    params = params_with(experiment="ed", over={"stages.primary.learning_rate": [0.05]})
    job = searches.search(params, "lr")
    (name,) = (trial.name for trial in params.trials["lr"])
    stages = [f"artifacts/students/{name}/seed{s}/{stage}" for s in (7, 8) for stage in ("1_primary", "2_middle")]
    assert list(map(str, job.inputs["students"])) == [f"{p}.{end}" for p in stages for end in ("safetensors", "json")]
    assert [str(path) for path in job.outputs] == ["results/search_lr.json", "results/search_lr.md"]
    assert job.command == "edpipe search --search lr"
    assert (tuple(job.arguments), type(job.knobs)) == (STEP["search"].options, STEP["search"].knobs)
    assert set(job.inputs) <= set(STEP["search"].inputs)
    assert resources.threads_of(params, job) == 1


def test_trials_may_have_partitions_of_their_own():
    raw = raw_with(over={"partition": ["halves", "thirds"]})
    raw["partitions"]["thirds"] = {"subsets": ["a", "b", "c"]}
    job = searches.search(parse_params(raw), "lr")
    assert [path.stem for path in job.inputs["partitions"]] == ["halves", "thirds"]
    assert [trial.partition for trial in job.knobs.trials] == [0, 1]


def test_searches_are_known_by_the_names_of_their_results():
    params = params_with()
    assert graph.searches_named(params, ["kd", "search_lr", "search_lr"]) == ["lr"]
    both = graph.jobs_named(params, ["kd", "search_lr"])
    assert len({job.outputs[0] for job in both}) == len(both)
    assert {job.outputs[0] for job in both} == {
        job.outputs[0] for job in [*graph.jobs_of(params, ["kd"]), *graph.jobs_of_searches(params, ["lr"])]
    }
    assert searches.search(params, "lr") in all_jobs(params)
    with pytest.raises(ParamsError, match="no entry named 'search_rl'"):
        graph.jobs_named(params, ["search_rl"])


def test_what_is_wrong_with_the_stages_or_the_network_of_a_trial_is_said_of_the_search():
    raw = raw_with(over={"student": ["resnet8", "odd"]})
    raw["students"]["odd"] = {"model": "resnet9"}
    params = parse_params(raw)
    with pytest.raises(ParamsError) as error:
        check_params(params, with_networks=False)
    assert str(error.value).startswith("students.odd.model: ")
    raw = raw_with(experiment="ed", over={"partition": ["quarters"], "method.teacher": ["general"]})
    raw["partitions"]["quarters"] = {"subsets": ["primary", "middle", "third", "fourth"]}
    stages = {level: {"images": 64} for level in raw["partitions"]["quarters"]["subsets"]}
    raw["searches"]["lr"]["over"]["stages"] = [stages]
    with pytest.raises(ParamsError) as error:
        check_params(parse_params(raw))
    (line,) = str(error.value).splitlines()
    assert line.startswith("searches.lr.over: with partition quarters, method.teacher general, stages {")
    assert "student: model 'resnet8': has 3 feature stages" in line


@pytest.mark.parametrize("command", ["plan", "verify"])
def test_plan_and_verify_speak_of_a_search(folder, capsys, command):
    assert main([command, "search_lr", *(["--no-estimate"] if command == "plan" else [])]) == 0
    said = capsys.readouterr().out
    assert ("would run  search lr: absent" if command == "plan" else "absent   results/search_lr.json") in said
    assert main([command, "search_rl"]) == 2
    assert "search_rl" in capsys.readouterr().err


def test_check_counts_trials_and_no_experiment_more(folder, capsys):
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "params.yaml: 3 experiments, 1 search with 2 trials, nothing wrong found\n"


def test_the_cache_knows_whose_a_trial_is(folder):
    params = load_params()
    for job in graph.jobs_of_searches(params, ["lr"]):
        for path in job.outputs:
            assert path in place_of(path).job(params).outputs
    assert place_of(paths.search_path("lr")).kind is Kind.SEARCH
    gone = place_of(Path("artifacts/students/kd-0123456789/seed7/1_only.safetensors"))
    assert why_gone(gone, params) == "params.yaml has no trial 'kd-0123456789'"
    assert why_gone(place_of(Path("results/search_old.md")), params) == "params.yaml has no search 'old'"
    assert place_of(Path("results/kd-0123456789.json")).kind is Kind.UNKNOWN
