"""What storing saved: teachers that were asked once instead of by every student, and work that several share."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edpipe.errors import CorruptFileError
from edpipe.params.schema import Params
from edpipe.pipeline.cache.inventory import Entry
from edpipe.pipeline.cache.places import Kind
from edpipe.pipeline.jobs.resources import dataset_of
from edpipe.pipeline.jobs.step_table import STEP
from edpipe.pipeline.state.cost_ledger import parts_of
from edpipe.storage.records import read_record, record_path


@dataclass(frozen=True)
class Group:
    """All files of one kind that are of the same entries of params.yaml."""

    kind: Kind
    label: str
    num_files: int
    num_bytes: int
    used_by: tuple[str, ...]
    seconds: float | None
    """That making them took; None where nobody noted it."""
    saved_seconds: float | None
    """That it would have taken again for each further experiment; None where it is not shared, or nobody knows."""
    forwards_spent: int | None = None
    """Images that went through the teacher, once."""
    forwards_saved: int | None = None
    """That the students which lie here would have asked for without a store, less those; negative until it pays."""


def groups_of(entries: Sequence[Entry], params: Params) -> list[Group]:
    """The entries by kind and name, in the order of the pipeline."""
    by_name: dict[tuple[Kind, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        by_name[entry.place.kind, entry.place.label].append(entry)
    online = _asked_online(entries, params)
    kinds = list(Kind)
    return [
        _group(*key, by_name[key], params, online) for key in sorted(by_name, key=lambda k: (kinds.index(k[0]), k[1]))
    ]


def _group(
    kind: Kind, label: str, entries: Sequence[Entry], params: Params, online: dict[tuple[Kind, str], int]
) -> Group:
    used_by = tuple(dict.fromkeys(name for entry in entries for name in entry.used_by))
    seconds, is_shared = _seconds(entries, params)
    spent = _forwards_spent(entries) if kind in (Kind.SOFT_LABELS, Kind.TRAJECTORY) else None
    return Group(
        kind,
        label,
        sum(entry.num_files for entry in entries),
        sum(entry.num_bytes for entry in entries),
        used_by,
        seconds,
        seconds * max(len(used_by) - 1, 0) if is_shared and seconds is not None else None,
        spent,
        None if spent is None else online.get((kind, label), 0) - spent,
    )


def _seconds(entries: Iterable[Entry], params: Params) -> tuple[float | None, bool]:
    """What the making of these took, as far as the ledger tells of these very artifacts; whether they are shared."""
    jobs = {job.outputs[0]: job for entry in entries if (job := entry.place.job(params))}
    known = [part.figures.seconds for part in parts_of(list(jobs.values())) if part.figures]
    return (sum(known) if known else None), any(STEP[job.step].is_shared for job in jobs.values())


def _forwards_spent(entries: Iterable[Entry]) -> int:
    """Rows that were stored, by the records beside the files; of a damaged record nothing is known."""
    return sum(
        _number(entry, "teacher_forwards") or _number(entry, "images_seen")
        for entry in entries
        if entry.path.suffix == ".h5"
    )


def _number(entry: Entry, key: str) -> int:
    try:
        found = read_record(record_path(entry.path)).get(key, 0)
    except CorruptFileError:
        return 0
    return found if isinstance(found, int) else 0


def _asked_online(entries: Iterable[Entry], params: Params) -> dict[tuple[Kind, str], int]:
    """Images that students which lie here would have shown to each teacher, counted as a result's budget does."""
    asked: dict[tuple[Kind, str], int] = defaultdict(int)
    for entry in entries:
        if entry.place.kind is not Kind.STUDENT or entry.path.suffix == ".json" or entry.reason:
            continue
        job = entry.place.job(params)
        images = _number(entry, "images_seen")
        if job is None or not images:
            continue
        dataset = dataset_of(params, job)
        for teacher in {use.teacher for use in job.knobs.plan.teachers}:
            asked[Kind.SOFT_LABELS, f"{dataset}/{teacher}"] += images
        if job.knobs.plan.trajectory is not None:
            asked[Kind.TRAJECTORY, f"{dataset}/{job.knobs.plan.trajectory.teacher}"] += images
    return asked
