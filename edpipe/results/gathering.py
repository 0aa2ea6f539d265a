"""A result from the evaluations of its seeds: what the step `result` writes and what `edpipe verify` computes again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edpipe.errors import CorruptFileError, MismatchError, remake
from edpipe.params.plans.plan import plan_as_now
from edpipe.results.measures.seeds import budget_of, summarise
from edpipe.results.result_file import RESULT_FORMAT, RESULT_FORMAT_VERSION
from edpipe.storage.records import read_record, seal_of

SEED_KEYS = ("seed", "metrics", "stages", "code", "versions")
"""What is kept of each seed's evaluation; the rest is the same for all."""


def gathered(experiment: str, method: str, evaluation_paths: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that a result has of its evaluations: digests of what it is made from, and its contents but the cost.

    Raises:
        CorruptFileError: an evaluation is damaged.
        MismatchError: seeds that were measured on different data, or taught differently, or by different teachers.
    """
    records = [_read_evaluation(path) for path in evaluation_paths]
    seeds = [record | {"setup": _setup_as_now(record["setup"])} for record in records]
    named = list(zip(evaluation_paths, seeds, strict=True))
    _check_same_data(named)
    _check_same_setup(named)
    _check_same_teachers(named)
    inputs: dict[str, Any] = {name: seeds[0]["inputs"][name] for name in ("dataset", "partition")}
    contents = {
        "format": RESULT_FORMAT,
        "format_version": RESULT_FORMAT_VERSION,
        "experiment": experiment,
        "method": method,
        "summary": summarise(seeds),
        "budget": budget_of(seeds),
        **{name: seeds[0][name] for name in ("data", "setup", "teachers")},
        "seeds": [{name: seed[name] for name in SEED_KEYS} for seed in seeds],
    }
    return inputs | {"evaluations": [seal_of(record) for record in records]}, contents


def _setup_as_now(setup: Mapping[str, Any]) -> dict[str, Any]:
    """What was trained, in today's words, for evaluations of before and of now to be held side by side."""
    return {**setup, "stages": [plan_as_now(plan) for plan in setup["stages"]]}


def _read_evaluation(path: Path) -> dict[str, Any]:
    record = read_record(path)
    missing = [name for name in (*SEED_KEYS, "inputs", "data", "setup", "teachers") if name not in record]
    if record.get("step") != "evaluate" or missing:
        raise CorruptFileError(
            f"{path}: not an evaluation of this version (step {record.get('step')!r}, missing keys: "
            f"{', '.join(missing) or 'none'}); {remake(path)}"
        )
    return record


Named = Sequence[tuple[Path, Mapping[str, Any]]]


def _check_same_data(named: Named) -> None:
    first = named[0][1]["inputs"]
    for path, seed in named:
        for name in ("dataset", "partition"):
            if seed["inputs"][name] != first[name]:
                raise MismatchError(
                    f"{path}: measured on {name} {seed['inputs'][name]}, the first seed on {first[name]}; "
                    "evaluate all seeds again"
                )


def _check_same_setup(named: Named) -> None:
    first = named[0][1]["setup"]
    for path, seed in named:
        for name in {**first, **seed["setup"]}:
            if seed["setup"].get(name) != first.get(name):
                raise MismatchError(
                    f"{path}: was taught with other {name} knobs than the first seed; run its stages again"
                )


def _check_same_teachers(named: Named) -> None:
    """Equal numbers alone would not do: others may have named other classes as often rightly."""
    for path, seed in named:
        found, first = (one["inputs"].get("teacher_evaluations") for one in (seed, named[0][1]))
        if (found, seed["teachers"]) != (first, named[0][1]["teachers"]):
            raise MismatchError(
                f"{path}: its teachers are not those of the first seed, or were measured anew; evaluate all seeds again"
            )
