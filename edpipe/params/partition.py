"""Knobs of `partitions:`: which classes each school level introduces."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from edpipe.params.base import Knobs

NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
ALL_CLASSES = "all"
"""Name of the subset that holds every class; no partition may use it."""


class ConfusionKnobs(Knobs):
    """Classes dealt out by how a teacher confuses them, instead of in the dataset's order."""

    teacher: Name = Field(
        description="A teacher of all classes; its verified soft labels of the training images say what it confuses."
    )
    together: bool = Field(
        True, description="true: classes that are confused share a subset; false: they are kept apart."
    )


class PartitionKnobs(Knobs):
    """How the classes are dealt out to an ordered list of subsets."""

    subsets: Annotated[tuple[Name, ...], Field(min_length=1, strict=False)] = Field(
        description="Names of the subsets, in the order in which a school teaches them."
    )
    ratio: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] | None = Field(
        None, description="Relative number of classes of each subset, such as [1, 1, 1]; absent: equal."
    )
    classes: dict[Name, Annotated[tuple[str | int, ...], Field(strict=False)]] | None = Field(
        None, description="Instead of ratio: the class names or class numbers of each subset."
    )
    class_order_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = Field(
        None, description="Shuffles the classes before ratio cuts them; absent: the dataset's own order."
    )
    confusion: ConfusionKnobs | None = Field(
        None, description="Deals the classes out by a teacher's confusions; ratio gives the sizes. Absent: not."
    )

    @model_validator(mode="after")
    def _fits(self) -> "PartitionKnobs":
        if len(set(self.subsets)) != len(self.subsets) or ALL_CLASSES in self.subsets:
            raise ValueError(f"subsets must be distinct and not '{ALL_CLASSES}', got {list(self.subsets)}")
        if self.ratio is not None and self.classes is not None:
            raise ValueError("give ratio or classes, not both")
        if self.ratio is not None and len(self.ratio) != len(self.subsets):
            raise ValueError(f"ratio has {len(self.ratio)} numbers for {len(self.subsets)} subsets")
        if self.classes is not None and set(self.classes) != set(self.subsets):
            raise ValueError(f"classes names {sorted(self.classes)}, subsets names {sorted(self.subsets)}")
        self._check_classes_once()
        if self.classes is not None and self.class_order_seed is not None:
            raise ValueError("class_order_seed belongs to ratio; with classes the order is given")
        if self.confusion is not None and self.classes is not None:
            raise ValueError("confusion deals the classes out; with classes that is done; remove one of the two")
        if self.confusion is not None and self.class_order_seed is not None:
            raise ValueError("confusion gives the classes an order; remove it, or class_order_seed")
        return self

    def _check_classes_once(self) -> None:
        """That each subset lists a class, and none is listed twice; whether they are all is known with the dataset."""
        subset_of: dict[str | int, str] = {}
        for subset, names in (self.classes or {}).items():
            if not names:
                raise ValueError(f"classes.{subset} has no class; give it at least one, or drop the subset")
            for name in names:
                if name in subset_of:
                    raise ValueError(
                        f"classes: {name!r} is listed in {subset_of[name]} and in {subset}; each belongs to one subset"
                    )
                subset_of[name] = subset


@dataclass(frozen=True)
class PartitionJobKnobs:
    """Knobs of one partition of one dataset."""

    partition: PartitionKnobs
