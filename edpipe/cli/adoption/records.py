"""Reads records that other versions of edpipe wrote, and rewrites them so that they fit."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edpipe.datasets.partition_file import FORMAT as PARTITION_FORMAT
from edpipe.errors import CorruptFileError, remake
from edpipe.pipeline.jobs.step_table import STEP, Artifact
from edpipe.pipeline.state.recorded import recorded_origin
from edpipe.storage.digests import digest_json
from edpipe.storage.job import Job
from edpipe.storage.records import SEAL, record_path, write_record
from edpipe.storage.sealed_json import write_sealed_json

REQUIRED = ("step", "knobs", "inputs")
"""Without them nothing says what an artifact was made from."""


def read_old_record(path: Path) -> dict[str, Any]:
    """A record of any version of edpipe, without its seal; older ones have none, nor versions of code and libraries.

    Raises:
        CorruptFileError: missing, unreadable, no record, or its seal is broken.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CorruptFileError(
            f"{path}: no such file, and nothing else says what its artifact was made from; {remake(path)}"
        ) from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path}: not a readable record ({error}); {remake(path)}") from error
    missing = [name for name in REQUIRED if not isinstance(contents, dict) or name not in contents]
    if missing:
        raise CorruptFileError(f"{path}: not a record of edpipe: has no '{missing[0]}'; {remake(path)}")
    seal = contents.pop(SEAL, None)
    if seal is not None and seal != digest_json(contents):
        raise CorruptFileError(f"{path}: altered since written; {remake(path)}")
    return {"code": {}, "versions": {}} | contents


def made_by_code(record: Mapping[str, Any]) -> dict[str, str]:
    """Versions, by unit, of the code that made the artifact; of one that was adopted before, not of the code since."""
    adopted = record.get("adopted")
    return dict(adopted["code"] if isinstance(adopted, Mapping) else recorded_origin(record).code)


def rewrite(job: Job[Any], contents: Mapping[str, Any]) -> None:
    """Writes the record of a job's artifact anew, whole or not at all; its time stays.

    With a later time, tools that compare times would make again all that was made from the artifact.

    Raises:
        OverwriteError: it cannot be written.
    """
    path = record_path(job.outputs[0])
    status = path.stat()
    if STEP[job.step].artifact is Artifact.PARTITION:
        write_sealed_json(path, PARTITION_FORMAT, contents)
    else:
        write_record(path, dict(contents))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
