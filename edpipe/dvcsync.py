"""The bridge between Snakemake and DVC: what one of them has made, the other need not make again.

Snakemake goes by modification times and its own records, DVC by digests in dvc.lock. One rule decides between them: a
file whose Snakemake record is intact is Snakemake's to judge; every other file was placed by DVC, and DVC judges it.

Everything here does nothing where DVC is not installed or not set up, inside a step that DVC runs, in Snakemake's own
sub-processes, and with EDPIPE_DVC=0.
"""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from edpipe import layout
from edpipe import snakemake_records as records
from edpipe.errors import BusyError, CorruptFileError, EdpipeError, MismatchError, OverwriteError
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.sources import source_files
from edpipe.storage.records import digest_file, digest_json
from edpipe.tracked_jobs import STEPS, tracked_jobs_text, write_tracked_jobs

PIPELINE = Path("dvc.yaml")
READERS_AND_WRITERS = Path(".dvc", "tmp", "rwlock")
"""Where DVC names the steps that it is running; it lets go of its main lock while a step runs."""
CHECK_STAGE = "check_params"
"""DVC's stage that makes no file; Snakemake has no such rule."""

_digest_at_start: list[str] = []
"""Digest of params.yaml and the code when Snakemake began; empty before."""


def is_enabled(workflow: Any) -> bool:
    """Whether this Snakemake process should keep DVC informed."""
    return bool(workflow.is_main_process) and "DVC_STAGE" not in os.environ and _is_set_up()


def _is_set_up() -> bool:
    return (
        os.environ.get("EDPIPE_DVC", "1") != "0"
        and Path(".dvc").is_dir()
        and PIPELINE.is_file()
        and importlib.util.find_spec("dvc") is not None
    )


@contextmanager
def _open_repo(is_patient: bool) -> Iterator[Any]:
    """DVC's view of this folder, under DVC's lock, and without DVC's chatter; a patient caller waits for the lock.

    Raises:
        BusyError: DVC is at work here.
        CorruptFileError: DVC cannot read its own files.
        OverwriteError: the disk is full, or a file belongs to somebody else.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    chatter = logging.getLogger("dvc")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)
    try:
        if not is_patient and _is_running_a_step():
            raise LockError("a step is running")
        with Repo(".", _wait_for_lock=is_patient) as repo, lock_repo(repo):
            yield repo
    except LockError as error:
        raise BusyError(
            "DVC is at work in this folder; wait for it or, if you know better, leave it out with EDPIPE_DVC=0"
        ) from error
    except DvcException as error:
        line = " ".join(str(error).split())
        raise CorruptFileError(
            f"DVC cannot go on here: {line}; mend that, or leave DVC out with EDPIPE_DVC=0"
        ) from error
    except OSError as error:
        raise OverwriteError(f"DVC cannot go on here: {error}; mend that, then call `edpipe dvc-record`") from error
    finally:
        chatter.setLevel(level)


@contextmanager
def _parsing_each_text_once() -> Iterator[None]:
    """DVC parses params.yaml anew for every stage, in pure Python; inside the block, only a text it has not seen."""
    from dvc.utils.serialize import _yaml

    parse = _yaml.parse_yaml
    parsed = cache(parse)
    _yaml.parse_yaml = lambda *text_and_path, **kind: deepcopy(parsed(*text_and_path, **kind))
    try:
        yield
    finally:
        _yaml.parse_yaml = parse


def _is_running_a_step() -> bool:
    try:
        contents = json.loads(READERS_AND_WRITERS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    readers = [reader for readers in contents.get("read", {}).values() for reader in readers]
    return any(_is_alive(entry["pid"]) for entry in [*contents.get("write", {}).values(), *readers] if entry)


def _is_alive(pid: int) -> bool:
    """Whether another process has this number; DVC leaves entries behind when it is killed."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _upstream_first(repo: Any) -> list[Any]:
    import networkx

    return list(networkx.dfs_postorder_nodes(repo.index.graph))


def _step_of(stage: Any) -> str:
    return stage.addressing.split("@")[0]


def _is_ours(stage: Any) -> bool:
    """Whether Snakemake makes the same files; a user may have added stages, or data of `dvc add`."""
    return _step_of(stage) in STEPS


