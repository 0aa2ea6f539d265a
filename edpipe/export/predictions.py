"""The most probable classes of images from files, a batch at a time."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from edpipe.errors import printable
from edpipe.export.images import ImageBatch, Unreadable, image_batches
from edpipe.export.network import Predictor
from edpipe.runtime.progress import LINE_EVERY_S, announce
from edpipe.soft_labels.encoding.softmax import log_softmax


@dataclass(frozen=True)
class Prediction:
    """One image and its most probable classes, or what is wrong with it.

    Attributes:
        image: As it was named, on one line.
        classes: Name and probability, the most probable first; of equal ones the lower output.
        problem: Empty: none.
    """

    image: str
    classes: tuple[tuple[str, float], ...] = ()
    problem: str = ""


def predictions(predictor: Predictor, names: Sequence[str], batch_size: int, top: int) -> Iterator[Prediction]:
    """One for each name; how fast it goes is said on standard error.

    Args:
        predictor: the model.
        names: of files, or `-`.
        batch_size: images that go through the network together.
        top: classes for each image.
    """
    pace = _Pace(len(names))
    for batch in image_batches(names, predictor.description.preprocessing, batch_size):
        found = list(_of_batch(predictor, batch, top))
        pace.count(len(found))
        yield from found
    pace.close()


def _of_batch(predictor: Predictor, batch: ImageBatch | Unreadable, top: int) -> Iterator[Prediction]:
    if isinstance(batch, Unreadable):
        yield Prediction(_on_one_line(batch.name), problem=batch.reason)
        return
    shares = np.exp(log_softmax(predictor.logits(batch.pixels), 1.0))
    for name, row in zip(batch.names, shares, strict=True):
        yield Prediction(_on_one_line(name), most_probable(predictor.description.classes, row, top))


def most_probable(
    classes: Sequence[str], shares: Float64[np.ndarray, " class"], top: int
) -> tuple[tuple[str, float], ...]:
    """Names and probabilities of the most probable classes; of equal ones the lower output comes first.

    >>> most_probable(("cat", "dog", "owl"), np.array([0.25, 0.5, 0.25]), 2)
    (('dog', 0.5), ('cat', 0.25))
    """
    order: list[int] = np.argsort(-shares, kind="stable")[:top].tolist()
    return tuple((classes[i], float(shares[i])) for i in order)


def _on_one_line(name: str) -> str:
    return printable(name.encode(errors="backslashreplace").decode())


class _Pace:
    """Lines on standard error, as show_progress has them in a log; a bar would catch what is printed meanwhile."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._started_s = self._said_s = time.perf_counter()

    def count(self, number: int) -> None:
        self._done += number
        if time.perf_counter() - self._said_s >= LINE_EVERY_S:
            self._said_s = time.perf_counter()
            announce(self._line())

    def close(self) -> None:
        announce(self._line())

    def _line(self) -> str:
        elapsed_s = time.perf_counter() - self._started_s
        rate = self._done / max(elapsed_s, 1e-9)
        return f"{self._done:,}/{self._total:,} images in {elapsed_s:.2f} s, {rate:,.0f} images/s"
