"""Records: the JSON beside every artifact that says what it was made from and by what."""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edpipe.errors import CorruptFileError, remake
from edpipe.params.base import canonical_json
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.digests import digest_json
from edpipe.storage.source_files import ROOT, source_files

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "h5py", "scikit-learn", "pillow", "safetensors")
"""Whose versions can change what a step computes."""


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
    """What every record holds: step, knobs, digests of inputs and code, library versions; then the step's own facts.

    Nothing in it differs between two equal runs: no times, hosts, paths or thread counts.
    """
    return {
        "step": step,
        "knobs": json.loads(canonical_json(knobs)),
        "inputs": dict(inputs),
        "code": code_digest(step),
        "versions": library_versions(),
        **facts,
    }


def code_digest(step: str) -> str:
    """Digest of the source text of everything that a step imports from this package."""
    texts = {name: (ROOT.parent / name).read_text(encoding="utf-8") for name in source_files(step)}
    return digest_json(texts)


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
