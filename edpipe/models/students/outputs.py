"""What a student's forward pass gives: logits, and what only its training needs."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.params.recipe import RecipeKnobs


class TeskdOutputs(NamedTuple):
    """What a network and its students say of a batch; the students from the deepest to the shallowest."""

    logits: Float[Tensor, "sample class"]
    """Of the backbone."""
    student_logits: list[Float[Tensor, "sample class"]]
    features: Float[Tensor, "sample channel"]
    """Mean of the backbone's deepest feature map."""
    student_features: list[Float[Tensor, "sample channel"]]
    """What each student's classifier sees."""


class StudentOutputs(NamedTuple):
    """What a student gives for a batch of images."""

    logits: Float[Tensor, "sample class"]
    maps: tuple[Float[Tensor, "sample _ _"], ...] = ()
    """Attention maps of its feature stages, in order."""
    earlier: tuple[Float[Tensor, "sample _"], ...] = ()
    """Logits of earlier references, in order."""
    hint: Float[Tensor, "sample channel height width"] | None = None
    """Features of one stage, made as small as the teacher's hint and brought to its channels."""


def student_outputs(
    network: nn.Module, images: Float[Tensor, "sample channel height width"], recipe: RecipeKnobs
) -> StudentOutputs | TeskdOutputs:
    """What a student says, aided or not, computed in the recipe's precision; logits in float32 but for TESKD's."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        given = network(images)
    if isinstance(given, TeskdOutputs):
        return given
    if not isinstance(given, StudentOutputs):
        return StudentOutputs(given.float())
    hint = None if given.hint is None else given.hint.float()
    return StudentOutputs(given.logits.float(), given.maps, tuple(logits.float() for logits in given.earlier), hint)
