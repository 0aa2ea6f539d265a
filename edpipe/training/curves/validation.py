"""Validation accuracy on the way: a look at a network in training that leaves it, and all chance, as they were."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from edpipe.models.students.outputs import student_outputs
from edpipe.params.recipe import RecipeKnobs
from edpipe.results.measures.metrics import Hits, top_k_hits
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.resizing import resized

MOST_TOGETHER = 256
"""Images that go through the network together; fewer where it is trained on fewer, as memory may allow no more."""
Validate = Callable[[nn.Module, int], float | None]
"""Of a network and the number of images to show it at most: its top1, from 0 to 1; None without images or logits."""


def validation_of(
    batches: ViewBatches,
    class_ids: Sequence[int] | Int64[np.ndarray, " class"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    recipe: RecipeKnobs,
    image_size: int | None = None,
) -> Validate:
    """How a training measures its network on the way.

    Args:
        batches: of the training; the images are those of the dataset's validation split, without augmentation.
        class_ids: of the network's outputs, ascending; images of other classes are left out.
        mean: of each channel, as the network's input is normalised; pixels from 0 to 1.
        std: the same.
        recipe: whose precision counts.
        image_size: of what the network is trained on, pixels; None: that of the batches.
    """
    known = np.array(class_ids, dtype=np.int64)
    return partial(_top1, batches, known, mean, std, recipe, image_size)


def _top1(
    batches: ViewBatches,
    known: Int64[np.ndarray, " class"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    recipe: RecipeKnobs,
    image_size: int | None,
    network: nn.Module,
    most: int,
) -> float | None:
    dataset, hits, together = batches.dataset, Hits(0, 0), min(MOST_TOGETHER, recipe.batch_size)
    ids = spread(dataset.sample_ids("val", known.tolist()), most)
    # Not inference_mode: what a network keeps from its first call there could not be trained with later.
    with _evaluating(network), torch.no_grad():
        for some in np.split(ids, range(together, len(ids), together)) if len(ids) else ():
            images = normalise(resized(batches.plain(some), image_size or batches.spec.image_size), mean, std)
            logits = getattr(student_outputs(network, images, recipe), "logits", None)
            if not isinstance(logits, Tensor):  # a method's own network gives what its loss takes
                return None
            labels = np.searchsorted(known, dataset.labels[some]).astype(np.int64)
            hits += top_k_hits(logits.float().cpu().numpy(), labels, 1)
    return hits.top1 if hits.total else None


def spread(ids: Int64[np.ndarray, " sample"], most: int) -> Int64[np.ndarray, " some"]:
    """At most so many of them, evenly spread; always the same.

    >>> spread(np.arange(10), 4).tolist(), spread(np.arange(3), 4).tolist()
    ([0, 3, 6, 9], [0, 1, 2])
    """
    return ids[np.linspace(0, len(ids) - 1, most).astype(np.int64)] if most < len(ids) else ids


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, every layer is in evaluation mode, in which batch statistics stay; then in its own again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training
