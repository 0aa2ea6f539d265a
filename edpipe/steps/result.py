"""Gathers the seeds of one experiment into results/<experiment>.json, and its accuracy matrix into a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edpipe.errors import CorruptFileError, MismatchError, remake
from edpipe.params.experiment import ResultKnobs
from edpipe.results.measures.cost import CostPart, sum_costs
from edpipe.results.measures.seeds import budget_of, curve_csv, summarise
from edpipe.results.result_file import RESULT_FORMAT, RESULT_FORMAT_VERSION
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.job import Job
from edpipe.storage.records import make_record, read_record, write_record

SEED_KEYS = ("seed", "metrics", "stages", "code", "versions")
"""What is kept of each seed's evaluation; the rest is the same for all."""


def run(job: Job[ResultKnobs], costs: Sequence[CostPart]) -> None:
    """Runs a job of this step; `costs` are of everything that the experiment needed."""
    experiment, method = str(job.arguments["experiment"]), job.knobs.method
    result(experiment, method, job.inputs["evaluations"], costs, *job.outputs)


def result(
    experiment: str,
    method: str,
    evaluation_paths: tuple[Path, ...],
    costs: Sequence[CostPart],
    out_path: Path,
    curve_path: Path,
) -> None:
    """Writes the result and the table of its accuracy matrix.

    `costs` are of everything that the experiment needed; two equal runs may differ in them, and in nothing else.

    Raises:
        CorruptFileError: an evaluation is damaged.
        MismatchError: seeds that were measured on different data, or taught differently, or by different teachers.
    """
    seeds = [_read_evaluation(path) for path in evaluation_paths]
    _check_same_data(evaluation_paths, seeds)
    _check_same_setup(evaluation_paths, seeds)
    _check_same_teachers(evaluation_paths, seeds)
    contents = make_record(
        "result",
        {},
        {name: seeds[0]["inputs"][name] for name in ("dataset", "partition")},
        format=RESULT_FORMAT,
        format_version=RESULT_FORMAT_VERSION,
        experiment=experiment,
        method=method,
        summary=summarise(seeds),
        budget=budget_of(seeds),
        cost=sum_costs(costs),
        data=seeds[0]["data"],
        setup=seeds[0]["setup"],
        teachers=seeds[0]["teachers"],
        seeds=[{name: seed[name] for name in SEED_KEYS} for seed in seeds],
    )
    write_text_atomically(curve_path, curve_csv(seeds))
    write_record(out_path, contents)


def _read_evaluation(path: Path) -> dict[str, Any]:
    record = read_record(path)
    missing = [name for name in (*SEED_KEYS, "inputs", "data", "setup", "teachers") if name not in record]
    if record.get("step") != "evaluate" or missing:
        raise CorruptFileError(
            f"{path}: not an evaluation of this version (step {record.get('step')!r}, missing keys: "
            f"{', '.join(missing) or 'none'}); {remake(path)}"
        )
    return record


def _check_same_data(paths: tuple[Path, ...], seeds: list[dict[str, Any]]) -> None:
    for path, seed in zip(paths, seeds, strict=True):
        for name in ("dataset", "partition"):
            if seed["inputs"][name] != seeds[0]["inputs"][name]:
                raise MismatchError(
                    f"{path}: measured on {name} {seed['inputs'][name]}, the first seed on {seeds[0]['inputs'][name]}; "
                    "evaluate all seeds again"
                )


def _check_same_setup(paths: tuple[Path, ...], seeds: list[dict[str, Any]]) -> None:
    for path, seed in zip(paths, seeds, strict=True):
        for name, knobs in seeds[0]["setup"].items():
            if seed["setup"].get(name) != knobs:
                raise MismatchError(
                    f"{path}: was taught with other {name} knobs than the first seed; run its stages again"
                )


def _check_same_teachers(paths: tuple[Path, ...], seeds: list[dict[str, Any]]) -> None:
    """Equal numbers alone would not do: others may have named other classes as often rightly."""
    for path, seed in zip(paths, seeds, strict=True):
        found, first = (one["inputs"].get("teacher_evaluations") for one in (seed, seeds[0]))
        if (found, seed["teachers"]) != (first, seeds[0]["teachers"]):
            raise MismatchError(
                f"{path}: its teachers are not those of the first seed, or were measured anew; evaluate all seeds again"
            )
