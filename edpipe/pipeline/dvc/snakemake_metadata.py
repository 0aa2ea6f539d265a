"""Snakemake's records of the files it has made (.snakemake/metadata), and the modification times it goes by.

Snakemake keeps one JSON file for each output, named by the output's path in base64. What matters here: that there is
one; `endtime`, the output's modification time when its job ended; and `params`, what the rule had as params then.
"""

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

from edpipe.errors import OverwriteError
from edpipe.storage.atomic import write_atomically

FOLDER = Path(".snakemake")
MADE, UNFINISHED = "metadata", "incomplete"
LONG_AGO_NS = 10**9
"""A modification time older than any input's."""
_LONGEST_NAME = 254
_CLOCK_S = 1e-3
"""Snakemake writes times as decimal fractions; closer than this is equal."""


def record_file(output: str, kind: str = MADE) -> Path:
    """Where Snakemake keeps what it knows of an output; long names are cut into folders.

    >>> str(record_file("a/b"))
    '.snakemake/metadata/YS9i'
    """
    name = base64.urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _LONGEST_NAME] for i in range(0, len(name), _LONGEST_NAME)]
    return FOLDER.joinpath(kind, *(f"@{part}" for part in parts[:-1]), parts[-1])


def is_intact(output: str) -> bool:
    """Whether Snakemake wrote this very file, and nobody has replaced it since."""
    try:
        return abs(os.lstat(output).st_mtime - _read(output)["endtime"]) < _CLOCK_S
    except (OSError, ValueError, KeyError, TypeError):
        return False


def forget(output: str, kind: str = MADE) -> None:
    """Removes what Snakemake knows of an output, if anything."""
    record_file(output, kind).unlink(missing_ok=True)


def record_unknown_params(output: str) -> None:
    """Replaces what Snakemake knows of an output: it was made with none of its rule's params, so that it is stale.

    Its modification time alone would not do: a job without input files has nothing that is newer.
    """
    from snakemake.persistence import RECORD_FORMAT_VERSION

    path = record_file(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"record_format_version": RECORD_FORMAT_VERSION, "params": []}), encoding="utf-8")


def restamp(output: str) -> None:
    """Tells Snakemake that the file is still its own after a change of its modification time."""
    record = _read(output) | {"endtime": os.lstat(output).st_mtime}
    record_file(output).write_text(json.dumps(record), encoding="utf-8")


def _read(output: str) -> dict[str, Any]:
    return json.loads(record_file(output).read_text(encoding="utf-8"))


def input_time_ns(path: str) -> int:
    """How new Snakemake finds an input: the newer of a link and its target, the newest file of a folder; 0 = absent."""
    if os.path.isdir(path):
        return max((input_time_ns(os.path.join(path, name)) for name in os.listdir(path)), default=0)
    try:
        return max(os.lstat(path).st_mtime_ns, os.stat(path).st_mtime_ns)
    except FileNotFoundError:
        return 0


def output_time_ns(path: str) -> int:
    """How old Snakemake finds an output: of a link its own time."""
    return os.lstat(path).st_mtime_ns


def stand_alone(path: str) -> None:
    """Makes a hard link a file of its own, so that a change of its time leaves its fellows alone."""
    if not os.path.islink(path) and os.lstat(path).st_nlink > 1:
        with write_atomically(Path(path)) as partial:
            shutil.copyfile(path, partial)


def set_output_time(path: str, time_ns: int) -> None:
    """Sets how old Snakemake finds an output; what a link points to keeps its time.

    Raises:
        OverwriteError: the file is somebody else's.
    """
    try:
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
    except PermissionError as error:
        raise OverwriteError(
            f"{path}: its modification time cannot be set, it belongs to another user; "
            f"use `dvc config --local cache.type symlink`, then `dvc checkout --relink`"
        ) from error
