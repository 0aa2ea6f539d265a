"""Sizes and times of the files that `edpipe verify` has read whole and found sound, for `edpipe verify --quick`."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from edpipe.errors import EdpipeError
from edpipe.pipeline.jobs.paths import ARTIFACTS
from edpipe.runtime.progress import announce
from edpipe.storage.records import read_record, write_record

LAST_READ = ARTIFACTS / ".last_read.json"
"""Beside the artifacts: it is of these files, on this machine."""
FORMAT = {"format": "edpipe-last-read", "format_version": 1}
State = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""


def state_of(path: Path) -> State | None:
    """Of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def read_last() -> dict[str, State]:
    """State of each file when it was last read whole and found sound; empty where nothing is known."""
    try:
        contents = read_record(LAST_READ, "files")
        if any(contents.get(name) != value for name, value in FORMAT.items()):
            return {}
        return {path: (size, time_ns) for path, (size, time_ns) in contents["files"].items()}
    except (EdpipeError, AttributeError, TypeError, ValueError):
        return {}


def is_as_last_read(path: Path, last: Mapping[str, State]) -> bool:
    """Whether size and time of a file are those that it had then; a file that was altered may have both."""
    return state_of(path) == last.get(str(path), ())


def note_read(sound: Iterable[Path], unsound: Iterable[Path]) -> None:
    """Notes the present state of the files that were found sound, and forgets that of the others."""
    known = {path: list(state) for path, state in read_last().items()}
    for path in unsound:
        known.pop(str(path), None)
    known |= {str(path): list(state) for path in sound if (state := state_of(path))}
    try:
        write_record(LAST_READ, FORMAT | {"files": known})
    except EdpipeError as error:
        announce(f"warning: {error}; `edpipe verify --quick` will not know of this")
