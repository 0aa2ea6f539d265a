"""JSON files that vouch for themselves: each holds its format, the version of that, and the digest of all the rest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edpipe.errors import CorruptFileError, remake
from edpipe.storage.digests import digest_json
from edpipe.storage.records import read_record, write_record

SEAL = "file_digest"
"""Key of the digest of everything else in the file."""
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class JsonFormat:
    """What such a file says that it is."""

    name: str
    """As it stands in the file."""
    version: int
    what: str
    """As errors call it."""
    instead: str = ""
    """What people should change, where they may come to edit this file."""

    @property
    def entries(self) -> dict[str, Any]:
        """Those that say so in the file."""
        return {"format": self.name, "format_version": self.version}


def write_sealed_json(path: Path, form: JsonFormat, contents: Mapping[str, Any]) -> None:
    """Writes the file, whole or not at all, with format and digest added; equal contents give equal bytes."""
    whole = {**contents, **form.entries}
    write_record(path, whole | {SEAL: digest_json(whole)})


def read_sealed_json(path: Path, form: JsonFormat, parse: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    """What `parse` makes of all that was written, with the format and without the digest.

    Raises:
        CorruptFileError: missing, no JSON object, of another format or version, or altered; or `parse` raises an error
            because something is missing (KeyError) or of another kind (TypeError, ValueError).
    """
    contents = read_record(path)
    if any(contents.get(name) != value for name, value in form.entries.items()):
        raise CorruptFileError(f"{path}: not a {form.what} of version {form.version}; {remake(path)}")
    if not is_sealed(contents):
        instead = f"change {form.instead} instead, then " if form.instead else ""
        raise CorruptFileError(f"{path}: altered since written; {instead}{remake(path)}")
    del contents[SEAL]
    try:
        return parse(contents)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: not a whole {form.what} ({error!r}); {remake(path)}") from error


def is_sealed(contents: Mapping[str, Any]) -> bool:
    """Whether they hold the digest of the rest of them."""
    return contents.get(SEAL) == digest_json({name: value for name, value in contents.items() if name != SEAL})
