"""Which code drew a page, and from which result: the page has no record beside it, and says so itself."""

import re
from pathlib import Path

_GENERATOR = re.compile(rb'<meta name="generator" content="edpipe report, code ([0-9a-f+]+)">')
_RESULT = re.compile(rb'<meta name="edpipe-result" content="([0-9a-f]+)">')
_HEAD_BYTES = 4096
"""Both lines stand before this."""


def generator(code: str) -> str:
    """What the page names as its generator.

    >>> generator("1")
    'edpipe report, code 1'
    """
    return f"edpipe report, code {code}"


def read_page_code(path: Path) -> str | None:
    """Version of the code that drew the page; None where it names none, or cannot be read."""
    return _named(path, _GENERATOR)


def read_page_result(path: Path) -> str | None:
    """`file_digest` of the result that the page was drawn from; None where it names none, or cannot be read."""
    return _named(path, _RESULT)


def _named(path: Path, line: re.Pattern[bytes]) -> str | None:
    try:
        with path.open("rb") as stream:
            found = line.search(stream.read(_HEAD_BYTES))
    except OSError:
        return None
    return found[1].decode() if found else None
