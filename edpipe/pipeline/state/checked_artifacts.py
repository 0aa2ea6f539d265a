"""Which artifacts were read to their end and found to be what their records tell of, and how their files looked then.

A file with the same size, times and inode has the same bytes, as for git's index: the time of the last change of status
(ctime) cannot be set back, so that bytes which changed under a kept modification time show. Only what looks otherwise
is read again. The memory is this folder's own, and safe to delete.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edpipe import __version__
from edpipe.errors import OverwriteError
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.state.staleness import Origin, RecordedState
from edpipe.runtime.progress import announce
from edpipe.storage.atomic import write_text_atomically

FORMAT_VERSION = 1
"""Raise it when an artifact that was found sound may be refused by today's checks."""
CLOCK_TICK_NS = 20_000_000
"""A file that was changed so shortly before it was looked at may change again within one tick of the file's clock."""


@dataclass(frozen=True)
class Look:
    """How a file looks without being read."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class Checked:
    """What was found in the files of an artifact."""

    files: Mapping[str, Look]
    digest: str | None
    """Of its content; of a page, of all that it was drawn from. None: nobody knows one."""
    origin: Mapping[str, Any] | None = None
    """What its record said that it was made from: the fields of `Origin`. Remembered after its files are gone."""


def look_at(files: Iterable[Path]) -> dict[str, Look]:
    """How these files look; those that are not there are left out."""
    found: dict[str, Look] = {}
    for path in files:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found[str(path)] = Look(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return found


class CheckedArtifacts:
    """The memory of this project folder; `save` writes it.

    Args:
        reads_all: nothing is taken from the memory, so that whoever asks reads every artifact; what is found is noted.
    """

    def __init__(self, reads_all: bool = False) -> None:
        self._entries = _read()
        self._reads_all = reads_all
        self._is_changed = False

    def find(self, files: Iterable[Path]) -> Checked | None:
        """What was found in these files, the artifact first, if they look as they did then."""
        seen = look_at(files)
        entry = None if self._reads_all else self._entries.get(next(iter(seen), ""))
        return entry if entry is not None and entry.files == seen else None

    def forget(self, artifact: Path) -> None:
        """An artifact was found damaged: that it was sound before says nothing any more, however its files look."""
        self._is_changed |= self._entries.pop(str(artifact), None) is not None

    def origin_of(self, artifact: Path) -> Origin | None:
        """What the last artifact in this place that was found sound was made from, also when it is gone by now."""
        entry = self._entries.get(str(artifact))
        if entry is None or entry.origin is None:
            return None
        inputs = {role: tuple(digests) for role, digests in entry.origin["inputs"].items()}
        return Origin(**{**entry.origin, "inputs": inputs})

    def completed(self, found: RecordedState, artifact: Path) -> RecordedState:
        """What was found of an artifact; if it is gone, with what it was made from, as far as that is remembered."""
        if found.recorded is None and artifact in found.missing:
            return replace(found, recorded=self.origin_of(artifact))
        return found

    def note(self, seen: Mapping[str, Look], digest: str | None, origin: Origin | None) -> None:
        """An artifact was sound; `seen` is how its files looked before they were read.

        What was changed in the same tick of the clock, or while it was read, is not remembered.
        """
        is_settled = all(time.time_ns() - look.ctime_ns > CLOCK_TICK_NS for look in seen.values())
        if seen and is_settled and look_at(map(Path, seen)) == seen:
            self._entries[next(iter(seen))] = Checked(dict(seen), digest, asdict(origin) if origin else None)
            self._is_changed = True

    def note_time_set(self, artifact: Path, path: Path) -> None:
        """This process has set the modification time of one file of an artifact, which changed its ctime as well."""
        entry, now = self._entries.get(str(artifact)), look_at([path]).get(str(path))
        before = entry.files.get(str(path)) if entry else None
        if entry and now and before and (before.size, before.inode) == (now.size, now.inode):
            self._entries[str(artifact)] = replace(entry, files={**entry.files, str(path): now})
            self._is_changed = True

    def save(self) -> None:
        """Writes what is new; where that cannot be done, artifacts are read again next time."""
        if not self._is_changed:
            return
        entries = {name: asdict(entry) for name, entry in sorted(self._entries.items())}
        try:
            write_text_atomically(paths.CHECKED, json.dumps(_head() | {"artifacts": entries}, indent=0) + "\n")
        except OverwriteError as error:
            announce(f"warning: {error}; artifacts are read again the next time")
        self._is_changed = False


def _head() -> dict[str, Any]:
    return {"format": "edpipe-checked", "format_version": FORMAT_VERSION, "edpipe": __version__}


def _read() -> dict[str, Checked]:
    """What was remembered by the same version of edpipe; nothing where the file is absent or no such file."""
    try:
        contents = json.loads(paths.CHECKED.read_text(encoding="utf-8"))
        if {name: contents[name] for name in _head()} != _head():
            return {}
        return {
            name: Checked(
                {path: Look(**look) for path, look in entry["files"].items()}, entry["digest"], entry["origin"]
            )
            for name, entry in contents["artifacts"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
