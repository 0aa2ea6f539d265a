"""Snakemake's records of the files it has made (.snakemake/metadata), and the modification times it goes by.

Snakemake keeps one JSON file for each output, named by the output's path in base64. What matters here: that there is
one, and what the rule had then as params, inputs and command.
"""

import base64
import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from edpipe.errors import OverwriteError
from edpipe.storage.atomic import write_atomically, write_text_atomically

FOLDER = Path(".snakemake")
MADE, UNFINISHED = "metadata", "incomplete"
LONG_AGO_NS = 946_728_000 * 10**9
"""A modification time older than any input's, in the year 2000: archives cannot hold times before 1980."""
_LONGEST_NAME = 254
_ORIGIN = frozenset({"code", "input", "params", "software_stack_hash"})
"""What an output was made from, in Snakemake's words; it compares each with its rule, where it is there."""


def record_file(output: str, kind: str = MADE) -> Path:
    """Where Snakemake keeps what it knows of an output; long names are cut into folders.

    >>> str(record_file("a/b"))
    '.snakemake/metadata/YS9i'
    """
    name = base64.urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _LONGEST_NAME] for i in range(0, len(name), _LONGEST_NAME)]
    return FOLDER.joinpath(kind, *(f"@{part}" for part in parts[:-1]), parts[-1])


def forget(output: str, kind: str = MADE) -> None:
    """Removes what Snakemake knows of an output, if anything."""
    record_file(output, kind).unlink(missing_ok=True)


def record_unknown_params(output: str, rule: str, made_s: float | None = None) -> None:
    """Replaces what Snakemake knows of an output: it was made with none of its rule's params, so that it is stale.

    Its modification time alone would not do: a job without input files has nothing that is newer. When it was made
    stays; where it is unknown, `made_s` or else the file's own time stands for it, since Snakemake's report wants one.
    """
    from snakemake.persistence import RECORD_FORMAT_VERSION

    path = record_file(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    made_s = os.lstat(output).st_mtime if made_s is None else made_s
    contents = {"rule": rule, "starttime": made_s, "endtime": made_s}
    contents |= {name: value for name, value in _known(output).items() if name not in _ORIGIN and value is not None}
    contents |= {"record_format_version": RECORD_FORMAT_VERSION, "params": []}
    path.write_text(json.dumps(contents), encoding="utf-8")


def _known(output: str) -> dict[str, Any]:
    """What Snakemake knows of an output; nothing where there is no such record, or a broken one."""
    try:
        found = json.loads(record_file(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def forget_origin(output: str) -> None:
    """Removes from what Snakemake knows of an output all from which it would conclude that the output is stale.

    When and by which rule it was made stays, for Snakemake's own report.
    """
    known = _known(output)
    if "endtime" not in known:
        forget(output)
    elif not known.keys().isdisjoint(_ORIGIN):
        kept = {name: value for name, value in known.items() if name not in _ORIGIN}
        write_text_atomically(record_file(output), json.dumps(kept))


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
    _set_time(path, time_ns, is_target=False)


def set_target_time(path: str, time_ns: int) -> None:
    """Sets the time of what a link points to.

    Raises:
        OverwriteError: the file is somebody else's.
    """
    _set_time(path, time_ns, is_target=True)


def _set_time(path: str, time_ns: int, is_target: bool) -> None:
    try:
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=is_target)
    except PermissionError as error:
        dated = datetime.fromtimestamp(os.stat(path).st_mtime).isoformat(" ", "seconds")
        raise OverwriteError(
            f"{path}: its modification time ({dated}) cannot be set, it belongs to another user; ask them to "
            "`touch` it, or use `dvc config --local cache.type symlink`, then `dvc checkout --relink`"
        ) from error
