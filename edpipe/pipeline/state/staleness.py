"""Whether an artifact is what params.yaml, the code and its inputs would give now; if not, what is made again.

Values in, values out: what lies on disk is read by `recorded`. The rules by which one job's change reaches others are
Snakemake's own, so that both say the same.
"""

import json
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from edpipe.storage.job import Job

SHOWN_LENGTH = 60
"""Characters of a knob's value in a reason; the rest is cut off."""
NOTHING = "nothing"
"""How a knob or an input that is not there is shown."""


class Verdict(StrEnum):
    """What is to be thought of one job's artifact."""

    CACHED = "cached"
    """Made with the knobs, code and inputs of today."""
    STALE = "stale"
    """Made with others."""
    WAITS = "waits"
    """Fits by itself, and is made again only because something before it is."""
    ABSENT = "absent"
    DAMAGED = "damaged"
    """Its own reader or its record refuses it."""


@dataclass(frozen=True)
class Origin:
    """What an artifact was made from, or would be made from now."""

    step: str
    knobs: Mapping[str, Any]
    code: Mapping[str, str]
    """Versions, by unit; see `storage.code.versions`."""
    versions: Mapping[str, str]
    inputs: Mapping[str, tuple[str, ...]]
    """Digests by role; a role of which nothing is known is left out, and then not compared."""


@dataclass(frozen=True)
class RecordedState:
    """What was found of one job's outputs."""

    recorded: Origin | None = None
    """None: there is no record, or none that can be read."""
    missing: frozenset[Path] = frozenset()
    """Outputs that are not there."""
    damage: str = ""
    """Why its reader refuses it; empty: sound, as far as was looked."""
    reasons: tuple[str, ...] = ()
    """Why an artifact that has no record is stale."""


@dataclass(frozen=True)
class Assessment:
    """One artifact's verdict and why."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Worth knowing, but nothing is made again for it."""


@dataclass(frozen=True)
class Outcome:
    """What would become of one job."""

    job: Job
    verdict: Verdict
    is_run: bool
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)


def title(job: Job) -> str:
    """What a job is called where people read.

    >>> title(Job("run_stage", {"experiment": "ed", "seed": 0, "stage": "middle"}, {}, {}, ()))
    'run_stage ed seed 0 middle'
    """
    words = (f"seed {value}" if name == "seed" else str(value) for name, value in job.arguments.items())
    return " ".join([job.step, *words])


def assess(job: Job, evidence: RecordedState, present: Origin) -> Assessment:
    """The verdict on one artifact by itself; what happens to others is not looked at."""
    recorded = evidence.recorded
    reasons = evidence.reasons if recorded is None else differences(recorded, present)
    notes = () if recorded is None else version_notes(recorded, present)
    if job.outputs[0] in evidence.missing:
        return Assessment(Verdict.ABSENT, reasons)
    if evidence.damage:
        return Assessment(Verdict.DAMAGED, (evidence.damage,))
    return Assessment(Verdict.STALE if reasons else Verdict.CACHED, reasons, notes)


def differences(recorded: Origin, present: Origin) -> tuple[str, ...]:
    """Why what was made then is not what would be made now, a phrase for each; empty if it is."""
    reasons = [] if recorded.knobs == present.knobs else knob_changes(recorded.knobs, present.knobs)
    if recorded.step != present.step:
        reasons.insert(0, f"was made by {recorded.step}, now {present.step} makes it")
    else:
        reasons += code_changes(recorded.code, present.code)
    for role, digests in present.inputs.items():
        if role in recorded.inputs and recorded.inputs[role] != digests:
            reasons.append(f"{_input_name(role)} another one now ({_input_change(recorded.inputs[role], digests)})")
    return tuple(reasons)


