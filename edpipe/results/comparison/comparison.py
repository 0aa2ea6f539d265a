"""Results compared with one of them: paired differences over seeds, ranks, notes and warnings."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edpipe.errors import CorruptFileError, EdpipeError, MismatchError, nearest, remake
from edpipe.params.base import canonical_json
from edpipe.params.recipe import RecipeKnobs
from edpipe.results.comparison.paired_test import PairedDifference, holm, mean_by_class, paired_difference
from edpipe.results.result_file import Result, SeedOutcome, read_result
from edpipe.storage.records import read_json_object

COMPARISON_FORMAT = "edpipe-comparison"
COMPARISON_FORMAT_VERSION = 2
BASE_METHOD = "ce"
ALLOWED_COMPUTE = (0.98, 1.001)
"""Parts of the base's compute that another result may have had: images come in whole numbers, and in round ones."""


@dataclass(frozen=True)
class Entry:
    """One result, where it lies, and what to call it: its experiment, or its path where two are of one experiment."""

    path: Path
    result: Result
    name: str

    @property
    def seeds(self) -> dict[int, SeedOutcome]:
        """What was measured, by seed."""
        return {seed.seed: seed for seed in self.result.seeds}


@dataclass(frozen=True)
class ClassChange:
    """Top1 on one class, mean over shared seeds, 0 to 1; all None if the test split has no image of it."""

    class_id: int
    name: str
    test_samples: int
    base: float | None
    own: float | None
    change: float | None


@dataclass(frozen=True)
class Comparison:
    """One result against the base, over the seeds that both have.

    Attributes:
        entry: the result.
        seeds: those that both have, ascending.
        differences: top1 minus the base's, for each of them; -1 to 1.
        paired: what follows from the differences; None without a shared seed.
        p_holm: its p, adjusted for all comparisons that have one; None where p is.
        macs_ratio: training compute of one seed divided by the base's; None if the base's is 0.
        classes: by class number; empty without a shared seed.
    """

    entry: Entry
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    paired: PairedDifference | None
    p_holm: float | None
    macs_ratio: float | None
    classes: tuple[ClassChange, ...]


def read_entries(paths: Sequence[Path]) -> list[Entry]:
    """The results, in the order of the paths.

    Raises:
        CorruptFileError: a file is missing, damaged, no result, of another version, or contradicts itself.
        EdpipeError: a file is named twice.
    """
    for i, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:i]]:
            raise EdpipeError(f"compare: {path} is named twice; name each result once")
    results = [read_result(path) for path in paths]
    experiments = [result.experiment for result in results]
    for path, result in zip(paths, results, strict=True):
        _check_seeds(path, result)
    return [
        Entry(path, result, result.experiment if experiments.count(result.experiment) == 1 else str(path))
        for path, result in zip(paths, results, strict=True)
    ]


def _check_seeds(path: Path, result: Result) -> None:
    """That no seed is there twice, which would hide one of them, and that all have a number for each class."""
    numbers = [seed.seed for seed in result.seeds]
    num_classes = len(result.data.class_names)
    found = ""
    for seed in result.seeds:
        if numbers.count(seed.seed) > 1:
            found = f"seed {seed.seed} is there {numbers.count(seed.seed)} times"
        elif not len(seed.metrics.top1_by_class) == len(result.data.test_samples_by_class) == num_classes:
            found = f"seed {seed.seed} does not fit {num_classes} classes"
    if found:
        raise CorruptFileError(f"{path}: {found}; the file was altered; {remake(path)}")


def check_comparable(entries: Sequence[Entry], unequal_budgets: bool) -> None:
    """Refuses what would mislead: other test images always, other budgets unless allowed.

    Budgets are equal in images, or in the compute of the student's training.

    Raises:
        MismatchError: datasets differ, or budgets do and `unequal_budgets` is false.
    """
    # The digest, not the name: one dataset may be listed twice in params.yaml.
    if len({(e.result.inputs.dataset, len(e.result.data.class_names)) for e in entries}) > 1:
        found = difference("datasets differ", entries, _format_dataset)
        raise MismatchError(f"{found}; top1 on other test images cannot be compared; name results of one dataset")
    if not unequal_budgets and not have_equal_compute(entries) and (found := budget_difference(entries)):
        raise MismatchError(
            f"{found}; name results of one budget of images or of compute, or compare these all the same with "
            "--unequal-budgets"
        )


