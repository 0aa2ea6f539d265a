"""What a job asks for: its rule's resources, unless the settings say otherwise; a name for each set of outputs."""

import json

import pytest

from edpipe.errors import EdpipeError
from edpipe.pipeline.cluster.request import read_request, request_of
from edpipe.pipeline.cluster.settings import ClusterSettings

PROPERTIES = {
    "type": "single",
    "rule": "run_stage",
    "output": ["a/1.safetensors", "a/1.json"],
    "wildcards": {"experiment": "digits_ed", "seed": "0", "stage": "primary"},
    "params": {"knobs": "{}", "code": "1"},
    "log": ["logs/run_stage/x.log"],
    "threads": 8,
    "resources": {"gpu": 2, "mem_mb": 8000, "runtime": 1440, "tmpdir": "/tmp"},
}
GROUP = {
    "type": "group",
    "groupid": "measure",
    "output": ["b.json", "a.json"],
    "threads": 2,
    "resources": {"mem_mb": 4000, "runtime": 120, "_cores": 2},
}


def asked(properties=PROPERTIES, **settings):
    return request_of(properties, ClusterSettings.model_validate({"scheduler": "slurm", **settings}))


def test_a_job_asks_for_what_its_rule_says():
    found = asked()
    assert (found.step, found.cpus, found.gpus, found.mem_mb, found.minutes) == ("run_stage", 8, 2, 8000, 1440)
    assert found.logs == ("logs/run_stage/x.log",)
    assert found.name.startswith("run_stage-digits_ed-0-primary-")


def test_settings_of_a_step_come_before_its_rule():
    found = asked(steps={"run_stage": {"minutes": 5, "mem_mb": 6, "gpus": 0, "cpus": 3}})
    assert (found.cpus, found.gpus, found.mem_mb, found.minutes) == (3, 0, 6, 5)
    assert asked(steps={"evaluate": {"minutes": 5}}) == asked()


def test_no_job_asks_for_more_cpus_than_a_node_has():
    assert asked(max_cpus=4).cpus == 4
    assert asked(max_cpus=16).cpus == 8


def test_a_group_is_one_job_of_its_name():
    found = asked(GROUP)
    assert (found.step, found.cpus, found.gpus, found.logs) == ("measure", 2, 0, ())
    assert found.name.startswith("measure-")


def test_the_name_is_that_of_the_outputs_and_the_identity_that_of_knobs_and_code_too():
    other = PROPERTIES | {"params": {"knobs": "{}", "code": "2"}}
    assert asked(other).name == asked().name
    assert asked(other).identity != asked().identity
    assert asked(PROPERTIES | {"output": ["b"]}).name != asked().name
    assert asked(GROUP | {"output": ["a.json", "b.json"]}).name == asked(GROUP).name


def test_a_name_is_a_file_name_that_is_not_too_long():
    long = asked(PROPERTIES | {"wildcards": {"experiment": "../x y" * 50}})
    assert len(long.name) < 120
    assert not set(long.name) & set("/. ")


def test_the_request_is_read_from_the_script_of_snakemake(tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\n# properties = {json.dumps(PROPERTIES)}\ncd /x && true\n")
    assert read_request(script, ClusterSettings(scheduler="slurm")) == asked()
    script.write_text("#!/bin/sh\n")
    with pytest.raises(EdpipeError, match=r"job\.sh: is no job script of Snakemake; `edpipe-cluster submit`"):
        read_request(script, ClusterSettings(scheduler="slurm"))