def code_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A phrase for each unit of code that is another one now.

    >>> code_changes({"steps.run_stage": "1", "losses.kd": "1"}, {"steps.run_stage": "1", "losses.kd": "2"})
    ['the code of losses.kd is another one now (1 → 2)']
    """
    changed = [unit for unit in sorted(before.keys() | now.keys()) if before.get(unit) != now.get(unit)]
    return [
        f"the code of {unit} is another one now ({before.get(unit, NOTHING)} → {now.get(unit, NOTHING)})"
        for unit in changed
    ]


def _input_name(role: str) -> str:
    """
    >>> _input_name("soft_labels"), _input_name("dataset")
    ('soft labels are', 'dataset is')
    """
    return f"{role.replace('_', ' ')} {'are' if role.endswith('s') and role != 'previous' else 'is'}"


def _input_change(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    """The first digests that differ; how many there are, if that differs."""
    if len(before) > 1 and len(now) > 1 and len(before) != len(now):
        return f"{len(before)} files → {len(now)}"
    changed = [(old, new) for old, new in zip(before, now, strict=False) if old != new]
    old, new = changed[0] if changed else (NOTHING, NOTHING)
    if not changed:
        old, new = (*before[len(now) :], NOTHING)[0], (*now[len(before) :], NOTHING)[0]
    others = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"{old} → {new}{others}"


def version_notes(recorded: Origin, present: Origin) -> tuple[str, ...]:
    """Libraries that are not those of then; Snakemake makes nothing again for that."""
    names = sorted(recorded.versions.keys() | present.versions.keys())
    pairs = {name: (recorded.versions.get(name, NOTHING), present.versions.get(name, NOTHING)) for name in names}
    return tuple(f"{name} {old} → {new}" for name, (old, new) in pairs.items() if old != new)


def knob_changes(before: object, now: object, path: str = "") -> list[str]:
    """Every knob whose value differs, by its dotted path; a group that is one value on either side is told as a whole.

    >>> knob_changes({"fitting": {"epochs": 20}}, {"fitting": {"epochs": 30}})
    ['knob fitting.epochs 20 → 30']
    """
    old, new = _parts(before), _parts(now)
    if old is None or new is None:
        return [] if before == now else [f"knob {path} {_shown(before)} → {_shown(now)}"]
    changes: list[str] = []
    for name in old | new:
        inner = f"{path}.{name}" if path else name
        changes += knob_changes(old.get(name, _ABSENT), new.get(name, _ABSENT), inner)
    return changes


_ABSENT = object()


def _parts(value: object) -> dict[str, object] | None:
    """The knobs of a group, or the groups of a list, counted from 0; None for a plain value."""
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        return {str(number): part for number, part in enumerate(value)}
    return dict(value) if isinstance(value, Mapping) else None


def _shown(value: object) -> str:
    text = NOTHING if value is _ABSENT else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 1]}…"


def version_lines(found: Iterable[Outcome]) -> list[str]:
    """The notes of many artifacts, a line for each library."""
    notes = Counter(note for outcome in found for note in outcome.notes)
    return [
        f"note: {note} since {count} artifact{' was' if count == 1 else 's were'} made; nothing is made again for that"
        for note, count in notes.items()
    ]


def made_from(path: Path, jobs: Sequence[Job]) -> list[Path]:
    """The artifacts of jobs that read this one or what was made from it; jobs stand before what reads their outputs."""
    reached = {path} | {output for job in jobs if path in job.outputs for output in job.outputs}
    found = []
    for job in jobs:
        if not reached.isdisjoint(job.all_inputs):
            reached.update(job.outputs)
            found.append(job.outputs[0])
    return found


def outcomes(
    jobs: Sequence[Job],
    judgements: Sequence[Assessment],
    missing: Sequence[frozenset[Path]],
    targets: frozenset[Path] = frozenset(),
) -> list[Outcome]:
    """What Snakemake would do if asked for `targets`, for each job; jobs stand before what reads their outputs.

    A stale job runs, and so does all that reads its outputs, directly or not. A missing output is made only if it is a
    target or a job that runs reads it. A damaged artifact is made again as a stale one is.
    """
    spread = _Spread(jobs, missing)
    for number, judgement in enumerate(judgements):
        is_changed = judgement.verdict is not Verdict.CACHED and bool(judgement.reasons)
        if is_changed or missing[number] & targets:
            spread.start(number)
    spread.run()
    return [_outcome(job, judgements[n], spread, n) for n, job in enumerate(jobs)]


def _outcome(job: Job, judgement: Assessment, spread: "_Spread", number: int) -> Outcome:
    if number not in spread.cause:
        return Outcome(job, judgement.verdict, False, judgement.reasons, judgement.notes)
    if judgement.verdict is Verdict.CACHED and number not in spread.wanted:
        return Outcome(job, Verdict.WAITS, True, (f"after {title(spread.jobs[spread.cause[number]])}",))
    return Outcome(job, judgement.verdict, True, judgement.reasons or (str(judgement.verdict),), judgement.notes)


class _Spread:
    """The jobs that run, found from those that run by themselves."""

    def __init__(self, jobs: Sequence[Job], missing: Sequence[frozenset[Path]]) -> None:
        self.jobs, self.missing = jobs, missing
        self.cause: dict[int, int] = {}
        """For each job that runs, the first that made it run; for one that runs by itself, that job."""
        self.wanted: set[int] = set()
        """Jobs that run by themselves, or because a missing output of theirs is read."""
        self._waiting: deque[int] = deque()
        maker = {path: number for number, job in enumerate(jobs) for path in job.outputs}
        self._before = [sorted({maker[p] for p in job.all_inputs if p in maker}) for job in jobs]
        self._after: list[list[int]] = [[] for _ in jobs]
        for number, before in enumerate(self._before):
            for other in before:
                self._after[other].append(number)

    def start(self, number: int) -> None:
        """This job runs by itself."""
        self._visit(number, number)
        self.wanted.add(number)

    def _visit(self, number: int, cause: int) -> None:
        if number not in self.cause:
            self.cause[number] = cause
            self._waiting.append(number)

    def run(self) -> None:
        """All that follows from the jobs that were started."""
        while self._waiting:
            number = self._waiting.popleft()
            for before in self._before[number]:
                if not self.missing[before].isdisjoint(self.jobs[number].all_inputs):
                    self._visit(before, before)
                    self.wanted.add(before)
            for after in self._after[number]:
                self._visit(after, self.cause[number])
