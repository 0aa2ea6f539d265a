"""Holds the results of a study against its base: results/study_<study>.json, and a table and a picture for people."""

from pathlib import Path

from edpipe.params.study import StudyJobKnobs, StudyKnobs
from edpipe.results.comparison.study_contents import study_contents
from edpipe.results.comparison.study_figure import study_figure
from edpipe.results.comparison.study_table import study_table
from edpipe.runtime.progress import announce
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.job import Job
from edpipe.storage.records import make_record, write_record


def run(job: Job[StudyJobKnobs]) -> None:
    """Runs a job of this step."""
    study(str(job.arguments["study"]), job.knobs.study, job.inputs["results"], *job.outputs)


def study(
    name: str,
    knobs: StudyKnobs,
    result_paths: tuple[Path, ...],
    out_path: Path,
    table_path: Path,
    figure_path: Path,
) -> None:
    """Writes all numbers of the study, in the order of mean top1 on the test split; the same as table and figure.

    Raises:
        CorruptFileError: a result is missing, damaged, or of another version.
        MismatchError: datasets, students, recipes, or what `knobs.equal` names differ; seeds are lacking.
    """
    inputs, facts = study_contents(name, knobs, result_paths)
    for warning in facts["warnings"]:
        announce(warning)
    write_text_atomically(table_path, study_table(facts))
    write_text_atomically(figure_path, study_figure(facts))
    write_record(out_path, make_record("study", {"study": knobs}, inputs, **facts))
