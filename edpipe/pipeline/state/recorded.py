"""What the records say of each job's artifact, and what its inputs are now; reads records, and of pages the head."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from edpipe.errors import CorruptFileError, EdpipeError, remake
from edpipe.params.plans.plan import knobs_as_now
from edpipe.pipeline.jobs.step_table import STEP, Artifact
from edpipe.pipeline.state.staleness import NOTHING, Origin, RecordedState, code_changes
from edpipe.results.page.page_code import read_page_code, read_page_results
from edpipe.storage.code.units import step_unit
from edpipe.storage.code.versions import settled, tokens
from edpipe.storage.job import Job
from edpipe.storage.records import library_versions, read_record, record_path, seal_of

REQUIRED: dict[str, tuple[type, ...]] = {
    "step": (str,),
    "knobs": (dict,),
    "inputs": (dict,),
    "code": (dict, str),
    "versions": (dict,),
}
"""What every record has, and as what."""
OWN_DIGESTS = ("weights_digest", "digest")
"""Keys under which a record holds the digest of its artifact: of weights; of datasets, partitions and soft labels."""


class Records:
    """Records of a project folder; each file is read once."""

    def __init__(self) -> None:
        self._read: dict[Path, dict[str, Any] | EdpipeError] = {}
        self._digests: dict[Path, str | None] = {}

    def read(self, path: Path) -> dict[str, Any]:
        """The record at `path`.

        Raises:
            CorruptFileError: missing, not JSON, lacks a key, or altered since written.
        """
        if path not in self._read:
            self._read[path] = _read(path)
        found = self._read[path]
        if isinstance(found, EdpipeError):
            raise found
        return found

    def exists(self, path: Path) -> bool:
        """Whether an output is there."""
        return path.exists()

    def note_digest(self, artifact_path: Path, digest: str) -> None:
        """What the content of an artifact was measured to be; counts more than what its record says."""
        self._digests[record_path(artifact_path)] = digest

    def digest(self, path: Path) -> str | None:
        """Digest of the artifact at `path`, or of the one whose record `path` is; None where nobody knows it."""
        key = record_path(path)
        if key not in self._digests:
            self._digests[key] = self.recorded_digest(key)
        return self._digests[key]

    def recorded_digest(self, path: Path) -> str | None:
        """What the record at `path` says that its artifact's digest is; None where it says nothing."""
        try:
            record = self.read(path)
        except EdpipeError:
            return None
        if record["step"] == "evaluate":
            return seal_of(record)
        return next((str(record[name]) for name in OWN_DIGESTS if name in record), None)


def _read(path: Path) -> dict[str, Any] | EdpipeError:
    try:
        contents = read_record(path, *REQUIRED)
    except EdpipeError as error:
        return error
    wrong = [name for name, kind in REQUIRED.items() if not isinstance(contents[name], kind)]
    if wrong:
        found = type(contents[wrong[0]]).__name__
        return CorruptFileError(
            f"{path}: '{wrong[0]}' must be {REQUIRED[wrong[0]][0].__name__}, got {found}; {remake(path)}"
        )
    return contents


def recorded_state(job: Job, records: Records) -> RecordedState:
    """What the outputs of a job say of themselves."""
    missing = frozenset(path for path in job.outputs if not records.exists(path))
    if STEP[job.step].artifact is Artifact.PAGE:  # has no record
        return RecordedState(None, missing, reasons=_page_changes(job, records) if not missing else ())
    try:
        record = records.read(record_path(job.outputs[0]))
        _check_named(job, record)
        recorded = recorded_origin(record)
    except EdpipeError as error:
        return RecordedState(None, missing, str(error))
    except (AttributeError, TypeError) as error:
        path = record_path(job.outputs[0])
        return RecordedState(None, missing, f"{path}: not a record of {job.step} ({error}); {remake(job.outputs[0])}")
    others = [path for path in job.outputs if path in missing]
    damage = f"{others[0]} is missing; {remake(job.outputs[0])}" if others else ""
    return RecordedState(recorded, missing, damage)


def _check_named(job: Job, record: Mapping[str, Any]) -> None:
    """That the artifact is of the seed, subset or views that its place says: a sibling may have the same knobs.

    Raises:
        CorruptFileError: it is another's.
    """
    for name, value in job.arguments.items():
        if record.get(name, value) != value:
            path = record_path(job.outputs[0])
            raise CorruptFileError(
                f"{path}: is of {name} {record[name]}, in the place of {name} {value}; {remake(job.outputs[0])}"
            )


