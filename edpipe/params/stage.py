"""Knobs of one stage: its budget and learning rate."""

from typing import Annotated

from pydantic import Field, model_validator

from edpipe.params.base import Knobs


class StageKnobs(Knobs):
    """Budget and learning rate of one stage."""

    epochs: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        None, description="Passes over the taught subsets; may be a fraction."
    )
    images: Annotated[int, Field(ge=1, le=10**12)] | None = Field(
        None, description="Instead of epochs: images seen in the stage."
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.1, description="At the peak of the schedule.")

    @model_validator(mode="after")
    def _one_budget(self) -> "StageKnobs":
        if (self.epochs is None) == (self.images is None):
            raise ValueError("give epochs or images, exactly one of them")
        return self
