"""Knobs of `soft_labels:`: which views of each image there are, which of them students see, how logits are stored."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edpipe.params.base import Knobs
from edpipe.params.partition import PartitionKnobs

MOST_VIEWS = 100_000


class ColourJitter(Knobs):
    """Brightness, contrast, saturation and hue changed in an order that is drawn, each by a factor that is drawn."""

    brightness: Annotated[float, Field(ge=0, lt=1)] = Field(0.4, description="Factor from 1 - this to 1 + this.")
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(0.4, description="Factor from 1 - this to 1 + this.")
    saturation: Annotated[float, Field(ge=0, lt=1)] = Field(0.4, description="Factor from 1 - this to 1 + this.")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="Shift from -this to this, in turns.")


class RandAugment(Knobs):
    """RandAugment (Cubuk et al. 2020): so many operations, drawn from its fourteen, all at one magnitude."""

    num_ops: Annotated[int, Field(ge=1, le=8)] = Field(2, description="Operations on each image, one after the other.")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="Strength of each, 0 to 30.")


class _Colour(Knobs):
    """What may follow a crop."""

    jitter: ColourJitter | None = Field(None, description="Colour changes after the crop; absent: none.")
    rand_augment: RandAugment | None = Field(None, description="RandAugment after the crop; absent: none.")


class PadCrop(_Colour):
    """Pad by zeros, crop back to size at any offset, flip or not: a finite space of views."""

    kind: Literal["pad_crop"]
    padding: Annotated[int, Field(ge=0, le=32)] = Field(4, description="Pixels on each side.")
    flip: bool = Field(True, description="Mirror left-right in half of the views.")


class ResizedCrop(_Colour):
    """A random box, resized to image_size, flipped or not: for large images."""

    kind: Literal["resized_crop"]
    min_area: Annotated[float, Field(gt=0, le=1)] = Field(0.25, description="Smallest share of the image in the box.")
    max_stretch: Annotated[float, Field(ge=1, le=4)] = Field(4 / 3, description="Largest ratio of the box's sides.")
    flip: bool = Field(True, description="Mirror left-right in half of the views.")


Augment = Annotated[PadCrop | ResizedCrop, Field(discriminator="kind")]


def is_finite(augment: PadCrop | ResizedCrop) -> bool:
    """Whether all views of an image can be counted through."""
    return augment.kind == "pad_crop" and augment.jitter is None and augment.rand_augment is None


class Mixing(Knobs):
    """Views made of two images of the teacher's subset, mixup or cutmix; partner and share are drawn."""

    mixup: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="Alpha of the Beta distribution of the share in mixup (Zhang et al. 2018); 0: no mixup."
    )
    cutmix: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="Alpha of the Beta distribution of the share in cutmix (Yun et al. 2019); 0: no cutmix."
    )
    probability: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Share of views that are mixed at all.")

    @model_validator(mode="after")
    def _mixes(self) -> "Mixing":
        if self.mixup == 0 and self.cutmix == 0:
            raise ValueError("mixup and cutmix are both 0; give one of them, or leave mixing out")
        return self


