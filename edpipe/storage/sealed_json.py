"""Sealed JSON files of a format of their own: each also holds the name of the format and its version."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edpipe.errors import CorruptFileError, remake
from edpipe.storage.records import check_seal, read_json_object, without_seal, write_record

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
    write_record(path, {**contents, **form.entries})


def read_sealed_json(path: Path, form: JsonFormat, parse: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    """What `parse` makes of all that was written, with the format and without the digest.

    Raises:
        CorruptFileError: missing, no JSON object, of another format or version, or altered; or `parse` raises an error
            because something is missing (KeyError) or of another kind (TypeError, ValueError).
    """
    contents = read_json_object(path)
    if any(contents.get(name) != value for name, value in form.entries.items()):
        raise CorruptFileError(f"{path}: not a {form.what} of version {form.version}; {remake(path)}")
    check_seal(path, contents, form.instead)
    try:
        return parse(without_seal(contents))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: not a whole {form.what} ({error!r}); {remake(path)}") from error
