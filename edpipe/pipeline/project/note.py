"""workflow/edpipe_project.json: which edpipe wrote a project's files, and their digests as it wrote them.

So `edpipe upgrade` tells what a user has changed from what is merely old.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpipe import __version__
from edpipe.errors import CorruptFileError
from edpipe.pipeline.project.files import wanted_digests
from edpipe.storage.sealed_json import JsonFormat, read_sealed_json, write_sealed_json

NOTE = Path("workflow/edpipe_project.json")
FORMAT = JsonFormat("edpipe-project", 1, "note of a project's files")


@dataclass(frozen=True)
class Note:
    """What was written here last."""

    version: str
    """Of the edpipe that wrote it."""
    digests: Mapping[str, str]
    """By path: of what the package of that version writes."""


def read_note() -> Note | None:
    """The note of this folder; None: there is none.

    Raises:
        CorruptFileError: it was altered, or cannot be read.
    """
    if not NOTE.is_file():
        return None
    try:
        return read_sealed_json(NOTE, FORMAT, _parse)
    except CorruptFileError as error:
        raise CorruptFileError(
            f"{NOTE}: altered since written, or no {FORMAT.what}; restore it with git, or delete it and call "
            "`edpipe upgrade`"
        ) from error


def _parse(contents: dict[str, Any]) -> Note:
    return Note(str(contents["edpipe"]), {str(path): str(digest) for path, digest in contents["files"].items()})


def write_note() -> None:
    """Notes that the project's files are those of this package, or that the user has been told which are not.

    Raises:
        OverwriteError: it cannot be written.
    """
    write_sealed_json(NOTE, FORMAT, {"edpipe": __version__, "files": wanted_digests()})


def version_key(version: str) -> tuple[int, ...]:
    """For comparing versions.

    >>> version_key("0.10.0") > version_key("0.9.1")
    True
    """
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())


def is_newer_than_package(note: Note) -> bool:
    """Whether a later edpipe wrote the files."""
    return version_key(note.version) > version_key(__version__)


def line_about_age() -> str | None:
    """What a run should say of this folder's files: another edpipe wrote them, or nobody knows which; or None.

    Raises:
        CorruptFileError: the note was altered.
    """
    note = read_note()
    if note is None:
        return f"{NOTE} is missing, so that the age of this project's files is unknown; `edpipe upgrade` writes it"
    if is_newer_than_package(note):
        return (
            f"this project's files were written by edpipe {note.version}, and {__version__} is installed; install "
            f"{note.version} or newer"
        )
    if note.version != __version__ or dict(note.digests) != wanted_digests():
        return (
            f"the workflow files here are older than the installed edpipe {__version__}; `edpipe upgrade --check` says "
            "what would change, `edpipe upgrade` renews them"
        )
    return None
