"""Knobs of `curves:`: what a training shows of itself on its way. They are no job's knobs: looking re-runs nothing."""

from typing import Annotated

from pydantic import Field

from edpipe.params.base import Knobs


class CurveKnobs(Knobs):
    """What is written while teachers and students are trained."""

    points: Annotated[int, Field(ge=0, le=10_000)] = Field(
        20, description="Rows of each curve: mean loss since the row before, learning rate, accuracy. 0: no curves."
    )
    validation_images: Annotated[int, Field(ge=0)] = Field(
        0,
        description="At each point so many images of the validation split, evenly spread, are shown to the network. "
        "0: none.",
    )