def _paths(entries: list[Any]) -> list[str]:
    """Files of this folder among dependencies or outputs; params.yaml, whose time says nothing, is left out."""
    from dvc.dependency.param import ParamsDependency

    local = [e for e in entries if e.protocol == "local" and not isinstance(e, ParamsDependency)]
    return [os.path.relpath(e.fs_path) for e in local]


# DVC → Snakemake


def reconcile(params: Params, is_dry_run: bool) -> None:
    """Before the graph is built: what dvc.lock vouches for is made to look fresh to Snakemake, and stale what is stale.

    A real run first brings the lists of tracked jobs in step with params.yaml; a dry run leaves out jobs that differ.

    Raises:
        BusyError: DVC is at work here; a dry run then goes on without asking it.
        CorruptFileError: dvc.yaml or dvc.lock cannot be read.
        OverwriteError: a file belongs to somebody else.
    """
    changed: set[str] = set()
    if not is_dry_run:
        write_tracked_jobs(params)
        _digest_at_start[:] = [_digest_of_sources(params)]
    elif layout.TRACKED_JOBS.is_file():
        changed = _changed_jobs(params)
    else:
        return
    try:
        with _open_repo(is_patient=False) as repo, _parsing_each_text_once():
            _reconcile(repo, changed)
    except BusyError:
        if not is_dry_run:
            raise


def _digest_of_sources(params: Params) -> str:
    files = sorted({name for step in STEPS for name in source_files(step)})
    return digest_json({"params": params, "code": {name: digest_file(Path(name)) for name in files}})


def _changed_jobs(params: Params) -> set[str]:
    """Jobs, as DVC calls them, whose entry in workflow/tracked_jobs.yaml no longer fits params.yaml."""
    fitting = yaml.safe_load(tracked_jobs_text(params))["jobs"]
    try:
        on_disk = (yaml.safe_load(layout.TRACKED_JOBS.read_text(encoding="utf-8")) or {}).get("jobs", {})
    except (OSError, yaml.YAMLError):
        on_disk = {}
    return {
        f"{step}@{name}"
        for step in STEPS
        for name in {**fitting[step], **on_disk.get(step, {})}
        if fitting[step].get(name) != on_disk.get(step, {}).get(name)
    }


def _reconcile(repo: Any, changed: set[str]) -> None:
    outputs = {path for stage in repo.index.stages for path in _paths(stage.outs)}
    status = repo.status()
    stale = {name for name, changes in status.items() if not _is_only_absent(changes, outputs)} | changed
    good: set[Any] = set()
    for stage in _upstream_first(repo):
        if stage.addressing not in stale and good.issuperset(repo.index.graph.successors(stage)):
            good.add(stage)
        if not _is_ours(stage):
            continue
        is_misled = _is_misled(stage, status.get(stage.addressing, []), outputs)
        for output in filter(os.path.lexists, _paths(stage.outs)):
            if stage in good:
                _vouch_for(output)
            elif is_misled or not records.is_intact(output):
                _condemn(output)
    while _settle_times(repo, good):  # again, where equal files are one file in the cache and share their time
        pass


def _settle_times(repo: Any, good: set[Any]) -> bool:
    """Makes the outputs of good stages as new as all that lies before them; says whether any was older."""
    newest_ns: dict[Any, int] = {}
    is_changed = False
    for stage in _upstream_first(repo):
        # Snakemake also compares with files further up than DVC's dependencies.
        times = [newest_ns[before] for before in repo.index.graph.successors(stage)]
        newest = max([*times, *map(records.input_time_ns, _paths(stage.deps))], default=0)
        outputs = [path for path in _paths(stage.outs) if os.path.lexists(path)]
        for output in outputs if stage in good and _is_ours(stage) else ():
            if records.output_time_ns(output) < newest:
                is_changed = True
                _make_newer(output, newest)
        newest_ns[stage] = max([newest, *map(records.input_time_ns, outputs)])
    return is_changed


def _is_only_absent(changes: list[Any], outputs: set[str]) -> bool:
    """Whether a stage's only change is that files were not pulled: absent is not stale."""
    return all(
        isinstance(change, dict)
        and all(
            state in ("deleted", "not in cache") and (path in outputs or any(o.startswith(f"{path}/") for o in outputs))
            for files in change.values()
            for path, state in files.items()
        )
        for change in changes
    )


