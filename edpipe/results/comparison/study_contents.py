"""All that a study holds: what the step `study` writes and what `edpipe verify` computes again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edpipe.params.study import StudyKnobs
from edpipe.results.comparison.comparison import base_of, comparisons_of, notes_of, ranked, read_entries, warnings_of
from edpipe.results.comparison.study_table import check_equal, study_facts


def study_contents(name: str, knobs: StudyKnobs, result_paths: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Digests of what a study is made from, and its contents, in the order of mean top1 on the test split.

    Raises:
        CorruptFileError: a result is missing, damaged, or of another version.
        MismatchError: datasets, students, recipes, or what `knobs.equal` names differ; seeds are lacking.
    """
    named = read_entries(result_paths)
    entries = ranked(named)
    base = base_of(entries, knobs.base)
    check_equal(entries, base, knobs)
    found = comparisons_of(entries, base)
    warnings = [*notes_of(found, base), *warnings_of(entries)]
    inputs = {
        "dataset": base.result.inputs.dataset,
        "results": [entry.result.digest for entry in named],
        "students": {e.name: [seed.stages[-1].weights_digest for seed in e.result.seeds] for e in entries},
    }
    return inputs, {"study": name, "equal": knobs.equal, **study_facts(entries, base, found, warnings, knobs.tests)}
