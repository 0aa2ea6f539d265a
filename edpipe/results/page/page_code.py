"""Which code drew a page, and from which results: the page has no record beside it, and says so itself."""

import re
from collections.abc import Sequence
from pathlib import Path

_GENERATOR = re.compile(rb'<meta name="generator" content="edpipe report, code ([0-9a-f+]+)">')
_RESULTS = re.compile(rb'<meta name="edpipe-result" content="([0-9a-f ]+)">')
_HEAD_BYTES = 4096
"""Both lines stand before this."""


def generator(code: str) -> str:
    """What the page names as its generator.

    >>> generator("1")
    'edpipe report, code 1'
    """
    return f"edpipe report, code {code}"


def named_results(seals: Sequence[str]) -> str:
    """What the page names as its results: its own, then those beside it.

    >>> named_results(["0123", "4567"])
    '0123 4567'
    """
    return " ".join(seals)


def read_page_code(path: Path) -> str | None:
    """Version of the code that drew the page; None where it names none, or cannot be read."""
    return _named(path, _GENERATOR)


def read_page_results(path: Path) -> tuple[str, ...]:
    """`file_digest` of each result that the page was drawn from, its own first; none where it cannot be read."""
    return tuple((_named(path, _RESULTS) or "").split())


def _named(path: Path, line: re.Pattern[bytes]) -> str | None:
    try:
        with path.open("rb") as stream:
            found = line.search(stream.read(_HEAD_BYTES))
    except OSError:
        return None
    return found[1].decode() if found else None
