"""Trials of one search in the order of their mean top1 on the validation split, as facts and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edpipe.params.base import canonical_json
from edpipe.params.searches.knobs import SearchJobKnobs, TrialKnobs
from edpipe.results.comparison.study_table import TERA, percent
from edpipe.results.measures.cost import CostPart, duration, sum_costs
from edpipe.results.measures.metrics import mean_and_spread

SEARCH_FORMAT = "edpipe-search"
SEARCH_FORMAT_VERSION = 1
COST_KEYS = ("seconds", "cpu_seconds", "artifacts", "with_figures")
Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""By trial: what `measure_on_validation` gives for each seed, in the order of the search's seeds."""


def search_facts(name: str, knobs: SearchJobKnobs, rows: Rows) -> dict[str, Any]:
    """All numbers of a search but what it cost in time; of equal means, the trial that the grid has first is first."""
    trials = [_trial_facts(trial, rows[trial.name]) for trial in knobs.trials]
    trials.sort(key=lambda trial: -trial["val_top1"]["mean"])
    students = [row for trial in knobs.trials for row in rows[trial.name]]
    return {
        "format": SEARCH_FORMAT,
        "format_version": SEARCH_FORMAT_VERSION,
        "search": name,
        "experiment": knobs.search.experiment,
        "split": "val",
        "val_samples": students[0]["val_samples"],
        "grid_points": knobs.search.num_points,
        "num_trials": len(trials),
        "drawn_by": None if knobs.search.trials is None else knobs.search.seed,
        "best": {key: trials[0][key] for key in ("trial", "values", "val_top1")},
        "trials": trials,
        "budget": {"students": len(students)}
        | {key: sum(row[key] for row in students) for key in ("images_seen", "training_macs")},
    }


def _trial_facts(trial: TrialKnobs, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "trial": trial.name,
        "values": dict(trial.values),
        "val_top1": asdict(mean_and_spread([row["val_top1"] for row in rows])),
        "images_seen": sum(row["images_seen"] for row in rows),
        "training_macs": sum(row["training_macs"] for row in rows),
        "seeds": [dict(row) for row in rows],
    }


def rows_of(contents: Mapping[str, Any]) -> Rows:
    """What was measured, out of a search's file."""
    return {trial["trial"]: trial["seeds"] for trial in contents["trials"]}


def search_cost(parts: Mapping[str, Sequence[CostPart]]) -> dict[str, Any]:
    """What the training of all students took, together and for each trial; null where nobody noted it.

    `parts`: by trial, of every stage of every student.
    """
    every = [part for of_trial in parts.values() for part in of_trial]
    return {**_sum(every), "trials": {trial: _sum(of_trial) for trial, of_trial in parts.items()}}


def _sum(parts: Sequence[CostPart]) -> dict[str, Any]:
    found = sum_costs(parts)
    return {key: found[key] for key in COST_KEYS}


def search_table(contents: Mapping[str, Any]) -> str:
    """A Markdown table of a search's file: a row for each trial, and what all of them took; intervals are of 95 %."""
    paths = sorted(contents["trials"][0]["values"])
    head = ["#", *(f"`{path}`" for path in paths), "n", "top1, val %", "images", "compute, TMAC", "CPU s"]
    rows = [head, ["---:"] * len(head)]
    costs = contents["cost"]["trials"]
    rows += [
        [str(number), *(_shown(trial["values"][path]) for path in paths), *_cells(trial, costs[trial["trial"]])]
        for number, trial in enumerate(contents["trials"], start=1)
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return table + "".join(f"\n{line}\n" for line in _lines(contents))


def _shown(value: object) -> str:
    """As in params.yaml; a group in one order of its keys, since the file, which sorts them, must give this table."""
    return value if isinstance(value, str) else canonical_json(value)


def _cells(trial: Mapping[str, Any], cost: Mapping[str, Any]) -> list[str]:
    return [
        str(len(trial["seeds"])),
        percent(trial["val_top1"]),
        f"{trial['images_seen']:,}",
        f"{trial['training_macs'] / TERA:.3g}",
        "–" if cost["cpu_seconds"] is None else f"{cost['cpu_seconds']:,.0f}",
    ]


def _lines(contents: Mapping[str, Any]) -> list[str]:
    budget, cost, chosen = contents["budget"], contents["cost"], contents["num_trials"]
    grid = f"all {chosen} points of the grid"
    if contents["drawn_by"] is not None:
        grid = f"{chosen} of {contents['grid_points']} points of the grid, drawn by seed {contents['drawn_by']}"
    lines = [
        f"Knobs of experiment {contents['experiment']}: {grid}. Judged by {contents['val_samples']:,} validation "
        "images; the test split was not read.",
        f"The search took {budget['students']} students, {budget['images_seen']:,} images, "
        f"{budget['training_macs'] / TERA:.3g} TMAC{_time(cost)}.",
    ]
    if cost["with_figures"] < cost["artifacts"]:
        unknown = cost["artifacts"] - cost["with_figures"]
        lines.append(
            f"Nobody noted what {unknown} of {cost['artifacts']} trained stages took; they are not in the times."
        )
    return lines


def _time(cost: Mapping[str, Any]) -> str:
    return "" if cost["seconds"] is None else f", {cost['cpu_seconds']:,.0f} CPU seconds in {duration(cost['seconds'])}"
