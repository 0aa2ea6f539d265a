"""GPUs and cores: shared here, each job's own on a cluster; nothing of the default profile reaches one."""

import sys
from types import SimpleNamespace

import pytest
import yaml
from project import ROOT

from edpipe.pipeline.snakemake import hooks


def workflow(local=True, dryrun=False, nodes=None, resources=()):
    scheduler = SimpleNamespace(global_resources={}, resources={})
    settings = SimpleNamespace(cores=2, nodes=nodes)
    known = dict.fromkeys(resources, 1)
    return SimpleNamespace(
        local_exec=local, dryrun=dryrun, resource_settings=settings, scheduler=scheduler, global_resources=known
    )


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """A machine with three GPUs."""
    for number in range(3):
        (tmp_path / f"gpu{number}").mkdir()
    monkeypatch.setattr(hooks, "GPU_FOLDER", tmp_path)
    for name in ("CUDA_VISIBLE_DEVICES", "EDPIPE_DEVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("visible", "count"), [(None, 3), ("", 0), ("1", 1), ("0,2", 2), ("0,1,2,3,4", 3)])
def test_gpus_that_may_be_used_are_counted(gpus, monkeypatch, visible, count):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hooks.num_gpus() == count


def test_all_gpus_of_a_machine_are_shared(gpus):
    here = workflow()
    hooks.share_resources(here)
    assert here.scheduler.resources == here.scheduler.global_resources == {"gpu": 3}
    assert hooks.gpus_per_job(here) == 1


def test_the_command_line_comes_first(gpus):
    here = workflow(resources=("gpu",))
    hooks.share_resources(here)
    assert here.scheduler.resources == {}


def test_a_cluster_shares_nothing_of_the_submit_host(gpus, monkeypatch):
    monkeypatch.setattr(hooks.atexit, "register", lambda call: None)
    monkeypatch.setenv(hooks.RUN, "")
    there = workflow(local=False)
    hooks.share_resources(there)
    assert (there.scheduler.resources, there.resource_settings.cores) == ({}, sys.maxsize)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_jobs_of_a_cluster_ask_for_a_gpu_though_the_submit_host_has_none(tmp_path, monkeypatch, device):
    monkeypatch.setattr(hooks, "GPU_FOLDER", tmp_path / "none")
    monkeypatch.delenv("EDPIPE_DEVICE", raising=False)
    if device:
        monkeypatch.setenv("EDPIPE_DEVICE", device)
    wanted = 0 if device else 1
    assert hooks.gpus_per_job(workflow(local=False)) == wanted
    assert hooks.gpus_per_job(workflow(dryrun=True, nodes=20)) == wanted
    assert hooks.gpus_per_job(workflow()) == 0


def test_the_default_profile_limits_no_resource():
    profile = yaml.safe_load((ROOT / "workflow/profiles/default/config.yaml").read_text(encoding="utf-8"))
    assert not {"resources", "default-resources", "set-resources", "jobs", "retries"} & set(profile)
