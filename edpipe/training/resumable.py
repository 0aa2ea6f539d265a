"""Training as a step does it: shown to people, checkpointed, ended in order by a signal, resumed where it was."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn

from edpipe.errors import EdpipeError, OverwriteError, TrainingError
from edpipe.runtime.distributed import Group
from edpipe.runtime.progress import Tick, announce, show_progress
from edpipe.runtime.signals import postponing
from edpipe.storage.digests import digest_json
from edpipe.training.checkpoint import Checkpoints
from edpipe.training.curves.observer import observe
from edpipe.training.loop import Progress, Task, Training

CHECKPOINT_VARIABLE = "EDPIPE_CHECKPOINT_SECONDS"
CHECKPOINT_EVERY_S = 60.0
CURVE = "curve"
"""Key of a checkpoint's facts under which the curve keeps its own."""
MOST_COST = 0.02
"""Share of the time that writing checkpoints may take: large ones are written less often."""


class ResumableTraining:
    """One training of a step; use `run`, then write the artifact, then `finish`.

    Args:
        title: what people are shown.
        training: at its start.
        out_path: the artifact that it is for.
        facts: all that decides the result: knobs, digests of inputs and code, versions. A checkpoint made under others
            does not fit.
        epoch_images: images in one epoch, for what is shown.
        validate: top1 of a network on at most so many validation images, for what is shown; None where nobody knows.
    """

    def __init__(
        self,
        title: str,
        training: Training,
        out_path: Path,
        facts: object,
        epoch_images: int,
        validate: Callable[[nn.Module, int], float | None] | None = None,
    ) -> None:
        self._title, self._training, self._epoch_images = title, training, epoch_images
        self._key, self._validate = digest_json(facts), validate
        self._checkpoints = Checkpoints(out_path, self._key)
        self._every_s = checkpoint_seconds()

    @property
    def group(self) -> Group:
        """The processes that train together."""
        return self._training.group

    def run(self, task: Task) -> float:
        """Trains to the end, from the newest checkpoint if there is one; returns the mean loss of the last tenth, nats.

        Raises:
            Interrupted: SIGTERM or Ctrl-C came; a checkpoint was written first.
            TrainingError: the loss is no longer a finite number, or much too large; or another process is gone.
        """
        before = self._resume()
        self._curve = observe(self._title, self._training, self._key, self._epoch_images, self._validate, before)
        try:
            with self._curve, postponing() as postponed, self._progress() as show:
                due_s = time.monotonic() + self._every_s
                for progress in self._training.run(task):
                    show(self._tick(progress, self._curve.see(progress)))
                    must_stop = self.group.any(postponed.number is not None)
                    if must_stop or time.monotonic() >= due_s:
                        due_s = self._write()
                    if must_stop:
                        postponed.interrupt()
            if postponed.number is not None:  # it came after the last look
                self._write()
                postponed.interrupt()
            self._training.finish()
        except TrainingError as error:
            raise type(error)(f"{self._title}: {error}{self._last_good()}") from error
        return self._training.mean_tail_loss

    def finish(self) -> None:
        """Removes the checkpoints: the artifact has been written, which is not lost if they cannot be removed."""
        if self.group.is_main:
            try:
                self._checkpoints.clear()
            except OverwriteError as error:
                announce(f"{self._title}: {error}")

    def _resume(self) -> dict[str, Any]:
        """Goes back to the newest checkpoint; gives what it kept of the curve."""
        checkpoint, damaged = self._checkpoints.newest()
        for path in damaged:
            announce(f"{self._title}: {path} is damaged and left out")
        if checkpoint is not None:
            self._training.restore(checkpoint.tensors, {k: v for k, v in checkpoint.facts.items() if k != CURVE})
            announce(
                f"{self._title}: goes on after iteration {self._training.iteration} of "
                f"{self._training.num_iterations}, from {checkpoint.path}"
            )
        self.group.check_alike("iteration of the newest checkpoint", self._training.iteration)
        return {} if checkpoint is None or not self._training.iteration else checkpoint.facts.get(CURVE, {})

    def _write(self) -> float:
        """Writes a checkpoint; returns when the next one is due."""
        start_s = time.monotonic()
        if self.group.is_main:
            try:
                tensors, facts = self._training.state()
                self._checkpoints.write(tensors, facts | {CURVE: self._curve.state()})
            except OverwriteError as error:  # A full disk is no reason to lose the training itself.
                announce(f"{self._title}: checkpoint: {error}; training goes on")
        now_s = time.monotonic()
        return now_s + max(self._every_s, (now_s - start_s) / MOST_COST)

    def _progress(self) -> AbstractContextManager[Callable[[Tick], None]]:
        training, total = self._training, self._training.budget.num_images
        is_over = training.iteration == training.num_iterations  # the last batch is no whole one
        return show_progress(self._title, total, total if is_over else training.iteration * training.recipe.batch_size)

    def _tick(self, progress: Progress, more: str) -> Tick:
        epoch = progress.images / self._epoch_images
        return Tick(progress.images, f"epoch {epoch:.1f}, loss {progress.loss:.4f}{more}")

    def _last_good(self) -> str:
        checkpoint, _ = self._checkpoints.newest()
        return "" if checkpoint is None else f"; the last good checkpoint is {checkpoint.path}"


def checkpoint_seconds() -> float:
    """Seconds between checkpoints: EDPIPE_CHECKPOINT_SECONDS, else 60.

    Raises:
        EdpipeError: the variable is no number, or below 0.
    """
    text = os.environ.get(CHECKPOINT_VARIABLE)
    if not text:
        return CHECKPOINT_EVERY_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise EdpipeError(f"{CHECKPOINT_VARIABLE}={text!r}: must be a number of seconds from 0 on; mend or unset it")
    return seconds
