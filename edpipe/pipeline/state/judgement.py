"""Of every artifact that lies here, whether it may be used: its own record and its content say so, and nobody else.

Snakemake's metadata and dvc.lock are bookkeeping: both are made to follow these judgements.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edpipe.errors import CorruptFileError, MismatchError
from edpipe.params.schema import Params
from edpipe.pipeline.jobs.graph import jobs_named
from edpipe.pipeline.jobs.paths import SEARCH_PREFIX
from edpipe.pipeline.jobs.step_table import STEP, Artifact
from edpipe.pipeline.jobs.students import study
from edpipe.pipeline.state.artifact_checks import check_artifact, is_page_of
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts, look_at
from edpipe.pipeline.state.recorded import Records, other_results, present_origin, recorded_state
from edpipe.pipeline.state.staleness import NOTHING, Assessment, RecordedState, Verdict, assess, code_changes
from edpipe.results.page.page_code import read_page_code
from edpipe.storage.code.units import step_unit
from edpipe.storage.code.versions import settled, tokens
from edpipe.storage.digests import digest_file, digest_json
from edpipe.storage.job import Job


@dataclass(frozen=True)
class Judgement:
    """What is to be thought of the artifact of one job, by itself: what happens to others is not looked at."""

    job: Job
    assessment: Assessment
    missing: frozenset[Path]
    """Outputs that are not there."""
    is_shown: bool
    """Whether what it was made from is known at all; else it is Snakemake's to judge."""

    @property
    def fits(self) -> bool:
        """Whether it is what would be made now."""
        return self.assessment.verdict is Verdict.CACHED and self.is_shown

    @property
    def is_unfit(self) -> bool:
        """Whether something of it is there, and must be made again."""
        is_absent = self.assessment.verdict is Verdict.ABSENT
        return self.assessment.verdict in (Verdict.STALE, Verdict.DAMAGED) or (
            is_absent and bool(self.assessment.reasons)
        )


def all_jobs(params: Params) -> list[Job]:
    """The jobs of all experiments, studies and searches, each once, inputs before what reads them."""
    named = [*params.experiments, *(f"{SEARCH_PREFIX}{name}" for name in params.searches)]
    return [*jobs_named(params, named), *(study(params, name) for name in params.studies)]


def judged(jobs: Iterable[Job], checked: CheckedArtifacts) -> list[Judgement]:
    """A judgement for each job, which stand before what reads their outputs.

    Artifacts whose files look as they did when they were found sound are not read again. Of an absent one it is
    remembered from what it was made: where it would be another one now, what was made from it is stale.
    """
    records, found = Records(), list[Judgement]()
    changed: set[Path] = set()
    for job in jobs:
        one = _judged(job, records, checked)
        lost = [path for path in job.all_inputs if path in changed and not path.exists()]
        if lost and (one.fits or one.assessment.verdict is Verdict.ABSENT):
            reason = f"{lost[0]} is missing, and would be another one now"
            verdict = Verdict.STALE if one.fits else Verdict.ABSENT
            one = replace(one, assessment=replace(one.assessment, verdict=verdict, reasons=(reason,)))
        if one.assessment.verdict is Verdict.ABSENT and one.assessment.reasons:
            changed.update(job.outputs)
        found.append(one)
    return found


def _judged(job: Job, records: Records, checked: CheckedArtifacts) -> Judgement:
    found = inspect(job, records, checked)
    present = present_origin(job, records)
    common = found.recorded is not None and found.recorded.inputs.keys() & {r for r, d in present.inputs.items() if d}
    is_page = STEP[job.step].artifact is Artifact.PAGE
    is_shown = is_page or bool(common) or not all(path.exists() for path in job.all_inputs) or not job.all_inputs
    found = checked.completed(found, job.outputs[0])
    return Judgement(job, assess(job, found, present), found.missing, is_shown)


def inspect(job: Job, records: Records, checked: CheckedArtifacts) -> RecordedState:
    """What the record of a job's artifact says, after the artifact itself was compared with it."""
    found = recorded_state(job, records)
    if found.damage or job.outputs[0] in found.missing:
        return found
    try:
        if STEP[job.step].artifact is Artifact.PAGE:
            return replace(found, reasons=_page_reasons(job, records, checked))
        _check_content(job, records, checked, found)
    except (CorruptFileError, MismatchError) as error:
        checked.forget(job.outputs[0])
        return replace(found, damage=str(error))
    return found


def _check_content(job: Job, records: Records, checked: CheckedArtifacts, found: RecordedState) -> None:
    path = job.outputs[0]
    known = checked.find(job.outputs)
    if known is not None and known.digest == records.digest(path):
        return
    seen = look_at(job.outputs)
    check_artifact(job, records)
    checked.note(seen, records.digest(path), found.recorded)


def _page_reasons(job: Job, records: Records, checked: CheckedArtifacts) -> tuple[str, ...]:
    """Why a page is stale: it is drawn again and compared, unless nothing changed since that was last done."""
    known_reasons = (*_page_code_changes(job), *other_results(job, records))
    if not all(path.exists() for path in job.all_inputs):
        return known_reasons
    seals = [records.digest(path) for role in ("dataset", "partition") for path in job.inputs[role]]
    counted = [path for role in ("result", "evaluations", "teacher_evaluations", "beside") for path in job.inputs[role]]
    made_from = [*seals, *map(digest_file, counted), tokens(job.units), str(job.outputs[0])]
    source = digest_json(made_from)
    known = checked.find(job.outputs)
    if known is not None and known.digest == source:
        return ()
    seen = look_at(job.outputs)
    try:
        is_same = is_page_of(job)
    except MismatchError as error:  # the page can be read, but no other could be drawn now
        return (str(error),)
    if is_same:
        checked.note(seen, source, None)
        return ()
    return known_reasons or (f"from {job.input('result')} another page would be drawn now",)


def _page_code_changes(job: Job) -> tuple[str, ...]:
    unit = step_unit(job.step)
    drawn_by = settled(unit, read_page_code(job.outputs[0]) or NOTHING)
    return tuple(code_changes({unit: drawn_by}, tokens(job.units)))


def sound_paths(judgements: Sequence[Judgement]) -> set[Path]:
    """Outputs of jobs that fit, whose inputs are all there, and before which nothing is unfit: true for good."""
    doubtful: set[Path] = set()
    sound: set[Path] = set()
    for one in judgements:
        outputs, inputs = one.job.outputs, one.job.all_inputs
        if one.is_unfit or not doubtful.isdisjoint(inputs):
            doubtful.update(outputs)
        elif one.fits and all(path.exists() for path in inputs):
            sound.update(outputs)
    return sound
