"""Versions of units, and the digests at which they were confirmed; what a record says of the code that made it.

A version says that two pieces of code give the same bytes. `edpipe code confirm` shows it by running both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from edpipe.errors import CorruptFileError
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.code.remembered import HERE, remembered_digest
from edpipe.storage.digests import digest_json

CONFIRMED = HERE.root / "storage" / "code" / "confirmed.yaml"
SEAL = "file_digest"
HEADER = (
    "# Written by `edpipe code confirm`; do not edit. For each unit of the code: its version, and the digest of its\n"
    "# meaning at which this version was confirmed. A job hangs on the version as long as the digest is this one.\n"
)


@dataclass(frozen=True)
class Confirmed:
    """What is known of one unit."""

    version: int
    digest: str


@cache
def confirmed(path: Path = CONFIRMED) -> Mapping[str, Confirmed]:
    """What was confirmed, by unit; read once a process.

    Raises:
        CorruptFileError: the file is missing or was altered by hand.
    """
    found, contents = read_entries(path), _read(path)
    if contents.get(SEAL) != _seal(found):
        raise CorruptFileError(
            f"{path}: altered since written; restore it with git, or, after a merge, call `edpipe code --merged`"
        )
    return found


def read_entries(path: Path = CONFIRMED) -> Mapping[str, Confirmed]:
    """What stands in the file, whether or not its digest fits.

    Raises:
        CorruptFileError: the file is missing, or holds something else.
    """
    contents = _read(path)
    try:
        return {
            f"{kind}.{name}": Confirmed(int(entry["version"]), str(entry["digest"]))
            for kind, entries in contents.items()
            if kind != SEAL
            for name, entry in entries.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: holds something else ({error!r}); restore it with git") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        contents = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise CorruptFileError(f"{path}: cannot be read ({what}); restore it with git") from error
    if not isinstance(contents, dict):
        raise CorruptFileError(f"{path}: must be a mapping, got {type(contents).__name__}; restore it with git")
    return contents


def _seal(entries: Mapping[str, Confirmed]) -> str:
    return digest_json({unit: [entry.version, entry.digest] for unit, entry in entries.items()})


def confirmed_text(entries: Mapping[str, Confirmed]) -> str:
    """What the file must hold."""
    lines = [HEADER]
    for kind in dict.fromkeys(unit.split(".")[0] for unit in entries):
        lines.append(f"{kind}:\n")
        named = {unit.split(".")[1]: entry for unit, entry in entries.items() if unit.startswith(f"{kind}.")}
        # In quotes: a digest of decimal digits would be read as a number.
        lines += [f'  {name}: {{version: {e.version}, digest: "{e.digest}"}}\n' for name, e in named.items()]
    return "".join(lines) + f'{SEAL}: "{_seal(entries)}"\n'


def write_confirmed(entries: Mapping[str, Confirmed], path: Path = CONFIRMED) -> None:
    """Writes the file, whole or not at all."""
    write_text_atomically(path, confirmed_text(entries))
    confirmed.cache_clear()


def is_edited(unit: str) -> bool:
    """Whether the code of a unit means something that was not confirmed."""
    entry = confirmed().get(unit)
    return entry is None or entry.digest != remembered_digest(unit)


def token(unit: str) -> str:
    """The version of one unit as records hold it; after an edit that was not confirmed, with the digest.

    Raises:
        KeyError: the package has no such unit.
    """
    entry = confirmed().get(unit, Confirmed(0, ""))
    digest = remembered_digest(unit)
    return str(entry.version) if digest == entry.digest else f"{entry.version}+{digest}"


def tokens(units: Iterable[str]) -> dict[str, str]:
    """The version of each unit, as it was when this process first computed it."""
    return {unit: token(unit) for unit in sorted(set(units))}


def settled(unit: str, recorded: str) -> str:
    """A version in a record, as it would be written now: an edit that was confirmed since has no digest any more.

    >>> settled("steps.of_another_edpipe", "1+0123456789abcdef")
    '1+0123456789abcdef'
    """
    entry = confirmed().get(unit)
    return str(entry.version) if entry and recorded == f"{entry.version}+{entry.digest}" else recorded
