"""Whether what a result or a study sums up is what is computed again from what it sums up."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edpipe.errors import CorruptFileError, remake
from edpipe.results.measures.seeds import budget_of, summarise

TOLERANCE = 1e-9
"""Relative, and absolute about 0: another SciPy may round a quantile of Student's t otherwise."""


def check_summed_up(path: Path, contents: Mapping[str, Any]) -> None:
    """That the summary and the budget of a result are those of its seeds.

    Raises:
        CorruptFileError: naming the first number that is not.
    """
    seeds = [{**seed, "setup": contents["setup"]} for seed in contents["seeds"]]
    try:
        again = {"summary": summarise(seeds), "budget": budget_of(seeds)}
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: its seeds do not belong together ({error!r}); {remake(path)}") from error
    check_equal(path, {name: contents[name] for name in again}, again, "its seeds")


def check_equal(path: Path, found: object, again: object, source: str) -> None:
    """That what stands in a file is what was computed again, up to rounding.

    Raises:
        CorruptFileError: naming the first place that differs, and what it was computed from.
    """
    place = first_difference(found, again)
    if place is not None:
        where, value, expected = place
        raise CorruptFileError(
            f"{path}: {where or 'the whole'} is {_shown(value)}, computed again from {source} it is "
            f"{_shown(expected)}; {remake(path)}"
        )


def first_difference(found: object, again: object, place: str = "") -> tuple[str, object, object] | None:
    """The dotted place where two JSON values first differ by more than rounding, and both values; None: nowhere.

    >>> first_difference({"a": [1, 2.0]}, {"a": [1, 2.5]})
    ('a.1', 2.0, 2.5)
    >>> first_difference({"a": 0.3}, {"a": 0.1 + 0.2})
    """
    one, other = _parts(found), _parts(again)
    if one is None or other is None:
        return None if _are_equal(found, again) else (place, found, again)
    for name in one | other:
        inner = f"{place}.{name}" if place else name
        if difference := first_difference(one.get(name, _ABSENT), other.get(name, _ABSENT), inner):
            return difference
    return None


_ABSENT = "absent"


def _parts(value: object) -> dict[str, object] | None:
    if isinstance(value, list | tuple):
        return {str(number): part for number, part in enumerate(value)}
    return dict(value) if isinstance(value, Mapping) else None


def _are_equal(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(one) is type(other) and one == other


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
