"""How an exported file does on the packed images: its outputs against the student's, and its accuracy."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from edpipe.datasets.dataset_file import Dataset
from edpipe.errors import ExportError, MismatchError
from edpipe.export.network import ImageTransform, Predictor
from edpipe.results.measures.metrics import expected_calibration_error, top_k_hits
from edpipe.results.measures.predictions import EVALUATION_BATCH, UNCHANGED
from edpipe.runtime.progress import Tick, show_progress
from edpipe.soft_labels.encoding.softmax import log_softmax
from edpipe.views.batches import ViewBatches
from edpipe.views.spec import ViewSpec

CHECKED_IMAGES = 100
"""Of the test split, on which a file is compared with the student."""
CALIBRATION_IMAGES = 512
"""Of the train split, which measure the range of each activation."""
CALIBRATION_BATCH = 64
TOLERANCE = 1e-4
"""Largest difference of a logit that is allowed, relative to the largest logit (at least 1)."""


@dataclass(frozen=True)
class Measures:
    """What was measured of a model on one split."""

    images: int
    top1: float
    top5: float
    nll: float
    """Mean of -log p of the true class, nats."""
    ece: float
    """Expected calibration error, 15 bins."""


def plain_batches(dataset: Dataset) -> ViewBatches:
    """Images of the data set as they are evaluated, on the CPU."""
    return ViewBatches(dataset, ViewSpec(UNCHANGED, 1, True, 0, dataset.image_size), torch.device("cpu"))


def spread_over(sample_ids: Int64[np.ndarray, " sample"], number: int) -> Int64[np.ndarray, " chosen"]:
    """So many of the ids, or all if there are fewer, evenly spread."""
    return sample_ids[np.unique(np.linspace(0, len(sample_ids) - 1, min(number, len(sample_ids))).astype(np.int64))]


def split_logits(
    predictor: Predictor, dataset: Dataset, sample_ids: Int64[np.ndarray, " sample"], title: str
) -> Float32[np.ndarray, "sample class"]:
    """Logits of at least one image of the data set, in the batches of the pipeline's evaluation."""
    batches, parts, done = plain_batches(dataset), [], 0
    with show_progress(title, len(sample_ids)) as show:
        for ids in np.split(sample_ids, range(EVALUATION_BATCH, len(sample_ids), EVALUATION_BATCH)):
            parts.append(predictor.logits(batches.plain(ids)))
            done += len(ids)
            show(Tick(done, ""))
    return np.concatenate(parts)


def largest_difference(
    found: Float32[np.ndarray, "sample class"], wanted: Float32[np.ndarray, "sample class"]
) -> float:
    """Largest difference of a logit, relative to the largest that is wanted, or to 1 if that is larger."""
    return float(np.abs(found - wanted).max() / max(1.0, float(np.abs(wanted).max())))


def check_difference(difference: float, images: int) -> None:
    """That a file gives what the student gives.

    Raises:
        ExportError: the difference is above the tolerance.
    """
    if not difference <= TOLERANCE:  # also if it is no number
        raise ExportError(
            f"onnx: on {images} test images a logit differs by {difference:.2g} of the largest logit, allowed is "
            f"{TOLERANCE:g}; nothing was kept; export safetensors or torch"
        )


def calibration_batches(
    dataset: Dataset, transform: ImageTransform
) -> Iterator[Float32[Tensor, "sample channel height width"]]:
    """Normalised images of the train split, evenly spread."""
    ids = spread_over(dataset.sample_ids("train"), CALIBRATION_IMAGES)
    batches = plain_batches(dataset)
    for part in np.split(ids, range(CALIBRATION_BATCH, len(ids), CALIBRATION_BATCH)):
        yield transform.normalised(batches.plain(part))


def measure(predictor: Predictor, dataset: Dataset, split: str) -> Measures:
    """Measures of a model on one split of packed images, whose classes may stand in another order.

    Raises:
        MismatchError: other classes, another size or another number of channels; a split without images.
    """
    columns = columns_of(predictor, dataset)
    sample_ids = dataset.sample_ids(split)
    if len(sample_ids) == 0:
        raise MismatchError(f"{dataset.path}: split {split} has no image; choose another --split")
    logits = split_logits(predictor, dataset, sample_ids, f"{dataset.name} {split}")
    # In the memory layout of the pipeline's evaluation, whose sums then round alike.
    return measures_of(np.ascontiguousarray(logits[:, columns]), dataset.labels[sample_ids].astype(np.int64))


def measures_of(logits: Float32[np.ndarray, "sample class"], labels: Int64[np.ndarray, " sample"]) -> Measures:
    """Measures of logits.

    Raises:
        ValueError: a logit is NaN, or there is no sample.
    """
    return Measures(
        len(labels),
        top_k_hits(logits, labels, 1).top1,
        top_k_hits(logits, labels, 5).top1,
        negative_log_likelihood(logits, labels),
        expected_calibration_error(logits, labels),
    )


def negative_log_likelihood(logits: Float32[np.ndarray, "sample class"], labels: Int64[np.ndarray, " sample"]) -> float:
    """Mean of -log p of the true class, nats."""
    return -float(log_softmax(logits, 1.0)[np.arange(len(labels)), labels].mean())


def columns_of(predictor: Predictor, dataset: Dataset) -> list[int]:
    """For each class of the data set, the output of the model for it; found by name.

    Raises:
        MismatchError: the classes, the size or the channels are others.
    """
    description = predictor.description
    wanted, given = description.preprocessing, dataset
    shape = (wanted.channels, wanted.image_size)
    if shape != (given.channels, given.image_size):
        raise MismatchError(
            f"{dataset.path}: holds images of {given.channels}×{given.image_size}², the model takes "
            f"{shape[0]}×{shape[1]}²; pack a data set with channels: {shape[0]} and image_size: {shape[1]}"
        )
    if dataset.class_names == description.classes:
        return list(range(len(description.classes)))
    _check_same_names(description.classes, dataset)
    return [description.classes.index(name) for name in dataset.class_names]


def _check_same_names(classes: tuple[str, ...], dataset: Dataset) -> None:
    names = dataset.class_names
    lacking, more = sorted(set(names) - set(classes)), sorted(set(classes) - set(names))
    if lacking or more:
        parts = [
            f"{len(found)} {where}, first {found[0]!r}"
            for found, where in ((lacking, "only in the data set"), (more, "only in the model"))
            if found
        ]
        raise MismatchError(f"{dataset.path}: other classes than the model's: {'; '.join(parts)}; both must be equal")
    if len(set(names)) < len(names) or len(set(classes)) < len(classes):
        raise MismatchError(f"{dataset.path}: a class name is there twice, so that outputs cannot be found by name")
