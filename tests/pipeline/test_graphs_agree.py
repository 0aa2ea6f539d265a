"""The rules of Snakemake and dvc.yaml describe one pipeline: same files, same commands, same knobs, same code."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from package_copies import copy_package
from project import as_yaml

from edpipe.params.base import canonical_json
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.dvc.code_file import code_text
from edpipe.pipeline.dvc.knob_files import entry_of, place_of, texts_of
from edpipe.pipeline.dvc.lists import STEPS, tracked_jobs_text
from edpipe.pipeline.dvc.repo import CHECK_STAGE
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.state.running import knobs_digest
from edpipe.storage.code.versions import tokens

pytest.importorskip("dvc")
pytest.importorskip("snakemake")

ROOT = Path(__file__).resolve().parents[2]

BOTH_GRAPHS = """
import contextlib, io, json, os
from pathlib import Path
os.environ["EDPIPE_DVC"] = "0"
from snakemake.api import SnakemakeApi
from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, ResourceSettings
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api, contextlib.redirect_stdout(io.StringIO()):
    workflow = api.workflow(ResourceSettings(cores=1), snakefile=Path("workflow/Snakefile"))
    workflow.dag(DAGSettings(forceall=True)).printrulegraph()
    jobs = [job for job in workflow._workflow.dag.jobs if job.output]
snakemake = [
    {
        "step": job.rule.name,
        "outputs": [str(path) for path in job.output],
        "inputs": [str(path) for path in job.input],
        "code": job.params.code,
        "command": job.shellcmd,
        "knobs": job.params.knobs,
        "log": [str(path) for path in job.log],
    }
    for job in jobs
]


def compared(stage):
    # Keys of what DVC compares besides files, by the file that they are in.
    found = [d for d in stage.deps if isinstance(d, ParamsDependency)]
    return {os.path.relpath(d.fs_path): list(d.params) for d in found}


