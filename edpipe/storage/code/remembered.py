"""Digests of units that an earlier process computed from the very same texts, kept beside Python's compiled modules.

Those of the package hang on nothing but its texts, this analysis among them, and on the version of Python that parses
them. So any other text makes them void, and the file may be deleted at any time.
"""

import json
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from edpipe.params.plans.registered import REGISTRY
from edpipe.storage.code.modules import SourceTree
from edpipe.storage.code.units import unit_digest
from edpipe.storage.digests import digest_json

HERE = SourceTree(Path(__file__).resolve().parents[2])
"""The package that runs."""
TEXTS, DIGESTS, SEAL = "texts", "digests", "file_digest"


def remembered_digest(unit: str) -> str:
    """Digest of what the code of a unit means; computed if no process has done so before, and for plugins always.

    Raises:
        KeyError: there is no such unit.
    """
    if unit in REGISTRY.places:
        return unit_digest(HERE, unit)
    known = _known()
    if unit not in known:
        known[unit] = unit_digest(HERE, unit)
        _write(known)
    return known[unit]


def path() -> Path:
    """Where they are kept."""
    return HERE.root / "__pycache__" / f"units.{sys.implementation.cache_tag}.json"


@cache
def _texts_digest() -> str:
    return digest_json(dict(HERE.texts))


@cache
def _known() -> dict[str, str]:
    """Of these texts, the digests by unit; this process adds its own."""
    try:
        contents = json.loads(path().read_text(encoding="utf-8"))
        is_whole = contents.pop(SEAL) == digest_json(contents) and contents[TEXTS] == _texts_digest()
        return contents[DIGESTS] if is_whole else {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def _write(known: dict[str, str]) -> None:
    """Keeps them where compiled modules are kept too; where that is not possible, they are computed every time."""
    contents = {TEXTS: _texts_digest(), DIGESTS: known}
    partial = path().with_suffix(f".{os.getpid()}.partial")
    with suppress(OSError):
        if not sys.dont_write_bytecode:
            path().parent.mkdir(exist_ok=True)
            partial.write_text(json.dumps(contents | {SEAL: digest_json(contents)}), encoding="utf-8")
            os.replace(partial, path())
