"""Which part of a whole training each of its stages is: for rates and losses that go on from stage to stage."""

from collections.abc import Sequence

from edpipe.errors import ParamsError
from edpipe.params.plans.loss import TeacherLoss
from edpipe.params.stage import StageKnobs

WHOLE = (0.0, 1.0)
Part = tuple[float, float]
"""Start and end, from 0 to 1."""


def follows_training(loss: TeacherLoss) -> bool:
    """Whether a loss changes on the way through all stages."""
    return loss.progress_of == "training"


def parts_of(budgets: Sequence[StageKnobs], path: str, why: str) -> list[Part]:
    """The part of each stage, by its budget.

    >>> parts_of([StageKnobs(images=30), StageKnobs(images=90)], "", "")
    [(0.0, 0.25), (0.25, 1.0)]

    Args:
        budgets: of all stages, in order.
        path: of the knob that asks, for an error.
        why: it asks: "'carried'".

    Raises:
        ParamsError: budgets of several kinds, which cannot be added up.
    """
    if len(budgets) == 1:
        return [WHOLE]
    kinds = {"epochs": [b.epochs for b in budgets], "images": [b.images for b in budgets]}
    kinds["compute"] = [b.compute for b in budgets]
    for given in kinds.values():
        sizes = [size for size in given if size is not None]
        if len(sizes) == len(budgets):
            ends = [sum(sizes[: k + 1]) / sum(sizes) for k in range(len(sizes))]
            return list(zip([0.0, *ends[:-1]], ends, strict=True))
    used = " and ".join(kind for kind, given in kinds.items() if any(size is not None for size in given))
    raise ParamsError(f"{path}: {why} needs the budgets of all stages in one of epochs, images and compute, got {used}")
