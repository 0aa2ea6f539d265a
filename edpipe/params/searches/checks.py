"""Checks of `searches:`: every trial must be an experiment that could stand in params.yaml.

What is wrong with a trial is said of the search: nobody knows the names of trials.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from edpipe.errors import ParamsError, nearest
from edpipe.params.experiment import ExperimentKnobs
from edpipe.params.lineage import check_teachers_of
from edpipe.params.problems import error_lines
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.references import check_experiment
from edpipe.params.schema import Params
from edpipe.params.searches.knobs import SearchKnobs
from edpipe.params.searches.trials import TRIAL_PATTERN, Trial, Varied, make_trial, varied, whole

MOST_POINTS = 10_000
"""Of a grid: each is looked at whenever params.yaml is read."""
MOST_TRIALS = 1_000
NOT_VARIED = {
    "dataset": "trials are compared on one data set; write a search for each",
    "seeds": "write seeds of the search instead",
}
"""Knobs of an experiment that no search varies, and what to do instead."""


def check_searches(params: Params) -> None:
    """That every search can be made.

    Raises:
        ParamsError: with one line for the first thing that cannot.
    """
    for name, search in params.searches.items():
        _check_search(params, f"searches.{name}", name, search)
    with said_of_searches(params):
        for trials in params.trials.values():
            for trial in trials:
                check_experiment(params.with_trials, trial.name)
                check_teachers_of(params.with_trials, trial.name)


def _check_search(params: Params, where: str, name: str, search: SearchKnobs) -> None:
    if search.experiment not in params.experiments:
        known = nearest(search.experiment, params.experiments)
        raise ParamsError(f"{where}.experiment: '{search.experiment}' is not in experiments{known}")
    if (other := f"search_{name}") in params.experiments:
        raise ParamsError(f"{where}: results/{other}.json belongs to experiments.{other}; rename one of the two")
    _check_seeds(params, where, search)
    _check_size(where, search)
    _check_paths(params, where, search)
    _check_points(params, where, search)


def _check_seeds(params: Params, where: str, search: SearchKnobs) -> None:
    own = params.experiments[search.experiment].seeds
    for seed in search.seeds:
        if seed in own:
            raise ParamsError(
                f"{where}.seeds: {seed} is a seed of experiment '{search.experiment}' too; the students that choose "
                f"the knobs must not be those that are reported; give others than {list(own)}"
            )


def _check_size(where: str, search: SearchKnobs) -> None:
    size = search.num_points
    if size > MOST_POINTS:
        raise ParamsError(
            f"{where}.over: the grid has {size:,} points; at most {MOST_POINTS:,} are allowed; give fewer values"
        )
    if search.trials is not None and search.trials > size:
        raise ParamsError(
            f"{where}.trials: {search.trials:,} are more than the {size:,} points of the grid; give at most {size:,}, "
            "or more values"
        )
    if (wanted := search.trials or size) > MOST_TRIALS:
        raise ParamsError(f"{where}: {wanted:,} trials; at most {MOST_TRIALS:,} are allowed; give fewer in trials")


def _check_paths(params: Params, where: str, search: SearchKnobs) -> None:
    base = params.experiments[search.experiment]
    known = whole(base, params.recipes)
    for path in search.over:
        if path.split(".")[0] in NOT_VARIED:
            raise ParamsError(f"{where}.over.{path}: cannot be varied; {NOT_VARIED[path.split('.')[0]]}")
        if not any(path.startswith(f"{outer}.") for outer in search.over):
            _check_path(f"{where}.over.{path}", path, known, search.experiment, _mappings(base))


def _mappings(base: ExperimentKnobs) -> set[str]:
    """Paths of the method's knobs that are mappings of names, such as `method.easiest`: any name may stand there."""
    return {f"method.{name}" for name, value in base.method if isinstance(value, Mapping)}


