"""Loggers that people may have beside edpipe: TensorBoard, MLflow, Weights & Biases. Each is used only where installed.

One that fails on the way is told off in one line and left alone: it must not end a training.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from edpipe.errors import EdpipeError, nearest
from edpipe.runtime.progress import announce

LOGGER_VARIABLE = "EDPIPE_LOGGER"
NONE = "none"
"""Value of the variable that leaves out the logger of params.yaml."""
CURVES = "curves"
"""The folder of curves among those of logs; each logger that writes files has one beside it."""
PROJECT = "edpipe"
"""Name of the experiment or project that runs stand under, where the environment names none."""


class Backend(Protocol):
    """One training in one logger."""

    run: str
    """By which the logger knows this training again."""

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Tells it these values."""
        ...

    def close(self, is_finished: bool) -> None:
        """The end of this process's part."""
        ...


def _logs(curve_path: Path) -> Path:
    """The folder of all logs, given the path of a curve."""
    return next((folder.parent for folder in curve_path.parents if folder.name == CURVES), curve_path.parent)


class _TensorBoard:
    """Event files in logs/tensorboard, in a folder for each training."""

    def __init__(self, name: str, path: Path, run: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        logs = _logs(path)
        folder = logs / "tensorboard" / path.relative_to(logs / CURVES).with_suffix("")
        self.run = run or folder.name
        # A training that begins anew hides what an earlier one of the same name has left.
        self._writer = SummaryWriter(str(folder), purge_step=None if run else 0)

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, iteration)
        self._writer.flush()

    def close(self, is_finished: bool) -> None:
        self._writer.close()


class _MLflow:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME, where MLFLOW_TRACKING_URI says, else in logs/mlflow.db."""

    def __init__(self, name: str, path: Path, run: str | None) -> None:
        self._mlflow = import_module("mlflow")
        logs = _logs(path)
        logs.mkdir(parents=True, exist_ok=True)
        # Jobs begin side by side, and the first of them makes the tables.
        with FileLock(logs / "mlflow.lock"):
            self.run = self._start(name, logs / "mlflow.db", run)

    def _start(self, name: str, database: Path, run: str | None) -> str:
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self._mlflow.set_tracking_uri(f"sqlite:///{database.absolute()}")
        if not os.environ.get("MLFLOW_EXPERIMENT_NAME") and not os.environ.get("MLFLOW_EXPERIMENT_ID"):
            self._mlflow.set_experiment(PROJECT)
        return self._mlflow.start_run(**({"run_id": run} if run else {"run_name": name})).info.run_id

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=iteration)

    def close(self, is_finished: bool) -> None:
        self._mlflow.end_run("FINISHED" if is_finished else "KILLED")


class _WeightsAndBiases:
    """A run of the project that WANDB_PROJECT names; WANDB_MODE=offline keeps it here, in logs/wandb."""

    def __init__(self, name: str, path: Path, run: str | None) -> None:
        folder = os.environ.get("WANDB_DIR") or str(_logs(path))
        Path(folder).mkdir(parents=True, exist_ok=True)
        project = os.environ.get("WANDB_PROJECT") or PROJECT
        wandb = import_module("wandb")
        self._run = wandb.init(project=project, name=name, id=run, resume="allow", dir=folder)
        self.run = self._run.id

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=iteration)

    def close(self, is_finished: bool) -> None:
        self._run.finish(exit_code=0 if is_finished else 1)


LOGGERS: dict[str, tuple[str, Callable[[str, Path, str | None], Backend]]] = {
    "tensorboard": ("tensorboard", _TensorBoard),
    "mlflow": ("mlflow", _MLflow),
    "wandb": ("wandb", _WeightsAndBiases),
}
"""By name in params.yaml: the package, and what opens it."""


def chosen_logger(wanted: str | None) -> str | None:
    """EDPIPE_LOGGER, else the one that params.yaml names; None for none. Its package is found, but not imported.

    Raises:
        EdpipeError: there is no such logger, or it is not installed.
    """
    named = os.environ.get(LOGGER_VARIABLE)
    name = named or wanted
    if name is None or name == NONE:
        return None
    where = f"{LOGGER_VARIABLE}={name!r}" if named else f"logger: {name!r}"
    if name not in LOGGERS:
        raise EdpipeError(f"{where}: no such logger{nearest(name, [*LOGGERS, NONE])}")
    package, _ = LOGGERS[name]
    if importlib.util.find_spec(package) is None:
        raise EdpipeError(
            f"{where}: not installed here; `pip install {package}`, or leave it out with {LOGGER_VARIABLE}={NONE}"
        )
    return name


class TrainingLogger:
    """One training in the chosen logger, or in none.

    Args:
        name: of the logger; None: nothing is logged.
        title: of the training, for people.
        path: of the training's curve; a logger that writes files does it in the same folder of logs.
        runs: by logger, the name by which it knows this training; empty for one that begins.
    """

    def __init__(self, name: str | None, title: str, path: Path, runs: Mapping[str, str]) -> None:
        self._name, self._backend = name, None
        self.runs: dict[str, str] = dict(runs)
        """The same, with this logger's."""
        if name is not None:
            self._backend = self._safely(lambda: LOGGERS[name][1](title, path, runs.get(name)))
        if name is not None and self._backend is not None:
            self.runs[name] = self._backend.run

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Tells the logger these values of an iteration."""
        backend = self._backend
        if backend is not None:
            self._safely(lambda: backend.log(iteration, values))

    def close(self, is_finished: bool) -> None:
        """Nothing more comes; `is_finished` says whether the training came to its end."""
        backend = self._backend
        if backend is not None:
            self._safely(lambda: backend.close(is_finished))

    def _safely(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:  # whatever it is: the training is not the logger's
            self._backend = None
            line = " ".join(str(error).split()) or type(error).__name__
            announce(f"warning: logger {self._name}: {line}; training goes on without it")
            return None


def open_logger(name: str | None, title: str, path: Path, runs: Mapping[str, str]) -> TrainingLogger:
    """See `TrainingLogger`."""
    return TrainingLogger(name, title, path, runs)
