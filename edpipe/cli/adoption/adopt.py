"""Goes through jobs in their order and takes over each artifact that does not fit only because other code made it.

All happens in a mirror of the project folder. There the record of an artifact is first rewritten as if it fitted, so
that everything that reads the artifact accepts it; then evidence is gathered; then the record gets its last form, and
is written to the project folder as well. Where evidence fails, the mirror gets its old record back.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from edpipe.cli.adoption.by_step import FUNCTIONS, evidence_of
from edpipe.cli.adoption.claim import Claim, Evidence, UnshownError
from edpipe.cli.adoption.mirror import mirrored
from edpipe.cli.adoption.records import made_by_code, read_old_record, rewrite
from edpipe.errors import EdpipeError
from edpipe.params.schema import Params
from edpipe.pipeline.jobs.resources import threads_of
from edpipe.pipeline.jobs.step_table import STEP
from edpipe.pipeline.state.artifact_checks import check_artifact
from edpipe.pipeline.state.cost_ledger import follow_record
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_state
from edpipe.pipeline.state.staleness import Assessment, Origin, Verdict, assess, differences
from edpipe.runtime.threads import by_default
from edpipe.storage.code.versions import tokens
from edpipe.storage.digests import digest_bytes
from edpipe.storage.job import Job
from edpipe.storage.records import library_versions, made_by, record_path

UNEXPECTED = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What steps may raise on reading what no edpipe of today wrote."""
WITHOUT_DIGEST = ("indexes",)
"""Inputs that are known by the files that they name."""


class Ending(StrEnum):
    """What became of one artifact."""

    ADOPTED = "adopted"
    FITS = "fits"
    """It fitted before."""
    REFUSED = "refused"
    LEFT = "left"
    """It is cheap to make again."""
    ABSENT = "absent"


@dataclass(frozen=True)
class Ended:
    """One job's artifact and what became of it."""

    job: Job[Any]
    ending: Ending
    text: str = ""
    """What was shown, or why it was refused."""


@dataclass(frozen=True)
class Options:
    """How to go about it."""

    is_dry_run: bool = False
    """The project folder stays as it is."""
    is_other_machine: bool = False
    """See `Claim`."""


def adopt(params: Params, jobs: Sequence[Job[Any]], chosen: Collection[Path], options: Options) -> Iterator[Ended]:
    """What becomes of each chosen artifact, one after the other; its record is written before it is given.

    Args:
        params: of the project.
        jobs: those of the chosen artifacts and of all that these are made from, inputs before what reads them.
        chosen: the first outputs of jobs; the others are only looked at.
        options: how.
    """
    with mirrored(path for job in jobs for path in (*job.outputs, record_path(job.outputs[0]))) as folder:
        unfit: dict[Path, str] = {}
        for job in jobs:
            ended = _Adoption(params, job, unfit, folder, options).run(job.outputs[0] in chosen)
            if ended.ending is not Ending.FITS and ended.ending is not Ending.ADOPTED:
                unfit |= dict.fromkeys(job.outputs, _WHY[ended.ending])
            if job.outputs[0] in chosen:
                yield ended


_WHY = {Ending.ABSENT: "is absent", Ending.REFUSED: "does not fit", Ending.LEFT: "is to be made again"}