def _check_path(where: str, path: str, known: Any, experiment: str, mappings: set[str]) -> None:
    """Every part of the path is a knob, with those that have a default; below a group that is absent anything may be.

    Raises:
        ParamsError: naming the first part that is none.
    """
    parts = path.split(".")
    for number, part in enumerate(parts):
        if known in (None, {}) or ".".join(parts[:number]) in mappings:
            return
        inside = _parts(known)
        if part not in inside:
            hint = nearest(part, inside) if inside else "; it has no parts"
            raise ParamsError(f"{where}: experiment '{experiment}' has no such knob: '{part}' is unknown{hint}")
        known = inside[part]


def _parts(known: object) -> Mapping[str, Any]:
    if isinstance(known, list):
        return {str(number): one for number, one in enumerate(known)}
    return known if isinstance(known, dict) else {}


def _check_points(params: Params, where: str, search: SearchKnobs) -> None:
    first: dict[str, Mapping[str, Any]] = {}
    for point in search.points():
        trial = _trial(params, where, search, point)
        if trial.name in first:
            raise ParamsError(
                f"{where}.over: {shown(first[trial.name])} and {shown(point)} are the same trial; remove one of these "
                "values"
            )
        first[trial.name] = point


def _trial(params: Params, where: str, search: SearchKnobs, point: Mapping[str, Any]) -> Trial:
    try:
        raw = varied(params.experiments[search.experiment], params.recipes, point)
    except KeyError as error:
        place, name = error.args
        known = nearest(str(name), params.recipes)
        raise ParamsError(_line(where, point, f"{place}: {name!r} is not in recipes{known}")) from None
    except LookupError as error:
        raise ParamsError(f"{where}.over: with {shown(point)}: no place {error.args[0]!r} in a value") from None
    try:
        return make_trial(search.experiment, search, raw, point)
    except ValidationError:
        raise ParamsError(*(_line(where, point, problem) for problem in _problems(raw))) from None


def _problems(raw: Varied) -> Iterator[str]:
    """What knobs refuse, each with its place in the experiment, as far as recipes are part of that."""
    parts = [("experiments", ExperimentKnobs, "", raw.experiment)]
    parts += [("recipes", RecipeKnobs, f"{place}.", recipe) for place, recipe in raw.recipes.items()]
    for section, kind, prefix, value in parts:
        try:
            kind.model_validate(value)
        except ValidationError as error:
            items = [{**item, "loc": (section, "x", *item["loc"])} for item in error.errors()]
            for line in error_lines({section: {"x": value}}, items):
                yield prefix + line.removeprefix(f"{section}.x").removeprefix(".")


def _line(where: str, point: Mapping[str, Any], problem: str) -> str:
    """A problem of a trial, which begins with its place in the experiment, as one of the search."""
    place = problem.partition(":")[0]
    if any(place == path or place.startswith(f"{path}.") for path in point):
        return f"{where}.over.{problem}"
    return f"{where}.over: with {shown(point)}: {problem.removeprefix(': ')}"


def shown(point: Mapping[str, Any]) -> str:
    """The values of a point in one line.

    >>> shown({"stages.only.learning_rate": 0.1, "recipe.batch_size": 32})
    'stages.only.learning_rate 0.1, recipe.batch_size 32'
    """
    return ", ".join(f"{path} {value}" for path, value in point.items())


_NAMED = re.compile(rf"experiments\.({TRIAL_PATTERN})\.?")


@contextmanager
def said_of_searches(params: Params) -> Iterator[None]:
    """Errors inside of the block that are of trials name their searches instead."""
    try:
        yield
    except ParamsError as error:
        lines = _of_searches(params, error.lines)
        if lines == error.lines:
            raise
        raise ParamsError(*lines) from None


def _of_searches(params: Params, lines: Iterable[str]) -> tuple[str, ...]:
    searches = {trial.name: (name, trial) for name, trials in params.trials.items() for trial in trials}
    return tuple(dict.fromkeys(_of_search(searches, line) for line in lines))


def _of_search(searches: Mapping[str, tuple[str, Trial]], line: str) -> str:
    found = _NAMED.match(line)
    if found is None or found[1] not in searches:
        return line
    name, trial = searches[found[1]]
    # The trial may be named again in the reason.
    return _line(f"searches.{name}", trial.values, line[found.end() :].replace(found[0], ""))
