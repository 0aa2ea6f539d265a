"""The table of steps: each has its module, its rule, its block in dvc.yaml, and jobs of the shape it states."""

import re
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest
import yaml

from edpipe.params.load import load_params
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.jobs.step_table import STEP, STEPS, Artifact
from edpipe.storage.records import record_path

ROOT = Path(__file__).resolve().parents[2]
PARAMS = load_params(ROOT / "params.yaml")
JOBS = jobs_of(PARAMS, [f"digits_{method}" for method in ("ed", "kd", "ce")])
RECORDED = {Artifact.DATASET, Artifact.WEIGHTS, Artifact.SOFT_LABELS}
"""Artifacts with a record beside them; the others that have one are their own."""


def rules():
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "edpipe/pipeline/snakemake/rules").glob("*.smk")
    )
    return set(re.findall(r"^rule (\w+):", text, re.MULTILINE))


def test_a_step_is_a_rule_a_module_and_a_block_of_dvc():
    blocks = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].keys() - {"check_params"}
    modules = {path.stem for path in (ROOT / "edpipe/steps").glob("*.py")} - {"__init__"}
    assert [step.name for step in STEPS] == list(STEP)
    assert rules() - {"all"} == modules == set(STEP)
    assert blocks == {step.name for step in STEPS if step.is_tracked}


ALSO_GIVEN = {Artifact.RESULT: ["costs"], Artifact.SEARCH: ["costs"], Artifact.PAGE: ["curves"]}
"""What a step is told that is no artifact and in no identity."""


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_module_runs_a_job(step):
    given = list(signature(import_module(f"edpipe.steps.{step.name}").run).parameters)
    assert given == ["job", *ALSO_GIVEN.get(step.artifact, [])]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.command)
def test_a_job_is_of_the_shape_that_its_step_states(job):
    step = STEP[job.step]
    assert tuple(job.arguments) == step.options
    assert type(job.knobs) is step.knobs
    assert set(job.inputs) <= set(step.inputs)
    assert (record_path(job.outputs[0]) in job.outputs[1:]) == (step.artifact in RECORDED)


def test_every_kind_of_artifact_is_made():
    assert {step.artifact for step in STEPS} == set(Artifact)
