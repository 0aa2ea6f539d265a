"""Folders in which jobs of tiny params were run in this process, and records that look like those of other code."""

import atexit
import json
import shutil
import tempfile
from contextlib import chdir
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from project import as_yaml, tiny_params

from edpipe.params.load import load_params
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.storage.digests import digest_json
from edpipe.storage.records import made_by, record_path

OLD_DIGEST = "0123456789abcdef"
EXPERIMENTS = ("ed", "kd", "ctkd")
LATE_STEPS = ("evaluate_teacher", "evaluate", "result", "report")


def params_with_ctkd():
    """Education Distillation in two stages, kd, and ctkd, which has a trajectory."""
    raw = tiny_params()
    method = {"name": "ctkd", "scratch": "general", "attention_weight": 0}
    raw["experiments"]["ctkd"] = {**raw["experiments"]["kd"], "method": method, "stages": {"only": {"epochs": 2}}}
    return raw


def run_job(job):
    """As `edpipe STEP` does, but for the ledger of costs."""
    with made_by(job.units):
        import_module(f"edpipe.steps.{job.step}").run(job)


@cache
def _template():
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "params.yaml").write_text(as_yaml(params_with_ctkd()), encoding="utf-8")
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        for job in jobs_of(load_params(), EXPERIMENTS):
            if job.step not in LATE_STEPS:
                run_job(job)
    return folder


def make_folder(folder):
    """A copy of a folder in which everything up to the students is made, once for all tests."""
    shutil.copytree(_template(), folder, dirs_exist_ok=True)


def write_params(raw):
    Path("params.yaml").write_text(as_yaml(raw), encoding="utf-8")


def jobs(*experiments):
    return jobs_of(load_params(), experiments or EXPERIMENTS)


def find_in(step, experiment):
    """The first job of a step among those of an experiment."""
    return next(job for job in jobs(experiment) if job.step == step)


def find(step, **arguments):
    """The first job of a step with these arguments."""
    for job in jobs():
        if job.step == step and arguments.items() <= job.arguments.items():
            return job
    raise AssertionError(step)


def edit_record(job, edit):
    """Changes the record of a job's artifact as an edpipe would write it: files that have a seal get a new one."""
    path = record_path(job.outputs[0])
    record = json.loads(path.read_text(encoding="utf-8"))
    seal = record.pop("file_digest", None)
    edit(record)
    if seal is not None:
        record["file_digest"] = digest_json(record)
    path.write_text(json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(job):
    return json.loads(record_path(job.outputs[0]).read_text(encoding="utf-8"))


def age(*some, code=OLD_DIGEST):
    """As if other code had made these jobs' artifacts; without jobs, all."""
    for job in some or [job for job in jobs() if job.step not in LATE_STEPS]:
        edit_record(job, lambda record: record.update(code=code))
