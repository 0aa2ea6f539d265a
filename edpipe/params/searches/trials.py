"""The trials of searches: experiments that follow from params.yaml and stand nowhere in it.

A trial is named after all that it trains, `<experiment>-<digest>`, so that a wider search finds the students of a
narrower one, and equal trials of two searches are one. No entry of params.yaml can have a name with a hyphen.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from edpipe.params.base import Knobs, canonical_json
from edpipe.params.experiment import ExperimentKnobs
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.searches.knobs import SearchKnobs

RECIPE = "recipe"
"""Where an experiment names its recipe; paths that go on reach into the recipe itself."""
DIGEST_LETTERS = 10
TRIAL_PATTERN = "[a-z][a-z0-9_]*-" + "[0-9a-f]" * DIGEST_LETTERS


@dataclass(frozen=True)
class Trial:
    """One point of a search as an experiment with recipes of its own."""

    name: str
    values: Mapping[str, Any]
    """By path: what was varied."""
    experiment: ExperimentKnobs
    """With the seeds of the search; recipes that were varied are named after the trial."""
    recipes: Mapping[str, RecipeKnobs]
    """Those that were varied, by name."""


@dataclass(frozen=True)
class Varied:
    """A point as it would stand in params.yaml, not yet checked."""

    experiment: dict[str, Any]
    recipes: dict[str, dict[str, Any]]
    """By place: those that paths reach into, and that of the experiment."""
    varied_places: tuple[str, ...]
    """Of recipes that paths reach into."""


def given(knobs: Knobs, only_set: bool = True) -> dict[str, Any]:
    """Knobs as they stand in params.yaml; or, if not `only_set`, with all defaults filled in.

    A method is written by itself: fields of registered classes always show their defaults.
    """
    raw = knobs.model_dump(mode="json", exclude={"method"}, exclude_unset=only_set)
    method = getattr(knobs, "method", None)
    return raw if method is None else raw | {"method": method.model_dump(mode="json", exclude_unset=only_set)}


def whole(experiment: ExperimentKnobs, recipes: Mapping[str, RecipeKnobs]) -> dict[str, Any]:
    """All knobs that a path may name, with all defaults: the experiment's, and at `recipe` those of the recipe."""
    found = given(experiment, only_set=False)
    for stage in found["stages"].values():
        stage[RECIPE] = given(recipes[stage[RECIPE] or experiment.recipe], only_set=False)
    return found | {RECIPE: given(recipes[experiment.recipe], only_set=False)}


def recipe_place(path: str) -> tuple[str, list[str]] | None:
    """Of a path that reaches into a recipe: where the recipe is named, and the path inside of it.

    >>> recipe_place("recipe.batch_size"), recipe_place("stages.only.recipe.gamma"), recipe_place("recipe")
    (('recipe', ['batch_size']), ('stages.only.recipe', ['gamma']), None)
    """
    match path.split("."):
        case ["recipe", *rest] if rest:
            return RECIPE, rest
        case ["stages", stage, "recipe", *rest] if rest:
            return f"stages.{stage}.{RECIPE}", rest
    return None


def set_value(raw: Any, parts: Sequence[str], value: object, defaults: Any) -> None:
    """Sets the value at a place inside of mappings and lists, in place.

    Args:
        raw: as in params.yaml; groups that are not there are taken from `defaults`.
        parts: the path, of one part or more.
        value: a copy of it is set.
        defaults: the same with all defaults, as far as it is there.

    Raises:
        LookupError: a list has no such element, or something on the way has no parts.
    """
    first, *rest = parts
    key: Any = first if isinstance(raw, dict) else _position(raw, first)
    if not rest:
        raw[key] = deepcopy(value)
        return
    inner = defaults.get(first) if isinstance(defaults, dict) else None
    if isinstance(raw, dict) and raw.get(key) is None:
        raw[key] = deepcopy(inner) if inner is not None else {}
    set_value(raw[key], rest, value, inner)


def _position(raw: object, part: str) -> int:
    if isinstance(raw, list) and part.isdecimal() and int(part) < len(raw):
        return int(part)
    raise LookupError(part)


