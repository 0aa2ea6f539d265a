"""`dvc exp run`, `dvc metrics` and `dvc plots` as docs/experiments_with_dvc.md shows them; steps are played.

A queue of several values is in test_dvc_sharing.py.
"""

import json

import pytest
from dvc_stories import FROM_MIDDLE

pytest.importorskip("dvc")
pytest.importorskip("snakemake")
pytestmark = pytest.mark.slow
KEY = "experiments.ed.stages.middle.learning_rate"


def test_an_experiment_runs_and_is_compared(repository):
    assert repository.steps_of("dvc", "exp", "run", "--name", "slower", "--set-param", f"{KEY}=0.05") == FROM_MIDDLE
    assert "middle: {images: 64, learning_rate: 0.05}" in (repository.root / "params.yaml").read_text()
    staged = repository.call("git", "diff", "--staged", "--name-only").split()
    assert staged == [], "what is committed is for the user to say"
    assert repository.snakemake() == [], "what DVC made is current for snakemake"

    found = json.loads(repository.call("dvc", "metrics", "diff", "--json"))
    assert list(found) == ["results/metrics/ed.json"]
    assert list(found["results/metrics/ed.json"]) == ["top1"]
    shown = json.loads(repository.call("dvc", "metrics", "show", "--json"))[""]["data"]
    assert {path: list(metrics["data"]) for path, metrics in shown.items()} == {
        f"results/metrics/{experiment}.json": ["top1"] for experiment in ("ce", "ed", "kd")
    }
    plots = json.loads(repository.call("dvc", "plots", "show", "--json", "results/ed.csv"))["data"]
    (plot,) = plots["results/ed.csv"]
    axes = plot["content"]["encoding"]
    assert (axes["x"]["field"], axes["y"]["field"], plot["content"]["mark"]["type"]) == ("images_seen", "top1", "point")


def test_an_experiment_beside_the_folder_leaves_it_alone(repository):
    before = (repository.root / "params.yaml").read_bytes()
    steps = repository.steps_of("dvc", "exp", "run", "--temp", "--name", "beside", "--set-param", f"{KEY}=0.05")
    assert steps == FROM_MIDDLE
    assert (repository.root / "params.yaml").read_bytes() == before
    assert "beside" in repository.call("dvc", "exp", "list")
    assert repository.snakemake() == []


def test_archive_without_git_is_run_without_dvc(repository):
    (repository.root / ".git").rename(repository.root / "no_git")
    output = repository.call("snakemake", "--dry-run")
    line = (
        "edpipe: DVC is left out, since this folder is in no git repository; for DVC, call `git init`, or "
        "`dvc config core.no_scm true`"
    )
    assert line in output.splitlines()
    assert "Nothing to be done" in output
    refused = repository.call("edpipe", "dvc-record", is_refused=True)
    assert refused.splitlines() == [line.replace("edpipe: ", "edpipe: dvc-record: ")]


def test_a_report_of_stale_artifacts_is_a_zip_as_well(repository):
    repository.edit("temperature: 4", "temperature: 3")
    repository.call("snakemake", "--cores", "1", "--report", "report.zip")
    assert (repository.root / "report.zip").is_file()
