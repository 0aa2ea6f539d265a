"""Deletes what nobody needs, while nobody is at work, and nothing outside artifacts/ and results/."""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edpipe.errors import BusyError, OverwriteError
from edpipe.pipeline.cache.inventory import ROOTS, Entry
from edpipe.pipeline.dvc import repo
from edpipe.pipeline.state.artifact_lock import makers_at_work
from edpipe.pipeline.state.running import other_runs
from edpipe.storage.unfinished import lock


@dataclass
class Deleted:
    """What was deleted."""

    num_files: int = 0
    freed_bytes: int = 0


def refuse_while_at_work() -> None:
    """That neither Snakemake nor DVC nor a step is at work here, and that both folders are this project's own.

    Raises:
        BusyError: one is.
        OverwriteError: artifacts or results is a link to another place.
    """
    for run in other_runs():
        raise BusyError(
            f"cache: snakemake is at work in this folder (process {run.pid} on {run.host}); wait for its end; if there "
            f"is no such process, delete {run.path}"
        )
    for maker in makers_at_work():
        raise BusyError(
            f"cache: {maker} has been making an artifact in this folder since {maker.since}; wait for its end"
        )
    if repo.is_set_up() and repo.is_busy():
        raise BusyError(f"cache: {repo.BUSY}")
    for root in ROOTS:
        if root.is_symlink():
            raise OverwriteError(
                f"{root}: is a link to {root.readlink()}; nothing outside this folder is deleted; delete there by hand"
            )


def delete(entries: Sequence[Entry]) -> Deleted:
    """Deletes these; folders that are empty then go too.

    Raises:
        OverwriteError: one cannot be deleted; the others are.
    """
    done, problems = Deleted(), []
    for entry in entries:
        try:
            _delete_one(entry.path)
        except (OSError, BusyError) as error:
            problems.append(f"{entry.path}: cannot be deleted: {getattr(error, 'strerror', None) or error}")
            continue
        done.num_files += entry.num_files
        done.freed_bytes += entry.own_bytes
    _remove_empty(entry.path.parent for entry in entries)
    if problems:
        raise OverwriteError(*problems, f"{done.num_files:,} others are deleted, {done.freed_bytes:,} bytes are free")
    return done


def _delete_one(path: Path) -> None:
    if not _is_inside(path):
        raise OSError(f"leads out of {' and '.join(map(str, ROOTS))}")
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    elif (path / "lock").exists():
        with lock(path / "lock", "this file"):
            shutil.rmtree(path)
    else:
        shutil.rmtree(path)


def _is_inside(path: Path) -> bool:
    """Whether no folder on the way to it is a link, and it is below one of the two."""
    folders = [parent for parent in path.parents if parent.parts]
    return any(root in folders for root in ROOTS) and not any(folder.is_symlink() for folder in folders)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in sorted(set(folders), key=lambda path: len(path.parts), reverse=True):
        while folder not in ROOTS and folder.parts:
            with suppress(OSError):
                folder.rmdir()
            folder = folder.parent if not folder.exists() else Path()
