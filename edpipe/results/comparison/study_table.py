"""Results of one study in one table: whether they had equal means, and what each has over the base."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from edpipe.errors import MismatchError
from edpipe.params.study import PlannedTest, StudyKnobs
from edpipe.results.comparison.comparison import (
    ALLOWED_COMPUTE,
    Comparison,
    Entry,
    budget_difference,
    check_comparable,
    comparisons_of,
    difference,
    facts_of,
    recipe_difference,
)
from edpipe.results.comparison.paired_test import holm
from edpipe.results.result_file import Result
from edpipe.storage.digests import digest_json

STUDY_FORMAT = "edpipe-study"
STUDY_FORMAT_VERSION = 4
HEADINGS = (
    "experiment",
    "method",
    "n",
    "top1, test %",
    "top1, val %",
    "test, minus {base}, pp",
    "p (Holm)",
    "ECE %",
    "worst forgetting, pp",
    "images",
    "compute, TMAC",
    "compute ÷ {base}",
    "CPU s",
)
TERA = 10**12
TRAINING_STEP = "run_stage"
BUDGETS = ("epochs", "images", "compute")
OF_BUDGETS = ("window", "span")
"""Of a stage's plan: which part of the schedule and of the training it is, which follows from budgets."""


def check_equal(entries: Sequence[Entry], base: Entry, knobs: StudyKnobs) -> None:
    """Refuses results that had unequal means, where the study does not allow for it.

    Raises:
        MismatchError: datasets, students or recipes differ, or a result has seeds that the base lacks, or numbers of
            training images differ (`images`), or a result had over 0.1 % more compute than the base or over 2 % less
            (`compute`).
    """
    check_comparable(entries, unequal_budgets=True)
    for found in (
        difference("students differ", entries, _format_student),
        recipe_difference(entries) if knobs.recipes == "same" else "",
        _unpaired_seeds(entries, base),
    ):
        if found:
            raise MismatchError(f"{found}; a study compares ways to teach one network; name experiments of one kind")
    alike = [entry for entry in entries if entry.name not in knobs.beside]
    if knobs.equal == "images":
        if found := budget_difference(alike):
            raise MismatchError(f"{found}; give all the same number, or make the study one of equal: compute")
        return
    for entry in alike:
        ratio = entry.result.budget.training_macs / base.result.budget.training_macs
        if not ALLOWED_COMPUTE[0] <= ratio <= ALLOWED_COMPUTE[1]:
            raise MismatchError(
                f"{entry.name}: training took {entry.result.budget.training_macs:,} multiply-accumulates, {ratio:.4f} "
                f"times those of {base.name}; allowed: {ALLOWED_COMPUTE[0]} to {ALLOWED_COMPUTE[1]}; give its stages "
                "compute instead of images, or name it in beside"
            )


def _format_student(result: Result) -> str:
    return f"{result.setup.student.model} with reference {result.setup.student.reference}"


def _unpaired_seeds(entries: Sequence[Entry], base: Entry) -> str:
    """Which results have seeds that the base lacks; empty if none has."""
    for entry in entries:
        lacking = sorted(set(entry.seeds) - set(base.seeds))
        if lacking:
            return f"seeds of {entry.name} that {base.name} lacks: {', '.join(map(str, lacking))}"
    return ""


def study_facts(
    entries: Sequence[Entry],
    base: Entry,
    found: Sequence[Comparison],
    warnings: Sequence[str],
    tests: Sequence[PlannedTest] = (),
) -> dict[str, Any]:
    """All numbers of the study: those of a comparison, of each result its other measures, and of planned tests."""
    facts = facts_of(entries, base, found, warnings)
    rows = [row | _measures(entry) for row, entry in zip(facts["results"], entries, strict=True)]
    facts |= {"format": STUDY_FORMAT, "format_version": STUDY_FORMAT_VERSION, "results": rows}
    return facts | {"tests": planned_tests(entries, tests)}


def planned_tests(entries: Sequence[Entry], tests: Sequence[PlannedTest]) -> list[dict[str, Any]]:
    """Paired differences of the tests that a study was made for; p values adjusted for their number, and no others."""
    by_name = {entry.name: entry for entry in entries}
    found = [comparisons_of([by_name[t.experiment], by_name[t.minus]], by_name[t.minus])[0].paired for t in tests]
    known = [one.p for one in found if one is not None and one.p is not None]
    adjusted = iter(holm(known))
    return [
        {
            "experiment": test.experiment,
            "minus": test.minus,
            "top1_difference": asdict(one.spread) if one else None,
            "t": one.t if one else None,
            "p": one.p if one else None,
            "p_holm": next(adjusted) if one and one.p is not None else None,
        }
        for test, one in zip(tests, found, strict=True)
    ]


