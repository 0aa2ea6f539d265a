"""Whether two runs of a job made the same, apart from what names the code itself."""

import json
import re
from pathlib import Path
from typing import Any

from edpipe.params.plans.plan import plan_as_now
from edpipe.storage.job import Job
from edpipe.storage.records import SEAL

NAMES_OF_CODE = ("code", SEAL, "file_digest")
"""Keys that differ between two pieces of code by themselves, at any depth: evaluations name the code of stages."""
_GENERATOR = re.compile(rb'<meta name="generator" content="[^"]*">')
OF_RESULTS = ("digest", "cost", "results", "evaluations", "training_cpu_seconds")
"""Keys of what is made from several records: digests of them, which cover their code, and times."""
FROM_RECORDS = ("result", "search", "study")


def first_difference(job: Job, before: Path, now: Path) -> str | None:
    """Which output of a job differs between two project folders first, and where; None: none does."""
    for output in job.outputs:
        if not (before / output).exists():
            return f"{output}: was not made by the confirmed code"
        old, new = (before / output).read_bytes(), (now / output).read_bytes()
        if output.suffix == ".json":
            found = _difference(_contents(job, old), _contents(job, new))
            if found:
                return f"{output}: {found}"
        elif (difference := _first_byte(_GENERATOR.sub(b"", old), _GENERATOR.sub(b"", new))) is not None:
            return f"{output}: differs from byte {difference} on"
    return None


def _contents(job: Job, text: bytes) -> dict[str, Any]:
    """What a record says besides its code; what is made from records has digests of code, and tells of times."""
    left_out = NAMES_OF_CODE if job.step not in FROM_RECORDS else (*NAMES_OF_CODE, *OF_RESULTS)
    contents = json.loads(text)
    kept = {"results": contents["results"]} if job.step == "study" else {}  # its rows, not the digests in its inputs
    return _as_now(_without(contents, left_out) | {name: _without(rows, left_out) for name, rows in kept.items()})


def _without(value: Any, left_out: tuple[str, ...]) -> Any:
    """A record without these keys, at any depth."""
    if isinstance(value, list):
        return [_without(part, left_out) for part in value]
    if not isinstance(value, dict):
        return value
    return {name: _without(part, left_out) for name, part in value.items() if name not in left_out}


def _as_now(value: Any) -> Any:
    """The same with every plan of a stage in today's words."""
    if isinstance(value, list):
        return [_as_now(part) for part in value]
    if not isinstance(value, dict):
        return value
    found = plan_as_now(value) if {"num_stages", "taught", "budget"} <= value.keys() else value
    return {name: _as_now(part) for name, part in found.items()}


def _difference(before: object, now: object, path: str = "") -> str:
    """The first value that differs, by its dotted path; empty: none does.

    >>> _difference({"a": [1, 2]}, {"a": [1, 3]})
    'a.1 was 2, is 3'
    """
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        pairs = [(str(name), before[name], now[name]) for name in sorted(before)]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(str(number), old, new) for number, (old, new) in enumerate(zip(before, now, strict=True))]
    else:
        # As texts: to Python 1, 1.0 and True are equal.
        is_same = json.dumps(before) == json.dumps(now)
        return "" if is_same else f"{path} was {_shown(before)}, is {_shown(now)}"
    found = (_difference(old, new, f"{path}.{name}" if path else name) for name, old, new in pairs)
    return next(filter(None, found), "")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _first_byte(before: bytes, now: bytes) -> int | None:
    """Where two texts differ first; None: nowhere."""
    if before == now:
        return None
    pairs = zip(before, now, strict=False)
    return next((n for n, (old, new) in enumerate(pairs) if old != new), min(len(before), len(now)))
