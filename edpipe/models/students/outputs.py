"""What a student's forward pass gives: logits, and what only its training needs."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.params.recipe import RecipeKnobs


class StudentOutputs(NamedTuple):
    """What a student gives for a batch of images."""

    logits: Float[Tensor, "sample class"]
    side: Any = None
    """What the side module of the stage's loss gives, such as attention maps; None: there is no such module."""
    earlier: tuple[Float[Tensor, "sample _"], ...] = ()
    """Logits of earlier references, in order."""


def student_outputs(
    network: nn.Module, images: Float[Tensor, "sample channel height width"], recipe: RecipeKnobs
) -> object:
    """What the trained network gives, computed in the recipe's precision.

    `StudentOutputs`, whose logits are float32; of a network of the method's own, what that gives, as it is.
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        given = network(images)
    if isinstance(given, Tensor):
        return StudentOutputs(given.float())
    if not isinstance(given, StudentOutputs):
        return given
    return StudentOutputs(given.logits.float(), given.side, tuple(logits.float() for logits in given.earlier))