@dataclass(frozen=True)
class _Adoption:
    """One artifact on its way."""

    params: Params
    job: Job[Any]
    unfit: Mapping[Path, str]
    """Outputs of earlier jobs that cannot be relied on, and why."""
    folder: Path
    options: Options

    def run(self, is_chosen: bool) -> Ended:
        verdict = self._judge()
        if verdict.verdict is Verdict.ABSENT:
            return Ended(self.job, Ending.ABSENT)
        if verdict.verdict is Verdict.CACHED:
            return Ended(self.job, Ending.FITS)
        if self.job.step not in FUNCTIONS:
            return Ended(self.job, Ending.LEFT)
        if not is_chosen:
            return Ended(self.job, Ending.REFUSED, "; ".join(verdict.reasons))
        try:
            evidence = self._take_over()
        except EdpipeError as error:
            return Ended(self.job, Ending.REFUSED, str(error))
        return Ended(self.job, Ending.ADOPTED, evidence.text)

    def _judge(self) -> Assessment:
        records = Records()
        return assess(self.job, recorded_state(self.job, records), present_origin(self.job, records))

    def _unfit_input(self) -> str:
        """The first that cannot be relied on, and why; one that is absent before others, since it is their reason."""
        found = [path for path in self.job.all_inputs if path in self.unfit]
        found.sort(key=lambda path: self.unfit[path] != _WHY[Ending.ABSENT])
        return f"its input {found[0]} {self.unfit[found[0]]}" if found else ""

    def _take_over(self) -> Evidence:
        """Raises EdpipeError, after which the mirror is as before, where the artifact cannot be taken over."""
        path = record_path(self.job.outputs[0])
        if self._unfit_input():
            raise UnshownError(f"{self.job.outputs[0]}: {self._unfit_input()}")
        found = path.read_bytes() if path.is_file() else b""
        try:
            return self._shown(read_old_record(path), found)
        except EdpipeError:
            path.unlink(missing_ok=True)  # a link, or what was written instead of it
            if found:
                path.symlink_to(self.folder / path)
            raise

    def _shown(self, record: dict[str, Any], found: bytes) -> Evidence:
        rewrite(self.job, {**record, "code": tokens(self.job.units)})
        self._check_origin()
        evidence = self._gather(Claim(self.job, record, self.folder, self.options.is_other_machine))
        contents = self._adopted(record, evidence)
        rewrite(self.job, contents)
        verdict = self._judge()
        if verdict.verdict is not Verdict.CACHED:
            raise UnshownError(f"{self.job.outputs[0]}: would not fit even then: {'; '.join(verdict.reasons)}")
        if not self.options.is_dry_run:
            self._write(contents, found)
        return evidence

    def _check_origin(self) -> None:
        """That knobs and inputs are the present ones, and that the artifact is the one that its record speaks of."""
        records = Records()
        state, present = recorded_state(self.job, records), present_origin(self.job, records)
        if state.damage or state.recorded is None:
            raise UnshownError(state.damage or f"{self.job.outputs[0]}: {'; '.join(state.reasons)}")
        recorded = replace(state.recorded, code=present.code)
        changes = [*differences(recorded, present), *self._unknown_inputs(recorded, present)]
        if changes:
            raise UnshownError(
                f"{self.job.outputs[0]}: {'; '.join(changes)}; other code is taken over, other knobs or inputs are not"
            )
        check_artifact(self.job, records)

    def _unknown_inputs(self, recorded: Origin, present: Origin) -> list[str]:
        roles = [role for role, paths in self.job.inputs.items() if paths and role not in WITHOUT_DIGEST]
        return [
            *(f"its record does not say of which {_words(role)}" for role in roles if not recorded.inputs.get(role)),
            *(f"the digest of its {_words(role)} is not known" for role in roles if not present.inputs.get(role)),
        ]

    def _gather(self, claim: Claim) -> Evidence:
        threads = threads_of(self.params, self.job) if STEP[self.job.step].needs_network else None
        try:
            with by_default(threads), made_by(self.job.units):
                return evidence_of(self.job.step)(claim)
        except UNEXPECTED as error:
            raise UnshownError(
                f"{claim.path}: it or its record has another form than the present code reads ({error!r})"
            ) from error

    def _adopted(self, record: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
        shown = {**evidence.shown, "code": made_by_code(record), "versions_then": record["versions"]}
        contents = {**evidence.record, "code": tokens(self.job.units), "versions": record["versions"]}
        return contents | {"adopted": shown | {"versions_when_shown": library_versions()}}

    def _write(self, contents: Mapping[str, Any], found: bytes) -> None:
        path = record_path(self.job.outputs[0])
        if (self.folder / path).read_bytes() != found:
            raise UnshownError(f"{path}: was rewritten meanwhile; call again when nothing else is running here")
        with chdir(self.folder):
            rewrite(self.job, contents)
            follow_record(self.job, digest_bytes(found))


def _words(role: str) -> str:
    return role.replace("_", " ")