def _page_changes(job: Job, records: Records) -> tuple[str, ...]:
    """Why a page, which has no record, is stale: newer inputs, as for Snakemake; the code and the result it names."""
    made_ns = job.outputs[0].stat().st_mtime_ns
    newer = [path for path in job.all_inputs if path.exists() and path.stat().st_mtime_ns > made_ns]
    unit = step_unit(job.step)
    code, present = {unit: settled(unit, read_page_code(job.outputs[0]) or NOTHING)}, tokens(job.units)
    return (*(f"{path} is newer" for path in newer), *code_changes(code, present), *other_results(job, records))


def other_results(job: Job, records: Records) -> tuple[str, ...]:
    """Why a page shows other results than it would now: it names their seals; damaged ones are found by themselves."""
    paths, named = (*job.inputs["result"], *job.inputs["beside"]), read_page_results(job.outputs[0])
    if named and len(named) != len(paths):
        return (f"results beside its own: it shows {len(named) - 1}, asked for are {len(paths) - 1}",)
    if not all(path.exists() for path in paths):
        return ()
    try:
        present = [seal_of(records.read(path)) for path in paths]
    except EdpipeError:
        return ()
    drawn_from = [*named, *(NOTHING for _ in paths)]
    return tuple(
        f"{'result' if path in job.inputs['result'] else path} is another one now ({old} → {new})"
        for path, old, new in zip(paths, drawn_from, present, strict=False)
        if old != new
    )


def recorded_origin(record: Mapping[str, Any]) -> Origin:
    """What an artifact was made from, as its record says."""
    return Origin(
        record["step"], _recorded_knobs(record), _recorded_code(record), record["versions"], _recorded_inputs(record)
    )


def _recorded_code(record: Mapping[str, Any]) -> dict[str, str]:
    """Versions by unit; edpipe before 0.1 wrote one digest of all source files instead, of which nothing is known."""
    if isinstance(record["code"], str):
        return {step_unit(record["step"]): f"0+{record['code']}"}
    return {unit: settled(unit, str(told)) for unit, told in record["code"].items()}


def _recorded_knobs(record: Mapping[str, Any]) -> Mapping[str, Any]:
    if record["step"] == "result" and "seeds" in record:  # keeps them among its contents
        return {"seeds": [seed.get("seed") for seed in record["seeds"]], "method": record.get("method")}
    return knobs_as_now(record["knobs"])


def _recorded_inputs(record: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Digests by role; what another version has written in another form is left out, its code differs anyway."""
    found = {role: _digests(value) for role, value in record["inputs"].items()}
    if record["step"] in ("run_stage", "partition_by_confusion"):
        found["teachers"] = _digests(record["inputs"].get("soft_labels", []), "teacher_digest")
    return _known_roles({role: _if_all_known(digests) for role, digests in found.items()})


def _known_roles(found: Mapping[str, tuple[str, ...] | None]) -> dict[str, tuple[str, ...]]:
    return {role: digests for role, digests in found.items() if digests is not None}


def _if_all_known(digests: Sequence[str | None]) -> tuple[str, ...] | None:
    known = tuple(digest for digest in digests if digest is not None)
    return known if len(known) == len(digests) else None


def _digests(value: object, key: str = "digest") -> tuple[str | None, ...]:
    """Digests in one entry of a record's inputs: a text, or a list of texts or of groups that have some; None: none.

    >>> _digests(""), _digests("0123"), _digests([{"digests": ["0123", "4567"], "teacher": "general"}, {}])
    ((), ('0123',), ('0123', '4567', None))
    """
    if isinstance(value, Mapping):
        found = [value[name] for name in (key, f"{key}s") if name in value]
        return _digests(found, key) if found else (None,)
    if isinstance(value, list):
        return tuple(chain.from_iterable(_digests(part, key) for part in value))
    return (str(value),) if value else ()


def present_origin(job: Job, records: Records) -> Origin:
    """What the artifact of a job would be made from now."""
    inputs = {role: _present_digests(paths, records) for role, paths in job.inputs.items()}
    return Origin(job.step, json.loads(job.knobs_text), tokens(job.units), _library_versions(), _known_roles(inputs))


def _present_digests(paths: tuple[Path, ...], records: Records) -> tuple[str, ...] | None:
    """Of each artifact of a role; None if that of one is not known, as when it is absent."""
    records_of_inputs = {record_path(path) for path in paths if path.suffix != ".json"}
    digests = [records.digest(path) for path in paths if path not in records_of_inputs]
    return _if_all_known(digests)


# The same for every job.
_library_versions = cache(library_versions)
