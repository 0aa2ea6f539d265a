"""Knobs of `soft_labels:`: which views of each image are shown to teachers and students, and how logits are stored."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edpipe.params.base import Knobs


class PadCrop(Knobs):
    """Pad by zeros, crop back to size at any offset, flip or not: a finite space of views."""

    kind: Literal["pad_crop"]
    padding: Annotated[int, Field(ge=0, le=32)] = Field(4, description="Pixels on each side.")
    flip: bool = Field(True, description="Mirror left-right in half of the views.")


class ResizedCrop(Knobs):
    """A random box, resized to image_size, flipped or not: for large images."""

    kind: Literal["resized_crop"]
    min_area: Annotated[float, Field(gt=0, le=1)] = Field(0.25, description="Smallest share of the image in the box.")
    max_stretch: Annotated[float, Field(ge=1, le=4)] = Field(4 / 3, description="Largest ratio of the box's sides.")
    flip: bool = Field(True, description="Mirror left-right in half of the views.")


Augment = Annotated[PadCrop | ResizedCrop, Field(discriminator="kind")]


class ViewKnobs(Knobs):
    """Which augmented versions of an image exist; teachers and students see these and no others."""

    augment: Augment = Field(description="How a view is made from an image.")
    views: Literal["all"] | Annotated[int, Field(ge=1, le=100_000)] = Field(
        description="all: every view of a finite space; a number: so many, drawn once for each image."
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Of the drawn views.")

    @model_validator(mode="after")
    def _enumerable(self) -> "ViewKnobs":
        if self.views == "all" and self.augment.kind != "pad_crop":
            raise ValueError("views: all needs augment.kind pad_crop, whose views can be counted; give a number")
        return self


def unlimited_views(augment: PadCrop | ResizedCrop) -> ViewKnobs:
    """Every view there is, or as many as can be numbered: for training without a store of soft labels."""
    return ViewKnobs(augment=augment, views="all" if augment.kind == "pad_crop" else 100_000, seed=0)


class SoftLabelKnobs(Knobs):
    """Views of one dataset, and how teachers' logits on them are stored."""

    views: ViewKnobs = Field(description="What teachers and students see.")
    precision: Literal["float32", "float16", "uint8"] = Field(
        "uint8", description="Of the stored logits; uint8 has a scale and a zero for each row."
    )
    max_kl: Annotated[float, Field(gt=0)] = Field(
        1e-2, description="A dump whose certified KL error at temperature 4 is larger is refused; nats."
    )