dvc = [
    {
        "name": stage.addressing,
        "outputs": [os.path.relpath(out.fs_path) for out in stage.outs],
        "inputs": [os.path.relpath(d.fs_path) for d in stage.deps if not isinstance(d, ParamsDependency)],
        "compared": compared(stage),
        "command": stage.cmd,
    }
    for stage in Repo(".").index.stages
]
print(json.dumps({"snakemake": snakemake, "dvc": dvc}))
"""


def beside(raw):
    """Adds ctkd with and without an expert; their names."""
    scratch = json.loads(json.dumps(raw["teachers"]["digits_teacher"]))
    scratch["network"] = {"model": "resnet8"}
    scratch["fitting"] |= {"epochs": 20, "recipe": raw["experiments"]["digits_kd"]["recipe"]}
    raw["teachers"]["scratch"] = scratch
    raw["soft_labels"]["digits"]["storage"]["attention"] = True
    methods = {"beside": {"scratch": "scratch", "expert": "other_0"}, "alone": {"scratch": "scratch"}}
    methods["alone"]["attention_weight"] = 0
    for name, method in methods.items():
        raw["experiments"][name] = json.loads(json.dumps(raw["experiments"]["digits_kd"]))
        raw["experiments"][name] |= {"method": {"name": "ctkd", **method}, "stages": {"only": {"epochs": 20}}}
    return list(methods)


def handed_on(raw):
    """Adds students that teach, one of them in a chain of two; the name of what they teach."""
    kd, general = raw["experiments"]["digits_kd"], raw["teachers"]["digits_teacher"]
    behind = {"assistant": "untracked_teskd", "second": "teskd", "third": "chained"}
    for name, experiment in behind.items():
        network = {"model": raw["students"][kd["student"]]["model"], "source": "student", "experiment": experiment}
        raw["teachers"][name] = json.loads(json.dumps(general | {"network": network}))
        raw["teachers"][name]["fitting"] |= {"epochs": 0, "seed": kd["seeds"][-1]}
    raw["experiments"]["untracked_teskd"] = kd | {"method": {"name": "teskd"}}
    raw["experiments"]["chained"] = kd | {"method": {"name": "kd", "teacher": "assistant"}}
    raw["experiments"]["handed_on"] = kd | {"method": {"name": "aver", "teachers": ["second", "third"]}}
    return ["handed_on"]


def variant(raw):
    """The shipped params and what they leave out: a fetched teacher, a carried rate, no replay, files of few views.

    And panels, students that teach, students beside which a teacher learns, a school whose first level has all
    specialists, and a partition for which a teacher is asked, with specialists of its own.
    """
    raw["teachers"]["digits_teacher"]["network"] = {"model": "timm:resnet18", "source": "timm"}
    carried = json.loads(json.dumps(raw["experiments"]["digits_ed"]))
    carried["method"] |= {"teacher": "digits_teacher", "rate_schedule": "carried", "replay": False}
    raw["teachers"] |= {f"other_{k}": raw["teachers"]["digits_teacher"] for k in range(3)}
    panel = json.loads(json.dumps(raw["experiments"]["digits_kd"]))
    panel["method"] = {"name": "ca_mkd", "teachers": ["digits_teacher", "other_0", "other_1", "other_2"]}
    growing = json.loads(json.dumps(raw["experiments"]["digits_ed"]))
    growing["method"] = {"name": "ed", "classes": "all"} | {
        "teachers": {
            "primary": ["digits_specialists", "other_0"],
            "middle": ["digits_specialists", "other_0"],
            "university": ["other_1", "other_0", "other_2"],
        }
    }
    teskd = json.loads(json.dumps(raw["experiments"]["digits_ce"]))
    teskd["method"] = {"name": "teskd"}
    raw["experiments"] |= {"carried_ed": carried, "panel": panel, "growing": growing, "teskd": teskd}
    raw["tracked"] += ["carried_ed", "panel", "growing", "teskd", *beside(raw)]
    raw["tracked"] += handed_on(raw)
    raw["soft_labels"]["digits"]["views"]["per_file"] = 8
    raw["partitions"]["confused"] = raw["partitions"]["thirds"] | {"confusion": {"teacher": "digits_teacher"}}
    raw["teachers"]["confused_specialists"] = raw["teachers"]["digits_specialists"] | {"partition": "confused"}
    confused = json.loads(json.dumps(raw["experiments"]["digits_ed"])) | {"partition": "confused"}
    confused["method"]["teacher"] = "confused_specialists"
    raw["experiments"]["confused_ed"] = confused
    raw["tracked"].append("confused_ed")
    return raw


@pytest.fixture(scope="module", params=["shipped", "variant"])
def graphs(request, tmp_path_factory):
    """Both graphs, and the jobs that they stand for."""
    folder = tmp_path_factory.mktemp(request.param)
    copy_package(folder)
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    raw = load_raw(ROOT / "params.yaml")
    raw = raw if request.param == "shipped" else variant(raw)
    (folder / "params.yaml").write_text(as_yaml(raw))
    params = load_params(folder / "params.yaml")
    if request.param == "variant":
        (folder / paths.TRACKED_JOBS).write_text(tracked_jobs_text(params))
    answer = subprocess.run(
        [sys.executable, "-c", BOTH_GRAPHS], cwd=folder, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    jobs = {frozenset(map(str, job.outputs)): job for job in jobs_of(params, params.tracked)}
    return (
        jobs,
        {frozenset(job["outputs"]): job for job in found["snakemake"]},
        {frozenset(stage["outputs"]): stage for stage in found["dvc"] if stage["name"] != CHECK_STAGE},
        [stage for stage in found["dvc"] if stage["name"] == CHECK_STAGE],
    )


@pytest.mark.slow
def test_both_graphs_make_the_same_files(graphs):
    jobs, snakemake, dvc, checks = graphs
    assert snakemake.keys() == jobs.keys()
    assert dvc.keys() == jobs.keys()
    assert [stage["outputs"] for stage in checks] == [["workflow/knobs"]]


def test_both_graphs_run_the_same_commands(graphs):
    jobs, snakemake, dvc, _ = graphs
    for outputs, job in jobs.items():
        # The shell gives way to the step: a signal to a whole group does not end the shell while the step still writes.
        assert re.sub(r"^EDPIPE_KNOBS=\w+ exec | > \S+ 2>&1$", "", snakemake[outputs]["command"]) == job.command
        assert dvc[outputs]["command"] == job.command


def test_both_graphs_watch_the_same_knobs(graphs):
    jobs, snakemake, dvc, _ = graphs
    for outputs, job in jobs.items():
        assert snakemake[outputs]["knobs"] == job.knobs_text
        path, name = place_of(job)
        assert dvc[outputs]["compared"] == {str(path): [name]}
        assert entry_of(job)["knobs"] == knobs_digest(job)


def test_check_params_watches_every_section(graphs):
    (check,) = graphs[3]
    assert check["command"] == ["edpipe code --check", "edpipe tracked_jobs --knobs"]
    # Studies and searches are Snakemake's alone; no job hangs on curves and loggers; code.yaml tells of plugins.
    assert check["compared"].keys() == {"params.yaml"}
    watched = set(check["compared"]["params.yaml"])
    assert watched == set(Params.model_fields) - {"studies", "searches", "curves", "logger", "plugins"}
    assert check["inputs"] == [str(paths.TRACKED_JOBS), str(paths.CODE), "edpipe"]


def test_dvc_depends_on_nothing_that_snakemake_does_not_know(graphs):
    _, snakemake, dvc, _ = graphs
    for outputs, stage in dvc.items():
        known = set(snakemake[outputs]["inputs"])
        folders = {path for path in stage["inputs"] if any(other.startswith(f"{path}/") for other in known)}
        assert set(stage["inputs"]) - folders <= known
        assert folders <= {folder_of_fan_in(stage)}


def folder_of_fan_in(stage):
    """Steps with as many inputs as there happen to be name the folder of these instead; DVC looks at all in it."""
    (output, *_) = stage["outputs"]
    if stage["name"].startswith("result@"):
        return f"{paths.ARTIFACTS}/evaluations/{Path(output).stem}"
    return output.removesuffix(".json") if stage["name"].startswith("verify_soft_labels@") else None


def test_a_folder_stands_for_exactly_the_inputs_below_it(graphs):
    _, snakemake, dvc, _ = graphs
    made = {path for outputs in dvc for path in outputs}
    stages = [stage for stage in dvc.values() if folder_of_fan_in(stage)]
    assert {stage["name"].split("@")[0] for stage in stages} == {"result", "verify_soft_labels"}
    for stage in stages:
        folder = folder_of_fan_in(stage)
        assert folder in stage["inputs"]
        below = {path for path in made if path.startswith(f"{folder}/")}
        assert below == {p for p in snakemake[frozenset(stage["outputs"])]["inputs"] if p.startswith(f"{folder}/")}


def test_every_input_of_snakemake_is_vouched_for_by_dvc(graphs):
    """Each is a dependency of the stage, or was read or made before; files made just before are named one by one."""
    _, snakemake, dvc, _ = graphs
    stage_of = {path: stage for stage in dvc.values() for path in stage["outputs"]}

    def read_by(stage):
        return {p for p in stage_of for path in stage["inputs"] if p.startswith(f"{path}/")} | set(stage["inputs"])

    def before(stage):
        return [stage_of[path] for path in read_by(stage) if path in stage_of]

    known = {}

    def vouched_for(stage):
        if stage["name"] not in known:
            above = ({*upstream["outputs"], *vouched_for(upstream)} for upstream in before(stage))
            known[stage["name"]] = read_by(stage).union(*above)
        return known[stage["name"]]

    for outputs, stage in dvc.items():
        inputs = set(snakemake[outputs]["inputs"])
        made_just_before = {path for upstream in before(stage) for path in upstream["outputs"]}
        further_up = set().union(*(vouched_for(upstream) for upstream in before(stage)))
        assert inputs <= vouched_for(stage), stage["name"]
        assert inputs & made_just_before - further_up <= read_by(stage), stage["name"]


@pytest.mark.slow
def test_both_graphs_watch_the_versions_of_the_code_that_a_job_hangs_on(graphs):
    jobs, snakemake, _, _ = graphs
    for outputs, job in jobs.items():
        assert snakemake[outputs]["code"] == canonical_json(tokens(job.units))
        assert entry_of(job)["code"] == tokens(job.units)


def test_no_graph_has_a_source_file_as_an_input(graphs):
    _, snakemake, dvc, _ = graphs
    for job in [*snakemake.values(), *dvc.values()]:
        assert not [path for path in job["inputs"] if path.startswith("edpipe") or path.endswith(".py")]


def test_rules_name_the_logs_that_belong_to_them(graphs):
    for job in graphs[1].values():
        benchmark = paths.benchmark_path(job["step"], Path(job["outputs"][0]))
        assert job["log"] == [str(Path("logs", *benchmark.parts[1:]).with_suffix(".log"))]


def test_what_jobs_take_is_in_neither_graph(graphs):
    _, snakemake, dvc, _ = graphs
    for job in [*snakemake.values(), *dvc.values()]:
        assert not [path for path in (*job["inputs"], *job["outputs"]) if path.startswith("benchmarks")]
    assert not [
        path
        for path in ROOT.glob("edpipe/pipeline/snakemake/rules/*.smk")
        if "benchmark" in path.read_text(encoding="utf-8")
    ]


def test_a_person_can_read_dvc_yaml():
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) <= 300
    assert ".py" not in text


def test_the_shipped_digests_of_code_fit_the_sources():
    assert (ROOT / paths.CODE).read_text() == code_text(), "run `edpipe code`"


def test_the_shipped_lists_fit_the_shipped_params():
    params = load_params(ROOT / "params.yaml")
    assert (ROOT / paths.TRACKED_JOBS).read_text() == tracked_jobs_text(params), "run `edpipe tracked_jobs`"


def test_the_shipped_files_of_knobs_fit_the_shipped_params():
    params = load_params(ROOT / "params.yaml")
    wanted = {str(path): text for path, text in texts_of(jobs_of(params, params.tracked)).items()}
    found = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / paths.KNOBS).rglob("*.json")}
    assert found == wanted, "run `edpipe tracked_jobs`"


def test_every_step_of_the_pipeline_has_a_stage():
    assert set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]) == {"check_params", *STEPS}
