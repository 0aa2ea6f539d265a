"""What Snakemake's hooks and the environment say when something is wrong: one line each."""

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from edpipe.cli.run_step import STEP_COMMANDS
from edpipe.errors import EdpipeError, ParamsError
from edpipe.params.load import load_params, parse_params
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.jobs.students import run_stage
from edpipe.pipeline.jobs.teachers import dump_soft_labels, make_teacher
from edpipe.pipeline.snakemake import fork_server_launch, hooks
from edpipe.runtime import device, fork_protocol, threads


@pytest.fixture(scope="module")
def params():
    return load_params()


def one_line(capsys):
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.startswith("edpipe: ")
    return text


def test_the_number_of_a_stage_in_a_path_must_be_its_own(params, capsys):
    words = {"experiment": "digits_ed", "seed": 0, "stage": "primary"}
    assert hooks.job_of(run_stage, params, {**words, "number": 1}).outputs[0].name == "1_primary.safetensors"
    with pytest.raises(SystemExit, match="2"):
        hooks.job_of(run_stage, params, {**words, "number": 2})
    assert "2_primary: stage 'primary' makes artifacts/students/digits_ed/seed0/1_primary" in one_line(capsys)


@pytest.mark.parametrize(
    ("make", "words", "text"),
    [
        (run_stage, {"experiment": "digits_ed", "seed": 9, "stage": "primary"}, "seeds of experiment 'digits_ed': 9"),
        (run_stage, {"experiment": "digits_ed", "seed": 0, "stage": "foo"}, "stages of experiment 'digits_ed': 'foo'"),
        (make_teacher, {"dataset": "digits", "teacher": "digits_teacher", "subset": "foo"}, "'foo' is not one of them"),
        (
            dump_soft_labels,
            {"dataset": "food101", "teacher": "food101_teacher", "subset": "all", "views": "0-31"},
            "views of soft_labels.food101: '0-31' is not one of them; allowed: 0-7",
        ),
    ],
)
def test_a_path_that_names_no_job_is_one_line(params, capsys, make, words, text):
    with pytest.raises(SystemExit, match="2"):
        hooks.job_of(make, params, words)
    assert text in one_line(capsys)


def test_failures_are_explained_by_the_lines_of_their_new_logs(tmp_path, capsys, monkeypatch):
    failed, done, old = (tmp_path / name for name in ("failed.log", "done.log", "old.log"))
    for log in (failed, done, old):
        log.write_text(f"some progress\nedpipe: {log.name} says why\n")
    monkeypatch.setattr(hooks, "_STARTED_S", failed.stat().st_mtime - 1)
    os.utime(old, (1, 1))
    jobs = [SimpleNamespace(log=[str(log)]) for log in (failed, done, old)]
    dag = SimpleNamespace(jobs=jobs, needrun=lambda job: True, finished=lambda job: job is jobs[1])
    hooks.explain_failures(SimpleNamespace(dag=dag, output_settings=SimpleNamespace(quiet=set())))
    assert capsys.readouterr().err == ""  # Snakemake shows the logs itself
    hooks.explain_failures(SimpleNamespace(dag=dag, output_settings=SimpleNamespace(quiet=["rules"])))
    assert one_line(capsys) == f"edpipe: failed.log says why  ({failed})\n"


def workflow_of(num_jobs, **facts):
    """A run of so many shell jobs, and of one target without a command."""
    knobs = ['{"model": "resnet8"}', '{"model": "timm:resnet18"}']
    rules = [SimpleNamespace(name=name) for name in ("report", "evaluate")]
    jobs = [SimpleNamespace(is_shell=True, params=[knobs[i % 2]], rule=rules[i % 2]) for i in range(num_jobs)]
    dag = SimpleNamespace(needrun_jobs=lambda: iter([*jobs, SimpleNamespace(is_shell=False)]))
    return SimpleNamespace(**{"dag": dag, "is_main_process": True, "local_exec": True, "touch": False} | facts)


@pytest.fixture
def commands(monkeypatch):
    """The commands of processes that would have been started."""
    started = []
    monkeypatch.setattr(fork_server_launch.subprocess, "Popen", lambda command, **_: started.append(command))
    monkeypatch.setattr(fork_server_launch.atexit, "register", lambda *_, **__: None)
    monkeypatch.setitem(os.environ, fork_protocol.SERVER, "")
    monkeypatch.delenv("EDPIPE_FORK_SERVER", raising=False)
    return started


