"""Loggers: which is chosen, what each is told, and that none can end a training. The packages are stand-ins."""

import sys
from types import ModuleType, SimpleNamespace
from typing import get_args

import pytest

from edpipe.errors import EdpipeError
from edpipe.params.schema import Params
from edpipe.runtime import loggers
from edpipe.runtime.loggers import LOGGER_VARIABLE, LOGGERS, chosen_logger, open_logger

PATH = "logs/curves/students/e/seed0/1_primary.json"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Nothing of the environment's own; loggers write here."""
    for name in (LOGGER_VARIABLE, "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def calls():
    return []


def noting(calls, name, answer=None):
    """A function that notes how it is called."""

    def call(*arguments, **options):
        calls.append((name, *arguments, *([options] if options else [])))
        return answer

    return call


@pytest.fixture
def tensorboard(monkeypatch, calls):
    """torch's own writer, which needs the package."""
    writer = SimpleNamespace(**{n: noting(calls, n) for n in ("add_scalar", "flush", "close")})
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = noting(calls, "SummaryWriter", writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


@pytest.fixture
def mlflow(monkeypatch, calls):
    run = SimpleNamespace(info=SimpleNamespace(run_id="abc"))
    module = ModuleType("mlflow")
    for name in ("set_tracking_uri", "set_experiment", "log_metrics", "end_run"):
        setattr(module, name, noting(calls, name))
    module.start_run = noting(calls, "start_run", run)
    monkeypatch.setitem(sys.modules, "mlflow", module)


@pytest.fixture
def wandb(monkeypatch, calls):
    run = SimpleNamespace(id="xyz", log=noting(calls, "log"), finish=noting(calls, "finish"))
    module = ModuleType("wandb")
    module.init = noting(calls, "init", run)
    monkeypatch.setitem(sys.modules, "wandb", module)


def log(name, folder, runs=None, is_finished=True):
    logger = open_logger(name, "e/seed0/1_primary", folder / PATH, runs or {})
    logger.log(3, {"loss": 1.5, "val_top1": 0.25})
    logger.close(is_finished)
    return logger


def test_tensorboard_is_told(tensorboard, calls, folder):
    where = str(folder / "logs/tensorboard/students/e/seed0/1_primary")
    assert log("tensorboard", folder).runs == {"tensorboard": "1_primary"}
    assert calls == [
        ("SummaryWriter", where, {"purge_step": 0}),
        ("add_scalar", "loss", 1.5, 3),
        ("add_scalar", "val_top1", 0.25, 3),
        ("flush",),
        ("close",),
    ]
    calls.clear()
    log("tensorboard", folder, {"tensorboard": "1_primary"})
    assert calls[0] == ("SummaryWriter", where, {"purge_step": None})


def test_mlflow_is_told(mlflow, calls, folder):
    assert log("mlflow", folder).runs == {"mlflow": "abc"}
    assert calls == [
        ("set_tracking_uri", f"sqlite:///{folder}/logs/mlflow.db"),
        ("set_experiment", "edpipe"),
        ("start_run", {"run_name": "e/seed0/1_primary"}),
        ("log_metrics", {"loss": 1.5, "val_top1": 0.25}, {"step": 3}),
        ("end_run", "FINISHED"),
    ]


def test_mlflow_goes_on_with_its_run_where_the_environment_says(mlflow, calls, folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    log("mlflow", folder, {"mlflow": "abc"}, is_finished=False)
    assert calls[0] == ("start_run", {"run_id": "abc"})
    assert calls[-1] == ("end_run", "KILLED")


def test_wandb_is_told(wandb, calls, folder):
    assert log("wandb", folder).runs == {"wandb": "xyz"}
    begun = {"project": "edpipe", "name": "e/seed0/1_primary", "id": None, "resume": "allow"}
    assert calls == [
        ("init", begun | {"dir": str(folder / "logs")}),
        ("log", {"loss": 1.5, "val_top1": 0.25}, {"step": 3}),
        ("finish", {"exit_code": 0}),
    ]


def test_wandb_goes_on_with_its_run_where_the_environment_says(wandb, calls, folder, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_DIR", str(folder / "there"))
    log("wandb", folder, {"wandb": "xyz", "mlflow": "abc"}, is_finished=False)
    assert calls[0][1] == {
        "project": "mine", "name": "e/seed0/1_primary", "id": "xyz", "resume": "allow", "dir": str(folder / "there"),
    }  # fmt: skip
    assert calls[-1] == ("finish", {"exit_code": 1})


def test_without_a_logger_nothing_is_told(folder, calls):
    assert log(None, folder, {"wandb": "xyz"}).runs == {"wandb": "xyz"}
    assert calls == []


@pytest.mark.parametrize("breaking", ["init", "log", "finish"])
def test_one_that_fails_is_one_line_and_is_left_alone(wandb, calls, folder, monkeypatch, capsys, breaking):
    def fail(*_, **__):
        raise OSError("no\nroute")

    run = SimpleNamespace(id="xyz", log=noting(calls, "log"), finish=noting(calls, "finish"))
    sys.modules["wandb"].init = noting(calls, "init", run)
    if breaking == "init":
        sys.modules["wandb"].init = fail
    else:
        setattr(run, breaking, fail)
    log("wandb", folder)
    assert capsys.readouterr().err == "warning: logger wandb: no route; training goes on without it\n"


def test_one_that_is_not_there_on_the_way_is_one_line(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    log("mlflow", folder)
    assert capsys.readouterr().err.startswith("warning: logger mlflow: import of mlflow halted")


def test_the_environment_counts_more_than_params(monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: object())
    assert chosen_logger(None) is None
    assert chosen_logger("mlflow") == "mlflow"
    monkeypatch.setenv(LOGGER_VARIABLE, "wandb")
    assert chosen_logger("mlflow") == chosen_logger(None) == "wandb"
    monkeypatch.setenv(LOGGER_VARIABLE, "none")
    assert chosen_logger("mlflow") is None
    monkeypatch.setenv(LOGGER_VARIABLE, "")
    assert chosen_logger("mlflow") == "mlflow"


def test_an_unknown_one_is_one_line(monkeypatch):
    monkeypatch.setenv(LOGGER_VARIABLE, "tensorbord")
    with pytest.raises(EdpipeError) as caught:
        chosen_logger(None)
    assert str(caught.value) == "EDPIPE_LOGGER='tensorbord': no such logger; did you mean 'tensorboard'?"


@pytest.mark.parametrize("name", LOGGERS)
def test_one_that_is_not_installed_is_one_line(monkeypatch, name):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EdpipeError) as caught:
        chosen_logger(name)
    assert str(caught.value) == (
        f"logger: '{name}': not installed here; `pip install {name}`, or leave it out with EDPIPE_LOGGER=none"
    )


def test_params_knows_the_same_loggers():
    literal, _ = get_args(Params.model_fields["logger"].annotation)
    assert get_args(literal) == tuple(LOGGERS)
