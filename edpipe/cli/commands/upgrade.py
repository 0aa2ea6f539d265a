"""`edpipe upgrade`: brings the workflow files of a project to those of the installed package."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from edpipe import __version__
from edpipe.errors import MismatchError
from edpipe.params.load import load_params
from edpipe.pipeline.dvc.record import record_check
from edpipe.pipeline.project.files import template, write_generated, write_own
from edpipe.pipeline.project.note import Note, is_newer_than_package, line_about_age, read_note, write_note
from edpipe.pipeline.project.renewal import Change, Fate, changes


def add_upgrade(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument(
        "--check", action="store_true", help="only say what would change; exit code 2 if anything would"
    )
    command.set_defaults(run=upgrade)


def upgrade(check: bool) -> None:
    """Writes and renews what the user has not changed, and names what is kept.

    Raises:
        ParamsError: this is no project folder, or params.yaml is wrong for this version; nothing is changed.
        MismatchError: a newer edpipe wrote the files; or `check`, and something would change.
        CorruptFileError: the note was altered.
        OverwriteError: a file cannot be written.
    """
    load_params()
    note = read_note()
    if note and is_newer_than_package(note):
        raise MismatchError(f"upgrade: {line_about_age()}; nothing was changed")
    found = list(changes(note))
    for change in found:
        print(_line(change, check))
    if check:
        _refuse_old(note, found)
    else:
        _write(found)
    print(f"{'this project is' if not found else 'this project is now'} that of edpipe {__version__}")


def _write(found: Sequence[Change]) -> None:
    for change in found:
        if change.fate is not Fate.KEPT and not change.is_generated:
            write_own(change.path)
    write_generated()
    write_note()
    record_check()


def _refuse_old(note: Note | None, found: Sequence[Change]) -> None:
    if found or line_about_age():
        last = note.version if note else "unknown"
        raise MismatchError(
            f"upgrade: these files are not those of edpipe {__version__} (last renewed by: {last}); `edpipe upgrade` "
            "renews them"
        )


def _line(change: Change, is_check: bool) -> str:
    if change.fate is not Fate.KEPT:
        return f"{change.path}: {'would be ' if is_check else ''}{change.fate}"
    return (
        f"{change.path}: kept, since you changed it; take over what is new from {_shown(template(change.path))}, or "
        "delete it and call `edpipe upgrade` again"
    )


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
