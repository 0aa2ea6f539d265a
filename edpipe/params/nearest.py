"""What a name that is not known may have been meant to be."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line: the nearest known name, or all of them.

    >>> nearest("temprature", ["temperature", "teacher"])
    "; did you mean 'temperature'?"
    >>> nearest("x", ["b", "a"])
    '; known: a, b'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known) or 'none'}"
