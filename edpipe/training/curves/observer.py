"""Watches one training: at some of its iterations a row is added to its curve, and a logger is told the same."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from torch import nn

from edpipe.errors import OverwriteError
from edpipe.runtime.loggers import open_logger
from edpipe.runtime.progress import announce
from edpipe.training.curves.curve_file import Row, finite, read_curve, write_curve
from edpipe.training.curves.settings import CurveSettings, curve_settings
from edpipe.training.loop import Progress, Training

KEY_LENGTH = 8
"""Characters by which rows of one training are told from those of another of the same artifact."""
MEASURED = ("loss", "learning_rate", "val_top1")
"""What a logger is told."""


class Observer(AbstractContextManager):
    """What `ResumableTraining` calls, inside its block from the first iteration to the last. This one does nothing."""

    def see(self, progress: Progress) -> str:
        """Called after each look at the loss; says what people are shown beside it."""
        return ""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON holds it, so that a resumed curve is that of one go."""
        return {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The training has ended, or was interrupted by an error."""


def observe(
    title: str,
    training: Training,
    key: str,
    epoch_images: int,
    validate: Callable[[nn.Module, int], float | None] | None,
    state: Mapping[str, Any],
) -> Observer:
    """Who watches a training that begins, or goes on where a checkpoint put it; nobody, where no curve is wanted.

    Args:
        title: of the training.
        training: at its first iteration.
        key: of all that decides its result.
        epoch_images: in one epoch.
        validate: the top1 of a network on so many images; None: it cannot be measured.
        state: what `Observer.state` gave, from the checkpoint; empty without one.
    """
    settings = curve_settings()
    if settings is None or not settings.points or not training.group.is_main:
        return Observer()
    return CurveWriter(settings, title, training, key[:KEY_LENGTH], epoch_images, validate, state)


class CurveWriter(Observer):
    """Writes the curve of one training; see `observe`.

    The file has at any time the rows up to the last point, each once: on resume those after the checkpoint go.
    """

    def __init__(
        self,
        settings: CurveSettings,
        title: str,
        training: Training,
        key: str,
        epoch_images: int,
        validate: Callable[[nn.Module, int], float | None] | None,
        state: Mapping[str, Any],
    ) -> None:
        self._settings, self._title, self._training, self._key = settings, title, training, key
        self._epoch_images = epoch_images
        self._validate = validate if settings.validation_images else None
        self._loss_sum, self._loss_count = state.get("loss_sum", 0.0), state.get("loss_count", 0)
        self._seen_iteration = training.iteration
        before = [row for row in read_curve(settings.path) if row["training"] == key]
        self._rows = [row for row in before if row["iteration"] <= training.iteration]
        self._said = self._top1_text()
        self._is_writable = True
        self._write()
        # A resumed training makes again what its logger was told after the checkpoint.
        is_resumed = settings.logger in state.get("runs", {})
        self._told_until = max((row["iteration"] for row in before), default=0) if is_resumed else 0
        name = "/".join(settings.path.with_suffix("").parts[-4:])
        self._logger = open_logger(settings.logger, name, settings.path, state.get("runs", {}))
        for row in self._rows:
            self._tell(row)

    def see(self, progress: Progress) -> str:
        """Adds a row where one is due; gives the newest top1 in words."""
        self._loss_sum, self._loss_count = self._loss_sum + progress.loss, self._loss_count + 1
        last, self._seen_iteration = self._seen_iteration, progress.iteration
        if self._point(progress.iteration) > self._point(last):
            self._rows.append(self._row(progress))
            self._loss_sum, self._loss_count = 0.0, 0
            self._said = self._top1_text()
            self._write()
            self._tell(self._rows[-1])
        return self._said

    def state(self) -> dict[str, Any]:
        """The losses since the last row, and the name that the logger gave this training."""
        return {"loss_sum": self._loss_sum, "loss_count": self._loss_count, "runs": self._logger.runs}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The logger has all that it was told."""
        self._logger.close(is_finished=kind is None)

    def _point(self, iteration: int) -> int:
        """How many rows are due by the end of an iteration."""
        return iteration * self._settings.points // self._training.num_iterations

    def _row(self, progress: Progress) -> Row:
        return {
            "iteration": progress.iteration,
            "images": progress.images,
            "epoch": progress.images / self._epoch_images,
            "loss": finite(self._loss_sum / self._loss_count),
            "learning_rate": progress.learning_rate,
            "val_top1": self._top1(),
            "training": self._key,
        }

    def _top1(self) -> float | None:
        """Of the network as it stands; one that cannot be measured is no reason to lose the training."""
        if self._validate is None:
            return None
        try:
            return self._validate(self._training.network_to_keep, self._settings.validation_images)
        except Exception as error:  # whatever it is, such as an image that cannot be read
            self._validate = None
            line = " ".join(str(error).split()) or type(error).__name__
            announce(f"{self._title}: validation: {line}; training goes on without it")
            return None

    def _top1_text(self) -> str:
        top1 = self._rows[-1]["val_top1"] if self._rows else None
        return "" if top1 is None else f", val top1 {top1:.4f}"

    def _tell(self, row: Row) -> None:
        if row["iteration"] > self._told_until:
            self._logger.log(row["iteration"], {name: row[name] for name in MEASURED if row[name] is not None})

    def _write(self) -> None:
        """A curve that cannot be written is no reason to lose the training."""
        if not self._is_writable:
            return
        try:
            write_curve(self._settings.path, self._rows)
        except OverwriteError as error:
            self._is_writable = False
            announce(f"{self._title}: curve: {error}; training goes on without it")
