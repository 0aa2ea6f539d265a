"""Evidence for the student of a stage: its first iterations are trained again, and the losses are those of then."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from edpipe.cli.adoption.claim import Claim, Evidence, UnshownError
from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.results.measures.evaluation_inputs import load_student
from edpipe.runtime.device import prepare_device
from edpipe.steps.run_stage import open_start
from edpipe.storage.records import record_path
from edpipe.training.loop import FIRST_LOSSES, Task, Training
from edpipe.training.stage.inputs import StageFiles

TOLERANCE = 1e-4
"""Relative difference of two losses that other libraries or another type of machine may make in a few iterations."""
HINT = (
    "; if another type of machine, or other numbers of threads or processes, trained it, call with --other-machine, "
    f"which allows {TOLERANCE:g}"
)


def show_student(claim: Claim) -> Evidence:
    """From the same start, on the same samples, views and targets, the same losses come.

    Raises:
        UnshownError: they do not, or the record has none.
        EdpipeError: an input or the weights do not fit, or are damaged.
    """
    recorded = recorded_losses(claim)
    job = claim.job
    start = open_start(int(job.arguments["seed"]), job.knobs, StageFiles.of_job(job), prepare_device())
    record = claim.compare(start.record)
    _load(claim)
    count = min(len(recorded), start.training.num_iterations, FIRST_LOSSES)
    now = first_losses(start.training, start.task, count)
    difference = compare_losses(claim, recorded[:count], now)
    shown = {
        "evidence": "first iterations trained again",
        "compared_iterations": len(now),
        "of_iterations": start.training.num_iterations,
        "max_relative_difference": difference,
    }
    told = "equal" if difference == 0 else f"equal to {difference:.1g}"
    text = f"{len(now)} of {start.training.num_iterations} iterations trained again: losses are {told}"
    return Evidence(text, shown, record)


def recorded_losses(claim: Claim) -> Sequence[float]:
    """Losses of the first iterations, from the record.

    Raises:
        UnshownError: it has none.
    """
    losses: Any = claim.record.get("first_losses")
    if not isinstance(losses, list) or not losses:
        raise UnshownError(
            f"{record_path(claim.path)}: holds no losses of the first iterations, as records of older edpipes do not, "
            "so that training them again shows nothing"
        )
    return losses


def _load(claim: Claim) -> None:
    """That the weights are those of such a student, as the present code builds it."""
    dataset = open_dataset(claim.job.input("dataset"))
    try:
        load_student(claim.path, dataset, read_partition(claim.job.input("partition"), dataset))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnshownError(
            f"{claim.path}: its weights do not fit the student that the present code builds ({reason})"
        ) from error


def first_losses(training: Training, task: Task, count: int) -> Sequence[float]:
    """Losses of so many iterations, trained now."""
    progress: Iterator[Any] = training.run(task)
    with closing(progress):  # type: ignore[type-var]  # a generator
        while len(training.first_losses) < count:
            next(progress)
    return training.first_losses[:count]


def compare_losses(claim: Claim, then: Sequence[float], now: Sequence[float]) -> float:
    """The largest relative difference.

    Raises:
        UnshownError: one differs by more than is allowed: nothing, where the same libraries are said to have computed
            them on the same type of machine.
    """
    apart = [abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0 for a, b in zip(then, now, strict=True)]
    worst = max(range(len(apart)), key=apart.__getitem__)
    if apart[worst] > (0.0 if claim.needs_equality else TOLERANCE):
        is_near = claim.needs_equality and max(apart) <= TOLERANCE
        raise UnshownError(
            f"{claim.path}: the loss of iteration {worst + 1} was {then[worst]:.9g}, trained again it is "
            f"{now[worst]:.9g}, a relative difference of {apart[worst]:.1g}{HINT if is_near else ''}"
        )
    return apart[worst]