def _is_misled(stage: Any, changes: list[Any], outputs: set[str]) -> bool:
    """Whether DVC has put another input in place since; a link into its cache looks as old as what it points to."""
    states = [change.get("changed deps", {}) for change in changes if isinstance(change, dict)]
    modified = {path for files in states for path, state in files.items() if state == "modified"}
    locked = {path for dep in stage.deps if dep.hash_info for path in _paths([dep])}
    return any(not records.is_intact(path) for path in modified & locked & outputs)


def _vouch_for(output: str) -> None:
    """Content, knobs, inputs and command are what dvc.lock says."""
    records.forget(output, records.UNFINISHED)
    if not records.is_intact(output):
        records.forget(output)  # it tells of another file


def _make_newer(output: str, time_ns: int) -> None:
    is_intact = records.is_intact(output)
    records.set_output_time(output, time_ns)
    if is_intact:
        records.restamp(output)


def _condemn(output: str) -> None:
    """DVC knows this file stale; Snakemake, which knows nothing of it, shall make it again."""
    records.forget(output)
    records.stand_alone(output)
    records.set_output_time(output, records.LONG_AGO_NS)


# Snakemake → DVC


def record(dag: Any) -> None:
    """After a run: every step that it finished or found up to date is committed to dvc.lock and DVC's cache.

    Raises:
        BusyError: DVC is running a step here.
        CorruptFileError: DVC refuses.
        OverwriteError: the disk is full, or a file belongs to somebody else.
        MismatchError: params.yaml or the code was edited meanwhile, so that DVC would store values that were not used.
    """
    if _digest_at_start != [_digest_of_sources(load_params())]:
        raise MismatchError(
            "params.yaml or the code was edited while Snakemake ran; what it made is not handed over to DVC; "
            "call `snakemake` again, then `edpipe dvc-record`"
        )
    _commit({str(path) for job in dag.jobs if dag.finished(job) or not dag.needrun(job) for path in job.output})


def _commit(done: set[str]) -> int:
    """Commits the stages all of whose outputs are `done` and Snakemake's own; says how many."""
    with _open_repo(is_patient=True) as repo, repo.scm_context:
        stale = set(repo.status())
        stages = [s for s in _upstream_first(repo) if s.addressing in stale and _is_vouched_for(s, done)]
        # A copy stays where it is; a link must be made, or the file would lie in the folder and in the cache.
        relink = bool({"hardlink", "symlink"} & set(repo.cache.local.cache_types))
        saved = []
        try:
            for stage in stages:
                stage.save()
                stage.commit(relink=relink)
                saved.append(stage)
                for output in _paths(stage.outs):
                    records.restamp(output)
        finally:
            if saved:
                saved[0].dvcfile.dump_stages(saved, update_pipeline=False)
        return len(saved)


def _is_vouched_for(stage: Any, done: set[str]) -> bool:
    if stage.addressing == CHECK_STAGE:
        return True  # the lists were written from params.yaml when the run began
    outputs = _paths(stage.outs)
    return _is_ours(stage) and all(path in done and records.is_intact(path) for path in outputs)


def record_made() -> None:
    """Hands over to DVC what was made without it, once Snakemake says that nothing is left to do.

    Raises:
        MismatchError: there is something to do, or DVC is not set up.
        BusyError: DVC is at work here.
        CorruptFileError: DVC refuses.
    """
    if not _is_set_up():
        raise MismatchError("dvc-record: there is no DVC here; install it, run `dvc init`, and unset EDPIPE_DVC")
    params = load_params()
    write_tracked_jobs(params)
    _check_nothing_to_do()
    made = {path for path in _tracked_outputs(params) if records.is_intact(path)}
    print(f"{_commit(made)} steps handed over to DVC")


def _tracked_outputs(params: Params) -> list[str]:
    from edpipe.jobs import jobs_of

    return [str(path) for job in jobs_of(params, params.tracked) for path in job.outputs]


def _check_nothing_to_do() -> None:
    if importlib.util.find_spec("snakemake") is None:
        raise MismatchError("dvc-record: needs snakemake, which knows what is up to date")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        raise EdpipeError(f"dvc-record: `snakemake -n` failed: {lines[-1] if lines else 'without a word'}")
    if "Nothing to be done" not in answer.stdout + answer.stderr:
        raise MismatchError(
            "dvc-record: some steps are out of date or missing (see `snakemake -n`); run `snakemake` first"
        )
