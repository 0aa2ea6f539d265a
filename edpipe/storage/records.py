"""Records: the JSON beside every artifact that says what it was made from and by what."""

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

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "h5py", "scikit-learn", "pillow", "safetensors")
"""Whose versions can change what a step computes."""
_units: ContextVar[tuple[str, ...]] = ContextVar("units", default=())
"""Of the job that this process runs."""


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


def write_record(path: Path, contents: dict[str, Any]) -> None:
    """Writes a record, whole or not at all."""
    write_text_atomically(path, to_json(contents))


def read_record(path: Path, *required: str) -> dict[str, Any]:
    """The contents of a record, which must have the `required` keys.

    Raises:
        CorruptFileError: it is missing, unreadable, not a JSON object, or lacks a key.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorruptFileError(f"{path}: not a readable record ({error}); {remake(path)}") from error
    if not isinstance(contents, dict):
        raise CorruptFileError(f"{path}: a record must be a JSON object, got {type(contents).__name__}; {remake(path)}")
    missing = [name for name in required if name not in contents]
    if missing:
        raise CorruptFileError(f"{path}: the record lacks '{missing[0]}'; {remake(path)}")
    return contents
