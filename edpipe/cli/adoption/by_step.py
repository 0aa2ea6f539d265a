"""Which function gathers evidence for the artifacts of each step."""

from collections.abc import Callable
from importlib import import_module

from edpipe.cli.adoption.claim import Claim, Evidence

FUNCTIONS = {
    "pack_dataset": "datasets.show_dataset",
    "partition_dataset": "made_again.show_partition",
    "partition_by_confusion": "made_again.show_partition",
    "train_teacher": "teachers.show_teacher",
    "fetch_teacher": "teachers.show_teacher",
    "dump_soft_labels": "soft_labels.show_soft_labels",
    "verify_soft_labels": "made_again.show_index",
    "record_trajectory": "trajectories.show_trajectory",
    "run_stage": "students.show_student",
}
"""By step: module of this package and function. What the other steps make is cheap to make again."""


def evidence_of(step: str) -> Callable[[Claim], Evidence]:
    """The function that gathers evidence for artifacts of a step; it raises EdpipeError where they cannot be shown.

    Raises:
        KeyError: artifacts of this step are made again instead.
    """
    module, _, name = FUNCTIONS[step].partition(".")
    return getattr(import_module(f"edpipe.cli.adoption.{module}"), name)
