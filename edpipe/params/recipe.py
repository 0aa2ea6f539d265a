"""Knobs of `recipes:`: how weights are fitted, shared by teachers and students that name them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edpipe.params.base import Knobs

Fraction = Annotated[float, Field(ge=0, le=1)]


class RecipeKnobs(Knobs):
    """How weights are fitted; the learning rate and the budget stand with each stage or teacher."""

    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="From torch.optim.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="sgd only.")
    nesterov: bool = Field(True, description="sgd only.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(5e-4, description="Of the weights that `decay` names.")
    decay: Literal["all", "matrices"] = Field(
        "all", description="matrices: biases, and scales and shifts of normalisation layers, are not decayed."
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(64, description="Images per iteration.")
    schedule: Literal["constant", "cosine", "step", "one_cycle"] = Field(
        "cosine",
        description="How the learning rate changes over the window of the stage. one_cycle: up from 1/25 of the peak "
        "during warmup, then down to 1/250,000, both along half a cosine.",
    )
    milestones: Annotated[tuple[Fraction, ...], Field(strict=False)] = Field(
        (0.625, 0.75, 0.875),
        description="step only: fractions of the window after which the rate is multiplied by gamma.",
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="step only.")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Fraction of the window over which the rate rises from near 0, linearly but in one_cycle."
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Gradients whose norm over all weights is larger are scaled down to it."
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="The result is a running mean of the weights: after each iteration they enter it with 1 - "
        "ema_decay, with more in the first ones.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: autocast of the forward pass; weights stay float32."
    )

    @model_validator(mode="after")
    def _one_cycle_rises(self) -> "RecipeKnobs":
        if self.schedule == "one_cycle" and self.warmup == 0:
            raise ValueError("schedule one_cycle needs a warmup > 0, such as 0.3")
        return self
