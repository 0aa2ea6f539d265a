"""Results of one study in one table: whether they had equal means, and what each has over the base."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from edpipe.errors import MismatchError
from edpipe.results.comparison.comparison import (
    Comparison,
    Entry,
    budget_difference,
    check_comparable,
    difference,
    facts_of,
    recipe_difference,
)
from edpipe.results.result_file import Result

ALLOWED_COMPUTE = (0.98, 1.001)
"""Parts of the base's compute that another result may have had: images come in whole numbers, and in round ones."""
STUDY_FORMAT = "edpipe-study"
STUDY_FORMAT_VERSION = 2
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
)
TERA = 10**12


def check_equal(entries: Sequence[Entry], base: Entry, equal: Literal["images", "compute"]) -> None:
    """Refuses results that had unequal means.

    Raises:
        MismatchError: datasets, students, recipes or seeds differ, or numbers of training images do (`images`), or a
            result had over 0.1 % more compute than the base or over 2 % less (`compute`).
    """
    check_comparable(entries, unequal_budgets=True)
    for found in (
        difference("students differ", entries, _format_student),
        recipe_difference(entries),
        difference("seeds differ", entries, _format_seeds),
    ):
        if found:
            raise MismatchError(f"{found}; a study compares ways to teach one network; name experiments of one kind")
    if equal == "images":
        if found := budget_difference(entries):
            raise MismatchError(f"{found}; give all the same number, or make the study one of equal: compute")
        return
    for entry in entries:
        ratio = entry.result.budget.training_macs / base.result.budget.training_macs
        if not ALLOWED_COMPUTE[0] <= ratio <= ALLOWED_COMPUTE[1]:
            raise MismatchError(
                f"{entry.name}: training took {entry.result.budget.training_macs:,} multiply-accumulates, {ratio:.4f} "
                f"times those of {base.name}; allowed: {ALLOWED_COMPUTE[0]} to {ALLOWED_COMPUTE[1]}; change its images"
            )


def _format_student(result: Result) -> str:
    return f"{result.setup.student.model} with reference {result.setup.student.reference}"


def _format_seeds(result: Result) -> str:
    return ", ".join(str(seed) for seed in sorted(seed.seed for seed in result.seeds))


def study_facts(
    entries: Sequence[Entry], base: Entry, found: Sequence[Comparison], warnings: Sequence[str]
) -> dict[str, Any]:
    """All numbers of the study: those of a comparison, and of each result its other measures."""
    facts = facts_of(entries, base, found, warnings)
    rows = [row | _measures(entry) for row, entry in zip(facts["results"], entries, strict=True)]
    return facts | {"format": STUDY_FORMAT, "format_version": STUDY_FORMAT_VERSION, "results": rows}


def _measures(entry: Entry) -> dict[str, Any]:
    summary, budget = entry.result.summary, entry.result.budget
    return {
        "val_top1": asdict(summary.val_top1) if summary.val_top1 else None,
        "top5": asdict(summary.top5),
        "ece": asdict(summary.ece),
        "forgetting": {subset: asdict(spread) for subset, spread in summary.forgetting.items()},
        "agreement": {teacher: asdict(spread) for teacher, spread in summary.agreement.items()},
        "student_parameters": budget.student_parameters,
        "teacher_forwards_spent": budget.teacher_forwards_spent,
        "teacher_forwards_online": budget.teacher_forwards_online,
    }


def study_table(study: Mapping[str, Any]) -> str:
    """A Markdown table of what `study_facts` gives: a row for each result, and the warnings; intervals are of 95 %."""
    base, by_name = study["base"], {one["name"]: one for one in study["comparisons"]}
    base_macs = {row["name"]: row["training_macs"] for row in study["results"]}[base]
    headings = [heading.format(base=base) for heading in HEADINGS]
    rows = [headings, ["---", "---", *["---:"] * (len(headings) - 2)]]
    rows += [_cells(row, by_name.get(row["name"]), base_macs) for row in study["results"]]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return table + "".join(f"\n{warning}\n" for warning in study["warnings"])


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