def test_the_fork_server_imports_the_libraries_of_the_jobs_and_can_be_called(commands, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fork_server_launch.start_fork_server(workflow_of(2))
    [command] = commands
    steps = ["torch", "torch._dynamo", "edpipe.steps.evaluate", "edpipe.steps.report"]
    assert command[-7:] == ["timm", "edpipe.cli.main", "edpipe.storage.code.preloaded", *steps]
    path = Path(os.environ[fork_protocol.SERVER])
    assert path.is_socket()
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("num_jobs", "facts", "switch"),
    [
        (1, {}, "1"),
        (2, {}, "0"),
        (2, {"local_exec": False}, "1"),
        (2, {"is_main_process": False}, "1"),
        (2, {"touch": True}, "1"),
    ],
)
def test_no_fork_server_where_it_is_of_no_use(commands, monkeypatch, num_jobs, facts, switch):
    monkeypatch.setenv("EDPIPE_FORK_SERVER", switch)
    fork_server_launch.start_fork_server(workflow_of(num_jobs, **facts))
    assert commands == []
    assert os.environ[fork_protocol.SERVER] == ""


def test_the_fork_server_knows_every_step():
    found = fork_server_launch.modules_of(STEP_COMMANDS)
    assert {f"edpipe.steps.{name}" for name in STEP_COMMANDS} <= set(found)


def test_a_long_temporary_folder_is_left_for_a_short_one(commands, monkeypatch, tmp_path):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    fork_server_launch.start_fork_server(workflow_of(2))
    path = Path(os.environ[fork_protocol.SERVER])
    assert path.is_socket()
    assert list(long.iterdir()) == []
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("text", ["0", "-1", "two", "²", "999999", "1.5"])
def test_threads_must_be_a_sensible_number(monkeypatch, text):
    monkeypatch.setenv("EDPIPE_THREADS", text)
    with pytest.raises(EdpipeError, match=r"^EDPIPE_THREADS='.+': must be a whole number from 1 to 1024"):
        threads.num_threads()


@pytest.mark.parametrize(
    "name",
    ["gpu", "meta", pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here"))],
)
def test_a_device_that_cannot_compute_is_one_line(monkeypatch, name):
    monkeypatch.setenv("EDPIPE_DEVICE", name)
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    with pytest.raises(EdpipeError, match=f"^EDPIPE_DEVICE='{name}': .*or leave it unset$"):
        device.prepare_device()


@pytest.mark.parametrize(
    "text", ["a: 0x_", "a: 0b_", "a: ._", "a: " + "9" * 5000, "a: " + "[" * 5000, "a: \0"], ids=lambda t: t[:8]
)
def test_values_that_break_the_yaml_reader_are_one_line(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError) as caught:
        parse_params(load_raw(path))
    # One line for each thing that is wrong: what YAML takes for text leaves an unknown key and missing sections.
    assert all(": " in line for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("tracked", ["digits_ed", "digits_ed"], "tracked: names must differ"),
        ("datasets.digits.root", "", "datasets.digits.root"),
        ("experiments.digits_ed.stages.primary.images", 10**13, "experiments.digits_ed.stages.primary.images"),
        ("teachers.digits_teacher.fitting.epochs", 1e300, "teachers.digits_teacher.fitting.epochs"),
        ("teachers.digits_teacher.network.source", "timm", "source: timm needs a model 'timm:<name>', got 'resnet14'"),
    ],
)
def test_values_beyond_reason_are_refused(path, value, text):
    raw = load_raw()
    *folders, name = path.split(".")
    place = raw
    for folder in folders:
        place = place[folder]
    place[name] = value
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert text in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "read"),
    [("EDPIPE_PROCESSES", hooks.processes_per_training), ("EDPIPE_NODES", hooks.nodes_per_training)],
)
def test_a_wrong_number_of_processes_or_nodes_ends_snakemake_with_one_line(monkeypatch, capsys, variable, read):
    monkeypatch.setenv(variable, "many")
    with pytest.raises(SystemExit) as ended:
        read()
    assert ended.value.code == 2
    said = f"edpipe: {variable}='many': must be a whole number from 1 to 1024; mend or unset it\n"
    assert capsys.readouterr().err == said
    monkeypatch.setenv(variable, "3")
    assert read() == 3


def test_a_logger_that_is_not_there_ends_snakemake_before_the_first_job(monkeypatch, capsys):
    monkeypatch.setenv("EDPIPE_LOGGER", "nothing")
    with pytest.raises(SystemExit):
        hooks.check_before_first_job(SimpleNamespace(dag=SimpleNamespace(jobs=[])))
    assert capsys.readouterr().err == (
        "edpipe: EDPIPE_LOGGER='nothing': no such logger; known: mlflow, none, tensorboard, wandb\n"
    )
