"""Which code drew a page: the page has no record beside it, and says so itself."""

import re
from pathlib import Path

_GENERATOR = re.compile(rb'<meta name="generator" content="edpipe report, code ([0-9a-f+]+)">')
_HEAD_BYTES = 4096
"""The line stands before this."""


def generator(code: str) -> str:
    """What the page names as its generator.

    >>> generator("1")
    'edpipe report, code 1'
    """
    return f"edpipe report, code {code}"


def read_page_code(path: Path) -> str | None:
    """Version of the code that drew the page; None where it names none, or cannot be read."""
    try:
        with path.open("rb") as stream:
            found = _GENERATOR.search(stream.read(_HEAD_BYTES))
    except OSError:
        return None
    return found[1].decode() if found else None
