"""What a check found."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from edpipe.errors import EdpipeError


class Level(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARNING = "warning"
    """Works, but not as well as it could, or not for everything."""
    FAULT = "fault"
    """Something will fail."""


@dataclass(frozen=True)
class Finding:
    """One line."""

    level: Level
    what: str
    """That was looked at, in a word."""
    text: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""


Check = Callable[[], Iterable[Finding]]


def ok(what: str, text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, what, text)


def warning(what: str, text: str, remedy: str) -> Finding:
    """Something could be better."""
    return Finding(Level.WARNING, what, text, remedy)


def fault(what: str, text: str, remedy: str) -> Finding:
    """Something will fail."""
    return Finding(Level.FAULT, what, text, remedy)


def of_error(what: str, error: EdpipeError, level: Level = Level.FAULT) -> list[Finding]:
    """What edpipe itself says when it fails; each line ends with its own remedy."""
    return [Finding(level, what, line) for line in str(error).splitlines()]


def findings(checks: Iterable[tuple[str, Check]]) -> list[Finding]:
    """What all checks find; one that breaks is itself a finding, and the others still run."""
    found: list[Finding] = []
    for what, check in checks:
        try:
            found += check()
        except EdpipeError as error:
            found += of_error(what, error)
        except Exception as error:  # whatever it is: a broken installation must not hide the rest
            line = " ".join(str(error).split()) or "no message"
            found.append(fault(what, f"this check failed: {type(error).__name__}: {line}", "mend that, and look again"))
    return found