class ViewSpace(Knobs):
    """What a numbered view of an image is; it fixes the pixels that teachers and students see."""

    augment: Augment = Field(description="How a view is made from an image.")
    mixing: Mixing | None = Field(None, description="Mix each view with another image's; absent: no mixing.")
    exhaustive: bool = Field(
        False, description="true: the views are all there are, counted through; false: each is drawn from the seed."
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Of drawn views.")

    @model_validator(mode="after")
    def _countable(self) -> "ViewSpace":
        if self.exhaustive and not (is_finite(self.augment) and self.mixing is None):
            raise ValueError(
                "exhaustive: true needs views that can be counted: augment.kind pad_crop without jitter, rand_augment "
                "and mixing; use exhaustive: false and give views.number"
            )
        return self


class ViewUse(Knobs):
    """How many views of each image exist, how students go through them, and how they are spread over files."""

    number: Annotated[int, Field(ge=1, le=MOST_VIEWS)] | None = Field(
        None, description="Drawn views of each image; absent for an exhaustive space, which has its own number."
    )
    choice: Literal["random", "cycle"] = Field(
        "random", description="random: a view is drawn anew in each epoch; cycle: each view once before any twice."
    )
    per_file: Annotated[int, Field(ge=1, le=MOST_VIEWS)] = Field(
        8,
        description="Views in one file; files are dumped as separate jobs, and more views leave full files alone. "
        "For an exhaustive space larger files cost fewer starts.",
    )


class HintKnobs(Knobs):
    """Features of one stage of the teacher, for students that imitate them (FitNet, Romero et al. 2015)."""

    feature_stage: Annotated[int, Field(ge=1, le=99)] = Field(description="Which feature stage, from 1.")
    side: Annotated[int, Field(ge=1, le=128)] | None = Field(
        None,
        description="To save space, a larger map is averaged down to side × side; absent: every map is kept whole, as "
        "the loss of the sources needs it.",
    )


class StorageKnobs(Knobs):
    """How a teacher's outputs are stored."""

    precision: Literal["float32", "float16", "uint8", "uint4", "top_k", "sampled"] = Field(
        "uint8",
        description="uint8, uint4: codes with a scale and a zero for each row; top_k: the largest logits, and one "
        "value for the rest; sampled: classes drawn from the teacher's softmax, an unbiased estimate.",
    )
    max_kl: Annotated[float, Field(gt=0)] | None = Field(
        1e-2,
        description="A dump whose certified KL error at temperature 4 is larger is refused, nats; null: any error.",
    )
    top_k: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None, description="top_k only: how many of the largest logits are kept."
    )
    draws: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None, description="sampled only: classes drawn for each row."
    )
    temperature: Annotated[float, Field(gt=0)] | None = Field(
        None, description="sampled only: the temperature of the softmax drawn from; students must train at the same."
    )
    attention: bool = Field(
        False,
        description="Store attention maps beside the logits (float16): of networks for small images those that "
        "published code compares, of others one for each feature stage.",
    )
    hint: HintKnobs | None = Field(
        None, description="Store the features of one stage beside the logits (float16); absent: none."
    )

    @model_validator(mode="after")
    def _belongs_to_precision(self) -> "StorageKnobs":
        wanted = {"top_k": ("top_k",), "sampled": ("draws", "temperature")}.get(self.precision, ())
        for name in ("top_k", "draws", "temperature"):
            if (getattr(self, name) is not None) != (name in wanted):
                need = "needs" if name in wanted else "has no"
                raise ValueError(
                    f"precision: {self.precision} {need} {name}; {'give' if name in wanted else 'remove'} it"
                )
        if self.precision == "sampled" and self.max_kl is not None:
            raise ValueError(
                "precision: sampled is an estimate, no error is certified; give max_kl: null to accept that"
            )
        return self


class StudentViews(Knobs):
    """The views that a student sees."""

    space: ViewSpace
    number: int | None
    choice: Literal["random", "cycle"]


def every_view(space: ViewSpace) -> StudentViews:
    """All views that have a number in this space: for who does not know how many of them are used."""
    return StudentViews(space=space, number=None if space.exhaustive else MOST_VIEWS, choice="random")


def unlimited_views(space: ViewSpace) -> StudentViews:
    """Every view there is, or as many as can be numbered: for training without a store of soft labels."""
    is_countable = is_finite(space.augment) and space.mixing is None
    return every_view(space.model_copy(update={"exhaustive": is_countable}))


class SoftLabelKnobs(Knobs):
    """Views of one dataset, and how teachers' outputs on them are stored."""

    space: ViewSpace = Field(description="What a view is.")
    views: ViewUse = Field(description="How many there are, and how students go through them.")
    storage: StorageKnobs = Field(description="How teachers' outputs are stored.")

    @model_validator(mode="after")
    def _numbered_once(self) -> "SoftLabelKnobs":
        if self.space.exhaustive == (self.views.number is not None):
            raise ValueError(
                "views.number: an exhaustive space has its own number of views; remove it"
                if self.space.exhaustive
                else "views.number: missing; say how many views of each image to draw, or set space.exhaustive: true"
            )
        return self

    @property
    def student_views(self) -> StudentViews:
        """What students of these soft labels see."""
        return StudentViews(space=self.space, number=self.views.number, choice=self.views.choice)


@dataclass(frozen=True)
class DumpKnobs:
    """Knobs of one dump of soft labels; how many views there are is none: more of them leave a file as it is."""

    space: ViewSpace
    storage: StorageKnobs
    min_top1: float


@dataclass(frozen=True)
class VerifyKnobs:
    """Knobs of the verification of one teacher's soft labels."""

    views: ViewUse


@dataclass(frozen=True)
class ConfusionJobKnobs:
    """Knobs of one partition by what a teacher confuses."""

    partition: PartitionKnobs
    space: ViewSpace
