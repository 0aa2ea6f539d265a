"""A network's forward pass in its recipe's precision: in training, in dumping and in measuring alike."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.params.recipe import RecipeKnobs


def forward(
    network: nn.Module, images: Float[Tensor, "sample channel height width"], recipe: RecipeKnobs
) -> Float[Tensor, "sample class"]:
    """Logits in float32, computed in the recipe's precision."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = network(images)
    return logits.float()
