"""Holds the results of a study against its base: results/study_<study>.json, and a table for people."""

from pathlib import Path

from edpipe.params.study import StudyJobKnobs, StudyKnobs
from edpipe.results.comparison.comparison import base_of, comparisons_of, notes_of, ranked, read_entries, warnings_of
from edpipe.results.comparison.study_table import check_equal, study_facts, study_table
from edpipe.runtime.progress import announce
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.job import Job
from edpipe.storage.records import make_record, write_record


def run(job: Job[StudyJobKnobs]) -> None:
    """Runs a job of this step."""
    study(str(job.arguments["study"]), job.knobs.study, job.inputs["results"], *job.outputs)


def study(name: str, knobs: StudyKnobs, result_paths: tuple[Path, ...], out_path: Path, table_path: Path) -> None:
    """Writes all numbers of the study, and the table; both in the order of mean top1 on the test split.

    Raises:
        CorruptFileError: a result is missing, damaged, or of another version.
        MismatchError: datasets, students, recipes, seeds, or what `knobs.equal` names differ.
    """
    entries = ranked(read_entries(result_paths))
    base = base_of(entries, knobs.base)
    check_equal(entries, base, knobs.equal)
    found = comparisons_of(entries, base)
    warnings = [*notes_of(found, base), *warnings_of(entries)]
    inputs = {
        "dataset": base.result.inputs.dataset,
        "students": {e.name: [seed.stages[-1].weights_digest for seed in e.result.seeds] for e in entries},
    }
    facts = study_facts(entries, base, found, warnings)
    for warning in warnings:
        announce(warning)
    write_text_atomically(table_path, study_table(entries, base, found, warnings))
    write_record(out_path, make_record("study", knobs, inputs, study=name, equal=knobs.equal, **facts))
