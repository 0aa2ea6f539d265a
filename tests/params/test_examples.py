"""params.yaml is short, and each file of examples/ is a sound params.yaml of its own and together with it."""

import json

import jsonschema
import pytest
from shipped import EXAMPLE_PATHS, PARAMS_PATH, ROOT, shipped_and_examples

from edpipe.params.load import parse_params
from edpipe.params.schema import json_schema
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.jobs import students
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.jobs.model_checks import check_params

DATASETS = ("digits", "fashion_mnist", "food101")


def test_the_shipped_params_are_short_and_have_three_methods_on_three_data_sets():
    assert len(PARAMS_PATH.read_text(encoding="utf-8").splitlines()) <= 300
    raw = load_raw(PARAMS_PATH)
    assert list(raw["experiments"]) == [f"{dataset}_{method}" for dataset in DATASETS for method in ("ce", "kd", "ed")]
    assert set(raw["datasets"]) == set(raw["soft_labels"]) == set(DATASETS)
    assert raw["tracked"] == ["digits_ce", "digits_kd", "digits_ed"]


def test_every_entry_of_a_file_is_used_in_it():
    for path in (PARAMS_PATH, *EXAMPLE_PATHS):
        raw = load_raw(path)
        text = json.dumps(raw["experiments"]) + json.dumps(raw["teachers"])
        for section in ("datasets", "partitions", "recipes", "teachers", "students", "soft_labels"):
            assert [name for name in raw[section] if f'"{name}"' not in text] == [], (path, section)
        for name in raw["teachers"]:
            assert f'"{name}"' in json.dumps(raw["experiments"]), (path, name)


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLE_PATHS, ids=lambda path: path.stem)
def test_an_example_is_checked_and_planned_alone_and_with_the_shipped_params(path):
    raw = load_raw(path)
    jsonschema.Draft202012Validator(json.loads(json_schema())).validate(raw)
    assert raw["tracked"] == []
    alone, shipped = parse_params(raw), load_raw(PARAMS_PATH)
    check_params(alone)
    together = parse_params(shipped | {s: shipped.get(s, {}) | raw[s] for s in raw if s != "tracked"})
    jobs = jobs_of(alone, alone.experiments)
    assert jobs == jobs_of(together, alone.experiments)
    assert [students.study(alone, study) for study in alone.studies] == [
        students.study(together, study) for study in alone.studies
    ]
    assert {job.step for job in jobs} >= {"pack_dataset", "run_stage", "evaluate", "result"}


def test_nothing_is_lost():
    raw = shipped_and_examples()
    sizes = {section: len(raw[section]) for section in raw}
    assert sizes == {
        "tracked": 3,
        "curves": 2,
        "datasets": 9,
        "partitions": 1,
        "recipes": 7,
        "teachers": 30,
        "students": 5,
        "soft_labels": 9,
        "experiments": 64,
        "studies": 2,
    }


def test_the_schema_of_an_example_is_found_by_editors():
    for path in EXAMPLE_PATHS:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        schema = first.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / schema).resolve() == ROOT / "workflow" / "params.schema.json"
