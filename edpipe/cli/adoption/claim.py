"""One artifact that asks to be taken over, what was shown of it, and the rules that all kinds of artifacts share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edpipe.errors import MismatchError
from edpipe.storage.job import Job
from edpipe.storage.records import library_versions, record_path

SEED = 0
"""Of what is drawn to be compared: the same call compares the same."""
NOT_COMPARED = ("code", "versions", "adopted")
"""Of a record: what it is adopted for, and what it keeps."""


class UnshownError(MismatchError):
    """It cannot be shown that an artifact is what the present code would make."""


@dataclass(frozen=True)
class Claim:
    """One artifact that other code made. Its knobs and inputs are the present ones; that much is known already."""

    job: Job[Any]
    record: Mapping[str, Any]
    """As it was found, without its seal."""
    folder: Path
    """The project folder; the working folder is a mirror of it, where everything may be overwritten."""
    is_other_machine: bool
    """Whether another type of machine, or other numbers of threads or processes, may have made it."""

    @property
    def path(self) -> Path:
        """The artifact."""
        return self.job.outputs[0]

    @property
    def needs_equality(self) -> bool:
        """Whether computing again must give the very same bits: same libraries, same type of machine."""
        return not self.is_other_machine and self.record.get("versions") == library_versions()

    def fact(self, name: str) -> Any:
        """An entry of the record.

        Raises:
            UnshownError: it has none.
        """
        if name not in self.record:
            raise UnshownError(f"{record_path(self.path)}: has no '{name}', so there is nothing to compare with")
        return self.record[name]

    def differs(self, what: str, then: object, now: object) -> UnshownError:
        """The error for a fact of the artifact that is another one when it is made again."""
        return UnshownError(f"{self.path}: its {what} is {_shown(then)}, made again it is {_shown(now)}")

    def compare(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The record with what the present edpipe writes beyond it.

        Args:
            fresh: what the record would be now, or a part of that.

        Raises:
            UnshownError: an entry that both have differs; code and libraries are not compared.
        """
        compared = {name: value for name, value in fresh.items() if name not in NOT_COMPARED}
        return {**self.record, **self._completed("", self.record, compared)}

    def _completed(self, place: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in now.items():
            if isinstance(value, Mapping) and isinstance(then.get(name), Mapping):
                found[name] = {**then[name], **self._completed(f"{place}{name}.", then[name], value)}
            elif name in then and then[name] != value:
                raise self.differs(f"{place}{name}", then[name], value)
            else:
                found[name] = value
        return found


@dataclass(frozen=True)
class Evidence:
    """What was shown."""

    text: str
    """For people, a phrase."""
    shown: dict[str, Any]
    """For the record: kind, counts, largest differences."""
    record: dict[str, Any] = field(repr=False)
    """As found, completed with what the present edpipe writes."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
