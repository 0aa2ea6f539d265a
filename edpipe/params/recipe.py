"""Knobs of `recipes:`: how weights are fitted, shared by teachers and students that name them."""

from typing import Annotated, Literal

from pydantic import Field

from edpipe.params.base import Knobs

Fraction = Annotated[float, Field(ge=0, le=1)]


class RecipeKnobs(Knobs):
    """How weights are fitted; the learning rate and the budget stand with each stage or teacher."""

    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="From torch.optim.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="sgd only.")
    nesterov: bool = Field(True, description="sgd only.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(5e-4, description="Of all weights.")
    batch_size: Annotated[int, Field(ge=2)] = Field(64, description="Images per iteration.")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "cosine", description="How the learning rate falls over the window of the stage."
    )
    milestones: Annotated[tuple[Fraction, ...], Field(strict=False)] = Field(
        (0.625, 0.75, 0.875),
        description="step only: fractions of the window after which the rate is multiplied by gamma.",
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="step only.")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Fraction of the window over which the rate rises linearly from near 0."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: autocast of the forward pass; weights stay float32."
    )
