"""Evidence for a teacher: its weights are what it is; the present code loads them and measures the same top1."""

from typing import Any

import torch

from edpipe.cli.adoption.claim import Claim, Evidence, UnshownError
from edpipe.errors import MismatchError
from edpipe.soft_labels.teacher_outputs import Teacher, TeacherFiles, load_teacher
from edpipe.training.teacher import TeacherSetup, measure_teacher, setup_of_job

TOLERANCE_IMAGES = 1
"""One image may lie on the edge between two classes, where the last bits of a logit decide."""


def show_teacher(claim: Claim) -> Evidence:
    """The weights fit the network that the present code builds, and it names as many images rightly as they did.

    Raises:
        UnshownError: the weights do not fit, or the number differs by more than one image.
        EdpipeError: the weights, the dataset or the partition are damaged.
    """
    for name in ("subset", "class_ids", "mean", "std", "top1", "top1_split"):
        claim.fact(name)
    setup = setup_of_job(claim.job)
    record = claim.compare(_facts(claim, setup))
    network = _load(claim, setup).network
    network.to(setup.batches.device).to(memory_format=torch.channels_last)
    try:
        hits, split = measure_teacher(network, setup.normalised(tuple(record["mean"]), tuple(record["std"])))
    except ValueError as error:
        raise UnshownError(f"{claim.path}: cannot be measured again: {error}") from error
    record = claim.compare(_facts(claim, setup) | {"top1_split": split, "top1_samples": hits.total})
    correct = round(record["top1"] * hits.total)
    if abs(hits.correct - correct) > TOLERANCE_IMAGES:
        raise UnshownError(
            f"{claim.path}: named {correct} of {hits.total} {split} images rightly when it was made, now {hits.correct}"
        )
    shown = {
        "evidence": "measured again",
        "top1": hits.top1,
        "recorded_top1": record["top1"],
        "compared_images": hits.total,
        "difference_images": abs(hits.correct - correct),
    }
    return Evidence(f"measured again: {hits.correct} of {hits.total} {split} images, {correct} then", shown, record)


def _facts(claim: Claim, setup: TeacherSetup) -> dict[str, Any]:
    """What the record must say; a fetched teacher may bring a normalisation of its own."""
    facts: dict[str, Any] = {"subset": setup.subset, "class_ids": list(setup.class_ids)}
    if claim.job.step == "train_teacher":
        facts |= {"mean": list(setup.dataset.mean), "std": list(setup.dataset.std)}
    return facts


def _load(claim: Claim, setup: TeacherSetup) -> Teacher:
    job = claim.job
    names = str(job.arguments["teacher"]), str(job.arguments["subset"])
    files = TeacherFiles(*names, job.input("dataset"), job.input_or_none("partition"), claim.path)
    try:
        return load_teacher(files, setup.dataset)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise MismatchError(
            f"{claim.path}: its weights do not fit the network that the present code builds ({reason})"
        ) from error