def have_equal_compute(entries: Sequence[Entry]) -> bool:
    """Whether the training of all took as many multiply-accumulates, within what a study allows."""
    macs = [entry.result.budget.training_macs for entry in entries]
    return max(macs) * ALLOWED_COMPUTE[0] <= min(macs) * ALLOWED_COMPUTE[1]


def _format_dataset(result: Result) -> str:
    return f"{result.data.dataset} {result.inputs.dataset} of {len(result.data.class_names)} classes"


def budget_difference(entries: Sequence[Entry]) -> str:
    """How many training images were seen by whom; nothing if by all as many."""
    return difference("budgets differ: images seen", entries, lambda r: f"{r.budget.images_seen:,}")


def difference(title: str, entries: Sequence[Entry], value_of: Callable[[Result], str]) -> str:
    """`title: value (names); value (names)`, or nothing if all have one value."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        groups.setdefault(value_of(entry.result), []).append(entry.name)
    if len(groups) < 2:
        return ""
    return f"{title}: " + "; ".join(f"{value} ({', '.join(names)})" for value, names in groups.items())


def recipe_difference(entries: Sequence[Entry]) -> str:
    """The first knob of the recipes in which they differ; nothing if they are equal."""
    for knob in RecipeKnobs.model_fields:
        if found := difference(f"recipes differ: {knob}", entries, partial(_format_knob, knob)):
            return found
    return ""


def _format_knob(knob: str, result: Result) -> str:
    """Each value once, in the order of stages, which may have recipes of their own."""
    values = (canonical_json(recipe.model_dump()[knob]) for recipe in result.setup.recipes)
    return ", then ".join(dict.fromkeys(values))


def base_of(entries: Sequence[Entry], name: str | None) -> Entry:
    """The result that the others are compared with: the named one, else the only one of method ce, else the first.

    Args:
        entries: as on the command line; at least one.
        name: an experiment or a path; None: choose.

    Raises:
        EdpipeError: none of the results has this name, or several have.
    """
    if name is None:
        plain = [entry for entry in entries if entry.result.method == BASE_METHOD]
        return plain[0] if len(plain) == 1 else entries[0]
    named = [entry for entry in entries if name in (entry.result.experiment, str(entry.path))]
    if not named:
        raise EdpipeError(f"--base: '{name}' is not among the results{nearest(name, [e.name for e in entries])}")
    if len(named) > 1:
        paths = ", ".join(str(entry.path) for entry in named)
        raise EdpipeError(
            f"--base: '{name}' is the experiment of {len(named)} results ({paths}); give one of the paths"
        )
    return named[0]


def comparisons_of(entries: Sequence[Entry], base: Entry) -> list[Comparison]:
    """Every other result against the base, in the order of the entries, with p values adjusted for their number."""
    found = [_comparison(entry, base) for entry in entries if entry is not base]
    tested = [i for i, one in enumerate(found) if one.paired and one.paired.p is not None]
    adjusted = holm([one.paired.p for one in found if one.paired and one.paired.p is not None])
    for i, p in zip(tested, adjusted, strict=True):
        found[i] = replace(found[i], p_holm=p)
    return found


def _comparison(entry: Entry, base: Entry) -> Comparison:
    ours, theirs = entry.seeds, base.seeds
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    own, other = ([of[seed].metrics.top1 for seed in seeds] for of in (ours, theirs))
    paired = paired_difference(own, other) if seeds else None
    macs = base.result.budget.training_macs
    return Comparison(
        entry,
        seeds,
        tuple(a - b for a, b in zip(own, other, strict=True)),
        paired,
        None,
        entry.result.budget.training_macs / macs if macs else None,
        _class_changes(entry, base, seeds) if seeds else (),
    )


def _class_changes(entry: Entry, base: Entry, seeds: Sequence[int]) -> tuple[ClassChange, ...]:
    own, other = _top1_by_class(entry, seeds), _top1_by_class(base, seeds)
    data = base.result.data
    return tuple(
        ClassChange(c, name, data.test_samples_by_class[c], before, now, change)
        for c, (name, before, now, change) in enumerate(
            zip(data.class_names, mean_by_class(other), mean_by_class(own), mean_by_class(own - other), strict=True)
        )
    )


def _top1_by_class(entry: Entry, seeds: Sequence[int]) -> np.ndarray:
    rows = [entry.seeds[seed].metrics.top1_by_class for seed in seeds]
    return np.array([[math.nan if top1 is None else top1 for top1 in row] for row in rows], np.float64)


def facts_of(
    entries: Sequence[Entry], base: Entry, found: Sequence[Comparison], warnings: Sequence[str]
) -> dict[str, Any]:
    """All numbers for programs; docs/result.md explains every key."""
    return {
        "format": COMPARISON_FORMAT,
        "format_version": COMPARISON_FORMAT_VERSION,
        "dataset": base.result.data.dataset,
        "base": base.name,
        "warnings": list(warnings),
        "results": [_result_facts(entry) for entry in entries],
        "comparisons": [_comparison_facts(one) for one in found],
    }


def is_comparison(path: Path) -> bool:
    """Whether the file was written with `facts_of`, by any version."""
    try:
        return read_json_object(path).get("format") == COMPARISON_FORMAT
    except CorruptFileError:
        return False


def _result_facts(entry: Entry) -> dict[str, Any]:
    result = entry.result
    return {
        "name": entry.name,
        "path": str(entry.path),
        "digest": result.digest,
        "experiment": result.experiment,
        "method": result.method,
        "seeds": [seed.seed for seed in result.seeds],
        "top1": asdict(result.summary.top1),
        "images_seen": result.budget.images_seen,
        "training_macs": result.budget.training_macs,
    }


def _comparison_facts(one: Comparison) -> dict[str, Any]:
    paired = one.paired
    return {
        "name": one.entry.name,
        "seeds": list(one.seeds),
        "top1_differences": list(one.differences),
        "top1_difference": asdict(paired.spread) if paired else None,
        "t": paired.t if paired else None,
        "p": paired.p if paired else None,
        "p_holm": one.p_holm,
        "wins": paired.wins if paired else 0,
        "losses": paired.losses if paired else 0,
        "ties": paired.ties if paired else 0,
        "training_macs_ratio": one.macs_ratio,
        "top1_by_class": [asdict(change) for change in one.classes],
    }


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """The highest mean top1 first; equal ones by name, so that the order never depends on the command line."""
    return sorted(entries, key=lambda e: (-e.result.summary.top1.mean, e.result.experiment, str(e.path)))


def notes_of(found: Sequence[Comparison], base: Entry) -> list[str]:
    """Why comparisons with the base have no interval or no p value, a line for each that has none."""
    notes = []
    for one in found:
        if not one.seeds:
            notes.append(
                f"no shared seed, so no paired difference: {one.entry.name} has {_format_seeds(one.entry.seeds)}, "
                f"{base.name} has {_format_seeds(base.seeds)}; train both with the same seeds"
            )
        elif len(one.seeds) == 1:
            notes.append(f"one shared seed ({one.seeds[0]}), so no interval and no p: {one.entry.name}")
        elif one.p_holm is None:
            notes.append(f"all differences are equal, so no p: {one.entry.name}")
    return notes


def _format_seeds(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def warnings_of(entries: Sequence[Entry]) -> list[str]:
    """What weakens the comparison, a line for each; empty if nothing does."""
    found = [
        difference("partitions differ, so forgetting cannot be compared", entries, lambda r: r.inputs.partition),
        budget_difference(entries),
        difference("students differ", entries, lambda r: r.setup.student.model),
        recipe_difference(entries),
    ]
    lonely = [entry.name for entry in entries if len(entry.result.seeds) == 1]
    if lonely:
        found.append(f"one seed only, so no spread is known: {', '.join(lonely)}")
    found.append(_smaller_images(entries))
    return [line for line in found if line]


def _smaller_images(entries: Sequence[Entry]) -> str:
    """Which results were measured on smaller images after their earlier stages; empty if none was."""
    sizes = {
        entry.name: sorted({size for plan in entry.result.setup.stages if (size := plan.budget.image_size) is not None})
        for entry in entries
    }
    named = [f"{name} ({', '.join(map(str, found))} pixels)" for name, found in sizes.items() if found]
    if not named:
        return ""
    return (
        "after their earlier stages these were measured on smaller images, so their forgetting includes the gain of "
        f"full size: {', '.join(named)}"
    )
