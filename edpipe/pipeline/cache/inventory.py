"""Every file in artifacts/ and results/: what it is of, who needs it, and whether it may be deleted."""

import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from edpipe.params.schema import Params
from edpipe.pipeline.cache.places import Kind, Place, place_of, targets_of, why_gone
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.graph import jobs_of_result, jobs_of_searches
from edpipe.pipeline.jobs.students import report
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_state
from edpipe.pipeline.state.staleness import Verdict, assess
from edpipe.storage.unfinished import RESUME_FOLDER

ROOTS = (paths.ARTIFACTS, paths.RESULTS)


@dataclass(frozen=True)
class Entry:
    """One file, or a folder of an unfinished artifact."""

    path: Path
    place: Place
    num_files: int
    num_bytes: int
    """As the files' sizes say; of a link its own."""
    own_bytes: int
    """That deleting it would free: a file that DVC's cache holds by a hard link as well frees none."""
    used_by: tuple[str, ...] = ()
    """Experiments of params.yaml, studies as study_<study>, and searches as search_<search>."""
    reason: str = ""
    """Why it may be deleted; empty: it must stay."""


def inventory(params: Params) -> list[Entry]:
    """Everything that lies in artifacts/ and results/, sorted by path."""
    users, records = _users(params), Records()
    found = []
    for path, status in _walk(ROOTS):
        place = place_of(path)
        reason = _reason_unfinished(path, params, records) if place.kind is Kind.UNFINISHED else ""
        if place.step:
            job = place.job(params)
            reason = "" if job is not None and path in job.outputs else why_gone(place, params)
        files = [status] if not stat.S_ISDIR(status.st_mode) else [s for _, s in _below(path)]
        found.append(Entry(path, place, len(files), *_sizes(files), users.get(path, ()), reason))
    return sorted(found, key=lambda entry: entry.path)


def _users(params: Params) -> dict[Path, tuple[str, ...]]:
    """For each artifact, the experiments that need it."""
    users: dict[Path, list[str]] = {}
    for experiment in params.experiments:
        # Each once. What its page shows beside it is of other experiments, which are counted themselves.
        for job in {
            job.outputs[0]: job for job in (*jobs_of_result(params, experiment), report(params, experiment))
        }.values():
            for path in job.outputs:
                users.setdefault(path, []).append(experiment)
    for name, study in params.studies.items():
        for experiment in study.experiments:
            for suffix in (".json", ".csv"):
                users[paths.result_path(experiment).with_suffix(suffix)].append(f"{paths.STUDY_PREFIX}{name}")
    for name in params.searches:
        for job in jobs_of_searches(params, [name]):
            for path in job.outputs:
                users.setdefault(path, []).append(f"{paths.SEARCH_PREFIX}{name}")
    return {path: tuple(names) for path, names in users.items()}


def _walk(folders: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below, and every entry of hidden folders of unfinished artifacts; links are not followed."""
    for folder in folders:
        if not folder.is_dir():
            continue
        for entry in os.scandir(folder):
            path, status = Path(entry.path), entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False) and folder.name != RESUME_FOLDER:
                yield from _walk([path])
            else:
                yield path, status


def _below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))
        else:
            yield Path(entry.path), entry.stat(follow_symlinks=False)


def _sizes(files: Iterable[os.stat_result]) -> tuple[int, int]:
    """Bytes of all, and of those that no other name keeps."""
    files = list(files)
    return sum(s.st_size for s in files), sum(s.st_size for s in files if s.st_nlink == 1)


def _reason_unfinished(path: Path, params: Params, records: Records) -> str:
    """Why nobody will go on from what is left of an interrupted job; empty where somebody may."""
    if path.name.endswith(".partial"):
        return "left by a process that is gone" if _is_left_over(path.name) else ""
    jobs = [job for target in targets_of(path) if (job := place_of(target).job(params)) and target in job.outputs]
    if not jobs:
        return "unfinished, and params.yaml has no job that would go on from it"
    found = recorded_state(jobs[0], records)
    if assess(jobs[0], found, present_origin(jobs[0], records)).verdict is Verdict.CACHED:
        return f"unfinished, but {jobs[0].outputs[0]} is finished"
    return ""


def _is_left_over(name: str) -> bool:
    """Whether a process of this host wrote the file that is gone; of others nobody here can know."""
    host = re.sub(r"\W", "_", socket.gethostname())
    found = re.fullmatch(rf"\..+\.{re.escape(host)}-(\d+)\.partial", name)
    return found is not None and not psutil.pid_exists(int(found[1]))
