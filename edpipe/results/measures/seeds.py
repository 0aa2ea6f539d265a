"""What is summed over the seeds of an experiment: mean and spread, budget, the table of the accuracy matrix."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edpipe.results.measures.metrics import mean_and_spread

SHOWN_BY_DVC = ("top1", "val_top1", "ece")


def summarise(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and 95 % interval over seeds."""
    every = [seed["metrics"] for seed in seeds]
    names = ("top1", "top5", "ece", "val_top1", "backward_transfer")
    groups = {name: _spreads([metrics[name] for metrics in every]) for name in ("agreement", "forgetting")}
    return _spreads([{name: metrics[name] for name in names} for metrics in every]) | groups


def _spreads(seeds: list[dict[str, float | None]]) -> dict[str, Any]:
    """Of each number by its name; left out where there is none, which is so in all seeds or in none."""
    names = [name for name, value in seeds[0].items() if value is not None]
    return {name: asdict(mean_and_spread([seed[name] for seed in seeds])) for name in names}  # type: ignore[misc]


def budget_of(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """What the experiment cost; images and compute are per seed, teacher forwards over all seeds."""
    stages = seeds[0]["stages"]
    # By their files: all seeds share soft labels, but each has its own trajectory.
    uses = [use for seed in seeds for stage in seed["stages"] for use in stage["soft_labels"]]
    dumped = {tuple(use["digests"]): use["teacher_forwards"] for use in uses}
    online = sum(
        _num_teachers_per_image(plan) * stage["images_seen"]
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


def _num_teachers_per_image(plan: dict[str, Any]) -> int:
    """Teachers that each image of a stage is shown to: of specialists the one that knows its class."""
    return len({use["teacher"] for use in plan["teachers"]}) + bool(plan.get("trajectory"))


def curve_csv(result: Mapping[str, Any]) -> str:
    """A result's accuracy matrix: a row for each (seed, stage, subset) that had been taught, in that order.

    `images_seen` counts from the first stage on.
    """
    subsets = [subset["name"] for subset in result["data"]["subsets"]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seed", "stage", "images_seen", "subset", "top1"])
    for seed in result["seeds"]:
        images_seen = 0
        for stage in seed["stages"]:
            images_seen += stage["images_seen"]
            for subset in subsets:
                if (top1 := stage["top1_by_subset"][subset]) is not None:
                    writer.writerow([seed["seed"], stage["name"], images_seen, subset, top1])
    return text.getvalue()


def metrics_json(result: Mapping[str, Any]) -> str:
    """The numbers of a result that `dvc metrics` shows: means over seeds, the spread of top1, and the budget."""
    summary = result["summary"]
    numbers = {name: summary[name]["mean"] for name in SHOWN_BY_DVC if name in summary}
    numbers |= {"top1_std": summary["top1"]["std"], "images_seen": result["budget"]["images_seen"]}
    return json.dumps({name: value for name, value in numbers.items() if value is not None}, indent=1) + "\n"
