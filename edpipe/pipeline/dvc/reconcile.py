"""DVC to Snakemake: before a run, what dvc.lock knows current or stale is made so in Snakemake's eyes.

Snakemake goes by modification times and its own records, DVC by digests in dvc.lock. One rule decides between them: a
file whose Snakemake record is intact is Snakemake's to judge; every other file was placed by DVC, and DVC judges it.
"""

import os
from typing import Any

import yaml

from edpipe.errors import BusyError
from edpipe.params.schema import Params
from edpipe.pipeline.dvc import snakemake_metadata as records
from edpipe.pipeline.dvc.code_file import changed_units, write_code
from edpipe.pipeline.dvc.lists import STEPS, tracked_jobs_text, write_tracked_jobs
from edpipe.pipeline.dvc.repo import (
    digest_at_start,
    digest_of_sources,
    is_pipeline_stage,
    local_paths,
    open_repo,
    parsing_each_text_once,
    upstream_first,
)
from edpipe.pipeline.jobs import paths
from edpipe.storage.code.units import step_unit


def reconcile(params: Params, is_dry_run: bool) -> None:
    """Before the graph is built: what dvc.lock vouches for is made to look fresh to Snakemake, and stale what is stale.

    A real run first brings the lists of tracked jobs in step with params.yaml, and the digests of code with the source
    files; a dry run leaves out jobs that differ.

    Raises:
        BusyError: DVC is at work here; a dry run then goes on without asking it.
        CorruptFileError: dvc.yaml or dvc.lock cannot be read.
        OverwriteError: a file belongs to somebody else.
    """
    changed: set[str] = set()
    if not is_dry_run:
        write_tracked_jobs(params)
        write_code()
        digest_at_start[:] = [digest_of_sources(params)]
    elif paths.TRACKED_JOBS.is_file():
        changed = _changed_jobs(params)
    else:
        return
    try:
        with open_repo(is_patient=False) as repo, parsing_each_text_once():
            _reconcile(repo, changed)
    except BusyError:
        if not is_dry_run:
            raise


def _changed_jobs(params: Params) -> set[str]:
    """Jobs, as DVC calls them, whose entry in workflow/tracked_jobs.yaml no longer fits, or whose digest of code."""
    edited = set(changed_units())
    fitting = yaml.safe_load(tracked_jobs_text(params))["jobs"]
    try:
        on_disk = (yaml.safe_load(paths.TRACKED_JOBS.read_text(encoding="utf-8")) or {}).get("jobs", {})
    except (OSError, yaml.YAMLError):
        on_disk = {}
    return {
        f"{step}@{name}"
        for step in STEPS
        for name in {**fitting[step], **on_disk.get(step, {})}
        if _units(step, fitting[step].get(name)) & edited or fitting[step].get(name) != on_disk.get(step, {}).get(name)
    }


def _units(step: str, entry: dict[str, Any] | None) -> set[str]:
    """The units of code that one of DVC's jobs hangs on."""
    return {step_unit(step), *(unit for name, unit in (entry or {}).items() if name.endswith("_code"))}


def _reconcile(repo: Any, changed: set[str]) -> None:
    outputs = {path for stage in repo.index.stages for path in local_paths(stage.outs)}
    status = repo.status()
    stale = {name for name, changes in status.items() if not _is_only_absent(changes, outputs)} | changed
    good: set[Any] = set()
    for stage in upstream_first(repo):
        if stage.addressing not in stale and good.issuperset(repo.index.graph.successors(stage)):
            good.add(stage)
        if not is_pipeline_stage(stage):
            continue
        is_misled = _has_replaced_input(stage, status.get(stage.addressing, []), outputs)
        for output in filter(os.path.lexists, local_paths(stage.outs)):
            if stage in good:
                _mark_current(output)
            elif is_misled or not records.is_intact(output):
                _mark_stale(output)
    while _settle_times(repo, good):  # again, where equal files are one file in the cache and share their time
        pass


def _settle_times(repo: Any, good: set[Any]) -> bool:
    """Makes the outputs of good stages as new as all that lies before them; says whether any was older."""
    newest_ns: dict[Any, int] = {}
    is_changed = False
    for stage in upstream_first(repo):
        # Snakemake also compares with files further up than DVC's dependencies.
        times = [newest_ns[before] for before in repo.index.graph.successors(stage)]
        newest = max([*times, *map(records.input_time_ns, local_paths(stage.deps))], default=0)
        outputs = [path for path in local_paths(stage.outs) if os.path.lexists(path)]
        for output in outputs if stage in good and is_pipeline_stage(stage) else ():
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


def _has_replaced_input(stage: Any, changes: list[Any], outputs: set[str]) -> bool:
    """Whether DVC has put another input in place since; a link into its cache looks as old as what it points to."""
    states = [change.get("changed deps", {}) for change in changes if isinstance(change, dict)]
    modified = {path for files in states for path, state in files.items() if state == "modified"}
    locked = {path for dep in stage.deps if dep.hash_info for path in local_paths([dep])}
    return any(not records.is_intact(path) for path in modified & locked & outputs)


def _mark_current(output: str) -> None:
    """Content, knobs, inputs and command are what dvc.lock says."""
    records.forget(output, records.UNFINISHED)
    if not records.is_intact(output):
        records.forget(output)  # it tells of another file


def _make_newer(output: str, time_ns: int) -> None:
    is_intact = records.is_intact(output)
    records.set_output_time(output, time_ns)
    if is_intact:
        records.restamp(output)


def _mark_stale(output: str) -> None:
    """DVC knows this file stale; Snakemake, which knows nothing of it, shall make it again."""
    records.record_unknown_params(output)
    records.stand_alone(output)
    records.set_output_time(output, records.LONG_AGO_NS)
