"""Knobs of one stage: its budget, learning rate, and what else may differ from stage to stage."""

from typing import Annotated

from pydantic import Field, model_validator

from edpipe.params.base import Knobs
from edpipe.params.partition import Name

_BUDGETS = ("epochs", "images", "compute")


class StageKnobs(Knobs):
    """Budget and learning rate of one stage; the size of its images, and its recipe, where they are its own."""

    epochs: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        None, description="Passes over the taught subsets; may be a fraction."
    )
    images: Annotated[int, Field(ge=2, le=10**12)] | None = Field(
        None, description="Instead of epochs: images seen in the stage."
    )
    compute: Annotated[int, Field(ge=1, le=10**12)] | None = Field(
        None,
        description="Instead of epochs: the compute of training the whole student on so many images of full size, in "
        "multiply-accumulates. A stage with fewer blocks or smaller images sees more images for it.",
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.1, description="At the peak of the schedule.")
    image_size: Annotated[int, Field(ge=4, le=4096)] | None = Field(
        None,
        description="Side of the images in this stage, pixels: views are made as always, then resized. Soft labels "
        "stay those of the whole view. Absent: that of the data set, which the last stage must have.",
    )
    recipe: Name | None = Field(None, description="One of recipes, for this stage; absent: the experiment's.")

    @model_validator(mode="after")
    def _one_budget(self) -> "StageKnobs":
        given = [name for name in _BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of epochs, images and compute, got {' and '.join(given) or 'none'}")
        return self
