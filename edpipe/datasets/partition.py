"""Which classes each school level introduces: every class in exactly one subset."""

import difflib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edpipe.errors import ParamsError
from edpipe.params.base import canonical_json
from edpipe.params.partition import ALL_CLASSES, PartitionKnobs


def class_bounds(num_classes: int, ratio: Sequence[int]) -> tuple[int, ...]:
    """Where each subset's classes begin and end, half-open; the last bound is num_classes.

    >>> class_bounds(100, (1, 1, 1))
    (0, 33, 66, 100)

    Raises:
        ValueError: a ratio below 1, or a subset that would get no class.
    """
    if not ratio or min(ratio) < 1:
        raise ValueError(f"ratio must be whole numbers of at least 1, got {list(ratio)}")
    bounds = tuple(sum(ratio[:k]) * num_classes // sum(ratio) for k in range(len(ratio) + 1))
    if any(start == stop for start, stop in pairwise(bounds)):
        raise ValueError(
            f"ratio {list(ratio)} leaves a subset without a class: {num_classes} classes give bounds {bounds}"
        )
    return bounds


@dataclass(frozen=True)
class Partition:
    """The classes of one dataset, dealt out to subsets; disjoint, and covering every class."""

    dataset_digest: str
    subsets: tuple[str, ...]
    """In the order in which a school teaches them."""
    class_ids: Mapping[str, tuple[int, ...]]
    """Of each subset, ascending."""

    @property
    def digest(self) -> str:
        """16 hex digits; equal for equal partitions of equal datasets."""
        return hashlib.sha256(canonical_json(self.contents()).encode()).hexdigest()[:16]

    def contents(self) -> dict[str, object]:
        """Plain values that say it all."""
        ids = {name: list(self.class_ids[name]) for name in self.subsets}
        return {"dataset_digest": self.dataset_digest, "subsets": list(self.subsets), "class_ids": ids}

    def classes_of(self, subsets: Sequence[str]) -> tuple[int, ...]:
        """Classes of these subsets together, ascending; "all" is every class.

        Raises:
            ValueError: no such subset.
        """
        names = self.subsets if ALL_CLASSES in subsets else subsets
        unknown = [name for name in names if name not in self.class_ids]
        if unknown:
            raise ValueError(f"no subset named {unknown[0]!r}; there are {list(self.subsets)}")
        return tuple(sorted({class_id for name in names for class_id in self.class_ids[name]}))


def make_partition(
    knobs: PartitionKnobs, class_names: Sequence[str], dataset_digest: str, class_order: Sequence[int] | None = None
) -> Partition:
    """Deals the classes out as the knobs say.

    Args:
        knobs: how.
        class_names: of all classes, by id.
        dataset_digest: of the dataset whose classes they are.
        class_order: the classes in the order in which ratio cuts them; wanted with `knobs.confusion` alone.

    Raises:
        ParamsError: the ratio does not fit the classes; a listed class is unknown, listed twice, or not at all.
        ValueError: a class order without confusion knobs, or the other way round.
    """
    if (class_order is None) != (knobs.confusion is None):
        raise ValueError(f"confusion knobs and a class order belong together, got {knobs.confusion} and {class_order}")
    if knobs.classes is not None:
        # Of equal names the first is meant.
        id_of = {name: class_id for class_id, name in reversed(list(enumerate(class_names)))}
        chosen = {name: _resolve(name, knobs.classes[name], class_names, id_of) for name in knobs.subsets}
    else:
        chosen = _by_ratio(knobs, len(class_names), class_order)
    _check_once(chosen, class_names)
    ids = {name: tuple(sorted(chosen[name])) for name in knobs.subsets}
    return Partition(dataset_digest, knobs.subsets, ids)


def bounds_of(knobs: PartitionKnobs, num_classes: int) -> tuple[int, ...]:
    """Where each subset begins and ends in an order of the classes; the last bound is num_classes.

    Raises:
        ParamsError: the ratio does not fit the classes.
    """
    try:
        return class_bounds(num_classes, knobs.ratio or (1,) * len(knobs.subsets))
    except ValueError as error:
        raise ParamsError(
            f"partition: {error}; use fewer subsets, or a ratio that gives each at least one class"
        ) from error


def _by_ratio(knobs: PartitionKnobs, num_classes: int, class_order: Sequence[int] | None) -> dict[str, Sequence[int]]:
    bounds = bounds_of(knobs, num_classes)
    order = _class_order(num_classes, knobs.class_order_seed) if class_order is None else class_order
    return {name: order[bounds[k] : bounds[k + 1]] for k, name in enumerate(knobs.subsets)}


def _class_order(num_classes: int, seed: int | None) -> list[int]:
    """Classes in the dataset's order, or shuffled; the shuffle depends on nothing but seed and class id."""
    if seed is None:
        return list(range(num_classes))
    return sorted(range(num_classes), key=lambda class_id: hashlib.sha256(f"{seed}/{class_id}".encode()).digest())


def _resolve(
    subset: str, names: Sequence[str | int], class_names: Sequence[str], id_of: Mapping[str, int]
) -> list[int]:
    """Class ids of names; a whole number is an id, unless a class has it as its name."""
    ids = []
    for name in names:
        if str(name) in id_of:
            ids.append(id_of[str(name)])
        elif isinstance(name, int) and 0 <= name < len(class_names):
            ids.append(name)
        else:
            raise ParamsError(f"partition.classes.{subset}: no class {name!r}; {_near(str(name), class_names)}")
    return ids


def _check_once(chosen: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> None:
    counts = Counter(class_id for ids in chosen.values() for class_id in ids)
    twice = [class_names[class_id] for class_id, count in counts.items() if count > 1]
    if twice:
        raise ParamsError(f"partition.classes: class '{twice[0]}' is listed more than once; each belongs to one subset")
    missing = [name for class_id, name in enumerate(class_names) if class_id not in counts]
    if missing:
        raise ParamsError(
            f"partition.classes: class '{missing[0]}' is in no subset ({len(missing)} such); list every class"
        )


def _near(name: str, class_names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, class_names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"classes are {_some(class_names)}"


def _some(class_names: Sequence[str]) -> str:
    shown = ", ".join(class_names[:8])
    return shown if len(class_names) <= 8 else f"{shown} … ({len(class_names)} in all)"
