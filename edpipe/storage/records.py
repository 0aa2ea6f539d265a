"""Records: the JSON beside every artifact that says what it was made from and by what.

Every JSON file that edpipe writes as an artifact or a record is sealed: under `SEAL` it holds the digest of all the
rest of it. `write_record` adds the seal and `read_record` checks it, so that neither can be forgotten.
"""

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from edpipe.errors import CorruptFileError, remake
from edpipe.params.base import canonical_json
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.code.units import step_unit
from edpipe.storage.code.versions import tokens
from edpipe.storage.digests import digest_json

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "h5py", "scikit-learn", "pillow", "safetensors")
"""Whose versions can change what a step computes."""
_units: ContextVar[tuple[str, ...]] = ContextVar("units", default=())
"""Of the job that this process runs."""
SEAL = "file_digest"
"""Key of the digest of everything else in the file."""


def record_path(artifact_path: Path) -> Path:
    """Where the record of an artifact lies.

    >>> str(record_path(Path("artifacts/datasets/digits.h5")))
    'artifacts/datasets/digits.json'
    """
    return artifact_path.with_suffix(".json")


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that can change a result."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def make_record(step: str, knobs: object, inputs: Mapping[str, object], **facts: object) -> dict[str, Any]:
    """What every record holds: step, knobs, digests of inputs, code, library versions; then the step's own facts.

    Nothing in it differs between two equal runs: no times, hosts, paths or thread counts.
    """
    return {
        "step": step,
        "knobs": json.loads(canonical_json(knobs)),
        "inputs": dict(inputs),
        "code": code_of(step),
        "versions": library_versions(),
        **facts,
    }


def code_of(step: str) -> dict[str, str]:
    """The versions of the code that makes this artifact, by unit; of the step alone where nobody has named the job."""
    return tokens(_units.get() or (step_unit(step),))


@contextmanager
def made_by(units: tuple[str, ...]) -> Iterator[None]:
    """Inside the block, records say that these units of code make the artifact."""
    before = _units.set(units)
    tokens(units)  # now: what an edit changes later does not make this artifact
    try:
        yield
    finally:
        _units.reset(before)


def to_json(contents: object) -> str:
    """Readable JSON with sorted keys and a final newline; two equal values give equal bytes."""
    return json.dumps(contents, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_record(path: Path, contents: Mapping[str, Any]) -> None:
    """Writes a record with its seal, whole or not at all; equal contents give equal bytes."""
    plain = json.loads(to_json(without_seal(contents)))  # as it is read again: with keys that are texts
    write_text_atomically(path, to_json(plain | {SEAL: digest_json(plain)}))


def read_record(path: Path, *required: str) -> dict[str, Any]:
    """The contents of a record without its seal; it must have the `required` keys.

    Raises:
        CorruptFileError: it is missing, unreadable, not a JSON object, not sealed, altered since, or lacks a key.
    """
    contents = read_json_object(path)
    check_seal(path, contents)
    missing = [name for name in required if name not in contents]
    if missing:
        raise CorruptFileError(f"{path}: the record lacks '{missing[0]}'; {remake(path)}")
    return without_seal(contents)


def read_json_object(path: Path) -> dict[str, Any]:
    """What stands in a JSON file, with its seal, which is not checked: for those who ask first of what kind it is.

    Raises:
        CorruptFileError: it is missing, unreadable, not a JSON object, or says something twice.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path}: not a readable record ({error}); {remake(path)}") from error
    if not isinstance(contents, dict):
        raise CorruptFileError(f"{path}: a record must be a JSON object, got {type(contents).__name__}; {remake(path)}")
    return contents


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key that is there twice, some programs take the first value and others the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in found if names.count(name) > 1)}' is there twice")
    return found


def check_seal(path: Path, contents: Mapping[str, Any], instead: str = "") -> None:
    """That the contents, as read from `path`, are those that were written.

    Args:
        path: which the error names.
        contents: with their seal.
        instead: what people should change, where they may come to edit this file.

    Raises:
        CorruptFileError: they hold no seal, or another one.
    """
    if is_sealed(contents):
        return
    found = "altered since written"
    if SEAL not in contents:
        found = f"holds no digest of its content ('{SEAL}'): altered, or written by an older edpipe"
    remedy = f"change {instead} instead, then {remake(path)}" if instead else remake(path)
    raise CorruptFileError(f"{path}: {found}; {remedy}")


def is_sealed(contents: Mapping[str, Any]) -> bool:
    """Whether they hold the digest of the rest of them."""
    try:
        return contents.get(SEAL) == seal_of(contents)
    except ValueError:  # text that is no Unicode has no bytes to digest
        return False


def seal_of(contents: Mapping[str, Any]) -> str:
    """The digest that seals them: of all but the seal itself."""
    return digest_json(without_seal(contents))


def without_seal(contents: Mapping[str, Any]) -> dict[str, Any]:
    """All that was to be written."""
    return {name: value for name, value in contents.items() if name != SEAL}
