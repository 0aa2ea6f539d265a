"""What a network says of images as they are, without augmentation: what is measured, not taught."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from edpipe.datasets.dataset_file import Dataset
from edpipe.models.forward import forward
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import PadCrop
from edpipe.runtime.device import prepare_device
from edpipe.views.axes import SampleIds
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.resizing import resized
from edpipe.views.spec import ViewSpec

EVALUATION_BATCH = 256
"""Images that go through a network together."""
UNCHANGED = PadCrop(kind="pad_crop", padding=0, flip=False, jitter=None, rand_augment=None)
"""The augmentation with a single view, the image itself."""


@dataclass(frozen=True)
class PlainImages:
    """Images of a dataset, normalised as a network wants them: mean and std of each channel, pixels from 0 to 1."""

    dataset: Dataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None = None
    """To which they are made smaller, pixels; None: the dataset's."""


def plain_logits(
    network: nn.Module, recipe: RecipeKnobs, images: PlainImages, sample_ids: SampleIds
) -> Float32[np.ndarray, "sample class"]:
    """Logits of at least one image, in the order of the ids; the network stays on its device, in evaluation mode."""
    dataset = images.dataset
    batches = ViewBatches(dataset, ViewSpec(UNCHANGED, 1, True, 0, dataset.image_size), prepare_device())
    network.to(batches.device).to(memory_format=torch.channels_last).eval()
    parts = []
    with torch.inference_mode():
        for ids in np.split(sample_ids, range(EVALUATION_BATCH, len(sample_ids), EVALUATION_BATCH)):
            plain = resized(batches.plain(ids), images.image_size or dataset.image_size)
            pixels = normalise(plain, images.mean, images.std)
            parts.append(forward(network, pixels, recipe).cpu().numpy())
    return np.concatenate(parts)
