"""Gathers the seeds of one experiment into results/<experiment>.json, and its accuracy matrix into a table."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edpipe.cost import Part, sum_costs
from edpipe.errors import CorruptFileError, MismatchError
from edpipe.metrics import mean_and_spread
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.records import make_record, read_record, write_record
from edpipe.storage.result_file import RESULT_FORMAT, RESULT_FORMAT_VERSION

SEED_KEYS = ("seed", "metrics", "stages", "code", "versions")
"""What is kept of each seed's evaluation; the rest is the same for all."""


def result(
    experiment: str,
    method: str,
    evaluation_paths: tuple[Path, ...],
    costs: Sequence[Part],
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
        summary=_summary(seeds),
        budget=_budget(seeds),
        cost=sum_costs(costs),
        data=seeds[0]["data"],
        setup=seeds[0]["setup"],
        teachers=seeds[0]["teachers"],
        seeds=[{name: seed[name] for name in SEED_KEYS} for seed in seeds],
    )
    write_text_atomically(curve_path, _curve(seeds))
    write_record(out_path, contents)


def _read_evaluation(path: Path) -> dict[str, Any]:
    record = read_record(path)
    missing = [name for name in (*SEED_KEYS, "inputs", "data", "setup", "teachers") if name not in record]
    if record.get("step") != "evaluate" or missing:
        raise CorruptFileError(
            f"{path}: not an evaluation of this version (step {record.get('step')!r}, missing keys: "
            f"{', '.join(missing) or 'none'}); make it again with `snakemake --force {path}`"
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


def _summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and 95 % interval over seeds."""
    every = [seed["metrics"] for seed in seeds]
    names = ("top1", "top5", "ece", "val_top1", "backward_transfer")
    groups = {name: _spreads([metrics[name] for metrics in every]) for name in ("agreement", "forgetting")}
    return _spreads([{name: metrics[name] for name in names} for metrics in every]) | groups


def _spreads(seeds: list[dict[str, float | None]]) -> dict[str, Any]:
    """Of each number by its name; left out where there is none, which is so in all seeds or in none."""
    names = [name for name, value in seeds[0].items() if value is not None]
    return {name: asdict(mean_and_spread([seed[name] for seed in seeds])) for name in names}  # type: ignore[misc]


def _budget(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """What the experiment cost; images and compute are per seed, teacher forwards over all seeds."""
    stages = seeds[0]["stages"]
    # By their files: all seeds share soft labels, but each has its own trajectory.
    uses = [use for seed in seeds for stage in seed["stages"] for use in stage["soft_labels"]]
    dumped = {tuple(use["digests"]): use["teacher_forwards"] for use in uses}
    online = sum(
        _num_asked(plan) * stage["images_seen"]
        for seed in seeds
        for plan, stage in zip(seed["setup"]["stages"], seed["stages"], strict=True)
    )
    return {
        "images_seen": sum(stage["images_seen"] for stage in stages),
        "training_macs": sum(stage["training_macs"] for stage in stages),
        "student_parameters": stages[-1]["parameters"],
        "student_macs": stages[-1]["macs"],
        "teacher_forwards_spent": sum(dumped.values()),
        "teacher_forwards_online": online,
        "teacher_forwards_saved": online - sum(dumped.values()),
    }


def _num_asked(plan: dict[str, Any]) -> int:
    """Teachers that each image of a stage is shown to: of specialists the one that knows its class."""
    return len({use["teacher"] for use in plan["teachers"]}) + bool(plan.get("trajectory"))


def _curve(seeds: list[dict[str, Any]]) -> str:
    """The accuracy matrix, a row for each (seed, stage, subset) that had been taught, in the order of teaching."""
    subsets = [subset["name"] for subset in seeds[0]["data"]["subsets"]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seed", "stage", "subset", "top1"])
    for seed in seeds:
        for stage in seed["stages"]:
            for subset in subsets:
                if stage["top1_by_subset"][subset] is not None:
                    writer.writerow([seed["seed"], stage["name"], subset, stage["top1_by_subset"][subset]])
    return text.getvalue()
