"""Folders in which everything seems made: artifacts that hold their own path, and records as the steps write them."""

import atexit
import json
import shutil
import tempfile
from contextlib import chdir
from functools import cache
from pathlib import Path

from project import ROOT

from edpipe.params.load import parse_params
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.jobs import graph
from edpipe.results.page.page_code import generator, named_results
from edpipe.storage.code.units import step_unit
from edpipe.storage.code.versions import token
from edpipe.storage.digests import digest_bytes
from edpipe.storage.records import made_by, make_record, read_record, record_path, seal_of, write_record


def change(params, path, value):
    """Sets the value at a dotted path."""
    *sections, name = path.split(".")
    for section in sections:
        params = params[section]
    params[name] = value


def raw_params(changes=()):
    """The shipped params, with soft labels in several files, and no page that waits for another experiment."""
    raw = load_raw(ROOT / "params.yaml")
    for experiment in raw["experiments"].values():
        experiment.pop("beside", None)
    for path, value in [("soft_labels.digits.views.per_file", 4), *changes]:
        change(raw, path, value)
    return raw


def params_with(changes=()):
    return parse_params(raw_params(changes))


def write_params(folder, changes=()):
    """JSON is YAML."""
    (folder / "params.yaml").write_text(json.dumps(raw_params(changes)), encoding="utf-8")


def digest_of(path):
    """What the content of a pretended file has."""
    return digest_bytes(str(path).encode())


def inputs_of(job):
    """Digests as each step records them."""
    weights = {role: [digest_of(p) for p in paths if p.suffix != ".json"] for role, paths in job.inputs.items()}
    inputs = {
        role: digest_of(paths[0]) if paths else ""
        for role, paths in job.inputs.items()
        if role in ("dataset", "partition")
    }
    if job.step == "dump_soft_labels":
        inputs["teacher"] = {"digest": weights["teacher"][0], "top1": 1.0}
    if job.step == "verify_soft_labels":
        inputs |= {"teacher": weights["teacher"][0], "soft_labels": weights["soft_labels"]}
    if job.step == "evaluate_teacher":
        inputs["teacher"] = weights["teacher"][0]
    if job.step == "run_stage":
        teachers = [digest_of(path.with_suffix(".safetensors")) for path in job.inputs["teachers"]]
        inputs["previous"] = "".join(weights["previous"])
        folders = [index.with_suffix("") for index in job.inputs["indexes"]]
        files = [[digest_of(p) for p in job.inputs["soft_labels"] if p.parent == folder] for folder in folders]
        uses = zip(files, teachers, strict=True)
        inputs["soft_labels"] = [{"digests": digests, "teacher_digest": teacher} for digests, teacher in uses]
        inputs["trajectory"] = [{"digests": weights["trajectory"]}] if weights["trajectory"] else []
    if "student" in job.inputs:
        inputs["student"] = weights["student"][0]
    if job.step == "evaluate":
        inputs["students"] = weights["students"]
        inputs["teacher_evaluations"] = [digest_of(path) for path in job.inputs["teacher_evaluations"]]
    if job.step == "result":
        inputs["evaluations"] = [seal_of(read_record(path)) for path in job.inputs["evaluations"]]
    return inputs


def evaluated(seed):
    """The part of an evaluation that a result keeps."""
    with made_by(("steps.evaluate", "networks.resnet")):
        record = make_record("evaluate", {}, {}, seed=seed, metrics={"top1": 0.5}, stages=[])
    return {name: record[name] for name in ("seed", "metrics", "stages", "code", "versions")}


def facts_of(job):
    digest = digest_of(job.outputs[0])
    if job.step in ("train_teacher", "fetch_teacher", "run_stage"):
        return {"weights_digest": digest}
    if job.step == "evaluate":
        return evaluated(job.arguments["seed"])
    if job.step == "result":
        return {"seeds": [evaluated(seed) for seed in job.knobs.seeds], "method": job.knobs.method}
    return {} if job.step == "verify_soft_labels" else {"digest": digest}


def pretend(job):
    """Writes the outputs of a job as if it had run; the artifact's content is its own path."""
    for path in job.outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path), encoding="utf-8")
    if job.step == "report":
        results = (*job.inputs["result"], *job.inputs["beside"])
        drawn_from = named_results([seal_of(read_record(path)) for path in results])
        named = {"generator": generator(token(step_unit(job.step))), "edpipe-result": drawn_from}
        lines = [f'<meta name="{name}" content="{content}">' for name, content in named.items()]
        job.outputs[0].write_text("\n".join(lines))
        return
    knobs = {} if job.step == "result" else json.loads(job.knobs_text)
    with made_by(job.units):
        record = make_record(job.step, knobs, inputs_of(job)) | facts_of(job)
    write_record(record_path(job.outputs[0]), record)


def edit_record(artifact_path, edit):
    path = record_path(artifact_path)
    record = read_record(path)
    edit(record)
    write_record(path, record)


@cache
def _template(experiments):
    """Made once: writing so many files to disk takes a second."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_params(folder)
    with chdir(folder):
        for job in graph.jobs_of(params_with(), experiments):
            pretend(job)
    return folder


def pretend_all(folder, experiments):
    """Everything of these experiments."""
    shutil.copytree(_template(tuple(experiments)), folder, dirs_exist_ok=True)
