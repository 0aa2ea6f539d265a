"""What a set of views is: augmentation, mixing, seed and image size; and ranges of views."""

from dataclasses import dataclass

from edpipe.params.base import canonical_json
from edpipe.params.soft_labels import Mixing, PadCrop, ResizedCrop, StudentViews
from edpipe.views.axes import Views

# One is raised whenever the same (spec, sample id, view) comes to mean other pixels; stored logits of another rule do
# not fit. resized_crop 2: resized by whole numbers, not by float32.
VIEW_RULES = {"pad_crop": 1, "resized_crop": 2}


@dataclass(frozen=True)
class ViewSpec:
    """A space of views.

    Attributes:
        augment: how a view is made from an image.
        mixing: how it is mixed with another image's; None: not at all.
        num_views: of each image; views are numbered 0 … num_views-1.
        exhaustive: the views are all there are, each once; otherwise they are drawn.
        seed: of drawn views; without effect on exhaustive ones.
        image_size: side of the square that networks see, in pixels.
    """

    augment: PadCrop | ResizedCrop
    num_views: int
    exhaustive: bool
    seed: int
    image_size: int
    mixing: Mixing | None = None

    @classmethod
    def from_knobs(cls, knobs: StudentViews, image_size: int) -> "ViewSpec":
        """The views that the knobs ask for; those of an exhaustive space are counted."""
        space = knobs.space
        return cls(space.augment, count_views(knobs), space.exhaustive, space.seed, image_size, space.mixing)

    def canonical(self) -> str:
        """One text for equal views; it is stored with logits, and views of another text do not fit them.

        The number of views is not in it: more of them leave those that there are as they are.
        """
        return canonical_json(
            {
                "augment": self.augment.model_dump(mode="json"),
                "mixing": self.mixing and self.mixing.model_dump(mode="json"),
                "exhaustive": self.exhaustive,
                "seed": None if self.exhaustive else self.seed,
                "image_size": self.image_size,
                "view_rule": VIEW_RULES[self.augment.kind],
            }
        )


def count_views(knobs: StudentViews) -> int:
    """How many views of each image there are: the number asked for, or all of a finite space."""
    augment = knobs.space.augment
    if knobs.number is not None:
        return knobs.number
    if not isinstance(augment, PadCrop):
        raise ValueError(f"views of kind {augment.kind} cannot be counted")
    return (2 * augment.padding + 1) ** 2 * (2 if augment.flip else 1)


@dataclass(frozen=True)
class ViewRange:
    """Views first … stop-1, those of one soft-label file.

    >>> str(ViewRange(0, 8)), ViewRange.parse("8-15")
    ('0-7', ViewRange(first=8, stop=16))
    """

    first: int
    stop: int

    def __str__(self) -> str:
        return f"{self.first}-{self.stop - 1}"

    @property
    def num_views(self) -> int:
        """How many."""
        return self.stop - self.first

    @classmethod
    def parse(cls, text: str) -> "ViewRange":
        """The range that a file name or an option gives, its last view included.

        Raises:
            ValueError: not two whole numbers, the first not the larger, with a hyphen between.
        """
        first, hyphen, last = text.partition("-")
        if not (hyphen and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise ValueError(f"views must be FIRST-LAST, such as 0-7, got {text!r}")
        return cls(int(first), int(last) + 1)


def view_ranges(num_views: int, per_file: int) -> tuple[ViewRange, ...]:
    """The files over which so many views are spread; more views leave full files as they are.

    >>> [str(views) for views in view_ranges(20, 8)]
    ['0-7', '8-15', '16-19']
    """
    return tuple(ViewRange(first, min(first + per_file, num_views)) for first in range(0, num_views, per_file))


def check_views(spec: ViewSpec, views: Views) -> None:
    """Nothing, if all of them are views of the spec.

    Raises:
        ValueError: a view outside [0, spec.num_views).
    """
    if len(views) and not 0 <= views.min() <= views.max() < spec.num_views:
        raise ValueError(f"views must be in [0, {spec.num_views}), got {views.min()} to {views.max()}")