def _measures(entry: Entry) -> dict[str, Any]:
    summary, budget = entry.result.summary, entry.result.budget
    return {
        "val_top1": asdict(summary.val_top1) if summary.val_top1 else None,
        "top5": asdict(summary.top5),
        "ece": asdict(summary.ece),
        "forgetting": {subset: asdict(spread) for subset, spread in summary.forgetting.items()},
        "agreement": {teacher: asdict(spread) for teacher, spread in summary.agreement.items()},
        "curve": _curve_of(entry.result),
        "student_parameters": budget.student_parameters,
        "training_cpu_seconds": _training_cpu_seconds(entry.result),
        "teacher_forwards_spent": budget.teacher_forwards_spent,
        "teacher_forwards_online": budget.teacher_forwards_online,
    }


def _curve_of(result: Result) -> str:
    """Digest of what was trained but for its budgets: results with the same one differ in their budgets alone."""
    setup = result.setup.model_dump(mode="json")
    for plan in setup["stages"]:
        plan["budget"] = {name: one for name, one in plan["budget"].items() if name not in BUDGETS}
    stages = [{name: one for name, one in plan.items() if name not in OF_BUDGETS} for plan in setup["stages"]]
    return digest_json([result.method, setup | {"stages": stages}])


def _training_cpu_seconds(result: Result) -> float | None:
    """Of the training of one seed's student, all stages, mean over seeds; None where a part of it is not known."""
    training = result.cost.steps.get(TRAINING_STEP)
    if training is None or training.cpu_seconds is None or training.with_figures < training.artifacts:
        return None
    return round(training.cpu_seconds / len(result.seeds), 1)


def study_table(study: Mapping[str, Any]) -> str:
    """A Markdown table of what `study_facts` gives: a row for each result, and the warnings; intervals are of 95 %."""
    base, by_name = study["base"], {one["name"]: one for one in study["comparisons"]}
    base_macs = {row["name"]: row["training_macs"] for row in study["results"]}[base]
    headings = [heading.format(base=base) for heading in HEADINGS]
    rows = [headings, ["---", "---", *["---:"] * (len(headings) - 2)]]
    rows += [_cells(row, by_name.get(row["name"]), base_macs) for row in study["results"]]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return table + _tests_text(study["tests"]) + "".join(f"\n{warning}\n" for warning in study["warnings"])


def _tests_text(tests: Sequence[Mapping[str, Any]]) -> str:
    """The planned tests, a line each."""
    lines = [
        f"- {test['experiment']} − {test['minus']}: {percent(test['top1_difference'], sign='+')} pp, "
        + ("no p" if test["p"] is None else f"p = {test['p']:.2g}, {test['p_holm']:.2g} after Holm")
        for test in tests
    ]
    return "\nPlanned tests, paired by seed:\n\n" + "".join(f"{line}\n" for line in lines) if lines else ""


def _cells(row: Mapping[str, Any], one: Mapping[str, Any] | None, base_macs: int) -> list[str]:
    lost = [spread["mean"] for spread in row["forgetting"].values()]
    return [
        row["name"],
        row["method"],
        str(len(row["seeds"])),
        percent(row["top1"]),
        percent(row["val_top1"]),
        percent(one["top1_difference"], sign="+") if one else "–",
        f"{one['p_holm']:.2g}" if one and one["p_holm"] is not None else "–",
        f"{row['ece']['mean'] * 100:.2f}",
        f"{max(lost) * 100:+.2f}" if lost else "–",
        f"{row['images_seen']:,}",
        f"{row['training_macs'] / TERA:.3g}",
        f"{row['training_macs'] / base_macs:.3f}",
        "–" if row["training_cpu_seconds"] is None else f"{row['training_cpu_seconds']:,.0f}",
    ]


def percent(spread: Mapping[str, Any] | None, sign: Literal["", "+"] = "") -> str:
    """Mean and half the width of the 95 % interval of a spread's facts, in percent.

    >>> percent({"mean": 0.9, "high": 0.925})
    '90.00 ± 2.50'
    """
    if spread is None:
        return "–"
    mean, high = spread["mean"], spread["high"]
    text = f"{mean * 100:{sign}.2f}"
    return text if high is None else f"{text} ± {(high - mean) * 100:.2f}"
