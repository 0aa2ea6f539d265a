"""Artifacts in a store of Snakemake's (`--default-storage-provider s3`), of which this host has local copies alone.

Steps know artifacts by their paths in the project folder. So there `artifacts` and `results` become links to the folder
of local copies. Snakemake fetches what a job reads, and sends what it made. Records are fetched before the graph is
built, and decide what is stale, as they do for files; contents are checked by the step that reads them.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpipe.errors import MismatchError
from edpipe.params.schema import Params
from edpipe.pipeline.dvc import repo
from edpipe.pipeline.dvc import snakemake_metadata as metadata
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.step_table import STEP, Artifact
from edpipe.pipeline.state.judgement import all_jobs
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_state
from edpipe.pipeline.state.staleness import Verdict, assess
from edpipe.storage.job import Job
from edpipe.storage.records import record_path

LINKED = (paths.ARTIFACTS, paths.RESULTS)
COPIES = Path(".snakemake/storage")
"""Where Snakemake keeps local copies, unless it is told another folder."""


@dataclass(frozen=True)
class Store:
    """Where Snakemake puts the files of a run."""

    provider: Any
    """Snakemake's, of its default storage."""
    prefix: str
    """Before the path of each file, without a slash at its end."""

    def address(self, path: Path | str) -> str:
        """Of a file of the project; Snakemake's metadata has it under this name."""
        return f"{self.prefix}/{path}"

    def local_path(self, path: Path) -> Path:
        """Where this host has its copy, if it has one."""
        return Path(self.provider.object(self.address(path)).local_path())

    def plain_path(self, local: str) -> str:
        """The path in the project of a local copy; any other path as it is."""
        return local.removeprefix(f"{self.local_path(Path('x')).parent}/")

    def fetch(self, path: Path) -> bool:
        """Makes the local copy that of the store; whether there is one.

        Raises:
            MismatchError: the store does not answer.
        """
        stored = self.provider.object(self.address(path))
        local = Path(stored.local_path())
        try:
            if not stored.exists():
                local.unlink(missing_ok=True)
                return False
            local.parent.mkdir(parents=True, exist_ok=True)
            stored.retrieve_object()
        except Exception as error:  # each kind of store has errors of its own
            line = " ".join(str(error).split()) or type(error).__name__
            raise MismatchError(
                f"{self.address(path)}: the store does not answer: {line}; look at its address, your network and your "
                "rights"
            ) from error
        return True


def store_of(workflow: Any) -> Store | None:
    """The store of a run; None: artifacts are files of the project folder."""
    settings = workflow.storage_settings
    if settings is None or settings.default_storage_provider is None:
        return None
    return Store(workflow.storage_registry.default_storage_provider, settings.default_storage_prefix.rstrip("/"))


def link_copies(store: Store | None) -> None:
    """Makes `artifacts` and `results` links to the local copies; without a store, removes links of an earlier run.

    Raises:
        MismatchError: one of them is a folder with files, or a link of somebody else's.
    """
    for path in LINKED:
        target = None if store is None else store.local_path(path)
        if _is_own_link(path) and (target is None or Path(os.readlink(path)) != target):
            path.unlink(missing_ok=True)
        if target is not None:
            _link(path, target)


def _is_own_link(path: Path) -> bool:
    return path.is_symlink() and Path(os.readlink(path)).is_relative_to(COPIES)


def _link(path: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and Path(os.readlink(path)) == target:
        return
    with suppress(OSError):
        path.rmdir()  # an empty folder
    if os.path.lexists(path) and not _is_own_link(path):
        raise MismatchError(
            f"{path}: is there already, but Snakemake's default storage is to hold the artifacts; use another clone, "
            f"or move {path} away"
        )
    with suppress(FileExistsError):  # another process of the same run was faster
        path.symlink_to(target)


def leave_dvc_out(store: Store) -> None:
    """DVC can follow no files behind a link; says so where it would otherwise be told of this run."""
    if repo.is_set_up():
        print(f"edpipe: DVC is left out: artifacts lie in {store.prefix}", file=sys.stderr)
    os.environ["EDPIPE_DVC"] = "0"


class _StoredRecords(Records):
    """Records of a store, of which a local copy was fetched; what else a job made is Snakemake's to look for."""

    def exists(self, path: Path) -> bool:
        return True


def judge_stored(store: Store, params: Params) -> None:
    """Makes Snakemake see as stale what does not fit its record, and as current what does.

    Raises:
        MismatchError: the store does not answer.
    """
    stored = list(_fetched(store, all_jobs(params)))
    records = _StoredRecords()
    for job in stored:
        verdict = assess(job, recorded_state(job, records), present_origin(job, records)).verdict
        for output in job.outputs:
            _mark(store.address(output), job, fits=verdict is Verdict.CACHED)


def _fetched(store: Store, jobs: Sequence[Job]) -> Iterator[Job]:
    """The jobs whose record is in the store; pages are their own."""
    for job in jobs:
        is_page = STEP[job.step].artifact is Artifact.PAGE
        if store.fetch(job.outputs[0] if is_page else record_path(job.outputs[0])):
            yield job


def _mark(address: str, job: Job, fits: bool) -> None:
    if fits:
        metadata.forget(address, metadata.UNFINISHED)
        metadata.forget_origin(address)
    else:
        metadata.record_unknown_params(address, job.step, metadata.LONG_AGO_NS / 1e9)