def varied(base: ExperimentKnobs, recipes: Mapping[str, RecipeKnobs], point: Mapping[str, Any]) -> Varied:
    """The experiment and its recipes with the values of a point.

    Raises:
        KeyError: a recipe that is reached into is not there; the place and the name.
        LookupError: see `set_value`.
    """
    experiment, defaults = given(base), given(base, only_set=False)
    # What is inside of another varied value comes after it; what is inside of recipes after their names.
    for path in sorted(point, key=lambda path: path.count(".")):
        if recipe_place(path) is None:
            set_value(experiment, path.split("."), point[path], defaults)
    found = {RECIPE: _copied(recipes, RECIPE, experiment.get(RECIPE))}
    places = dict.fromkeys(place[0] for path in point if (place := recipe_place(path)))
    for path in sorted(point, key=lambda path: (path.count("."), path)):
        if (place := recipe_place(path)) is not None:
            where, inside = place
            if where not in found:
                named = _stage_of(experiment, where).get(RECIPE)
                found[where] = deepcopy(found[RECIPE]) if named is None else _copied(recipes, where, named)
            set_value(found[where], inside, point[path], given(RecipeKnobs.model_validate({}), only_set=False))
    return Varied(experiment, found, tuple(places))


def _copied(recipes: Mapping[str, RecipeKnobs], place: str, name: object) -> dict[str, Any]:
    if not isinstance(name, str) or name not in recipes:
        raise KeyError(place, name)
    return given(recipes[name])


def _stage_of(experiment: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """The stage whose recipe stands at a place."""
    stage = experiment["stages"].get(place.split(".")[1], {})
    return stage if isinstance(stage, dict) else {}


def make_trial(base_name: str, search: SearchKnobs, raw: Varied, point: Mapping[str, Any]) -> Trial:
    """The trial of one point.

    Raises:
        ValidationError: a knob refuses its value.
    """
    experiment = ExperimentKnobs.model_validate(raw.experiment)
    recipes = {place: RecipeKnobs.model_validate(one) for place, one in raw.recipes.items()}
    name = f"{base_name}-{_digest(experiment, recipes)}"
    own = {place: f"{name}.{place}" for place in raw.varied_places}
    stages = {
        stage: knobs.model_copy(update={RECIPE: own.get(f"stages.{stage}.{RECIPE}", knobs.recipe)})
        for stage, knobs in experiment.stages.items()
    }
    changes = {"seeds": search.seeds, "stages": stages, RECIPE: own.get(RECIPE, experiment.recipe)}
    made = {own[place]: recipes[place] for place in own}
    return Trial(name, dict(point), experiment.model_copy(update=changes), made)


def _digest(experiment: ExperimentKnobs, recipes: Mapping[str, RecipeKnobs]) -> str:
    """Of all that these say, however it was said; not of seeds, nor of what varied recipes are called."""
    raw = experiment.model_dump(mode="json", exclude={"seeds", RECIPE, "method"}, exclude_defaults=True)
    used = {place: recipe.model_dump(mode="json", exclude_defaults=True) for place, recipe in recipes.items()}
    for stage, knobs in raw["stages"].items():
        if (place := f"stages.{stage}.{RECIPE}") in used:
            knobs.pop(RECIPE, None)
            if used[place] == used[RECIPE]:
                del used[place]  # as if it had none of its own
    if all(f"stages.{stage}.{RECIPE}" in used or RECIPE in knobs for stage, knobs in raw["stages"].items()):
        del used[RECIPE]  # no stage is trained by it
    text = canonical_json([raw, experiment.method.model_dump(mode="json", exclude_defaults=True), used])
    return sha256(text.encode()).hexdigest()[:DIGEST_LETTERS]


def trials_of(
    search: SearchKnobs, experiments: Mapping[str, ExperimentKnobs], recipes: Mapping[str, RecipeKnobs]
) -> tuple[Trial, ...]:
    """The trials of a search that was found sound, in the order of the grid."""
    base = experiments[search.experiment]
    return tuple(
        make_trial(search.experiment, search, varied(base, recipes, point), point) for point in search.points()
    )


def united(trials: Iterable[Trial]) -> dict[str, Trial]:
    """By name, each trial once; of one that several searches have, with the seeds of all."""
    found: dict[str, Trial] = {}
    for trial in trials:
        known = found.setdefault(trial.name, trial)
        seeds = tuple(dict.fromkeys([*known.experiment.seeds, *trial.experiment.seeds]))
        if seeds != known.experiment.seeds:
            found[trial.name] = replace(known, experiment=known.experiment.model_copy(update={"seeds": seeds}))
    return found
