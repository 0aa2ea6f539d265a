"""To DVC: what the records vouch for is committed to dvc.lock and DVC's cache, and what they do not is taken out.

Whatever Snakemake or dvc.lock say: only the record beside an artifact tells from which knobs, inputs and code it is.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any

from edpipe.errors import MismatchError
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.pipeline.dvc.code_file import changed_units, write_code
from edpipe.pipeline.dvc.lists import write_tracked_jobs
from edpipe.pipeline.dvc.lock_file import put_stages, remove_stages, stages_in_lock
from edpipe.pipeline.dvc.repo import (
    CHECK_STAGE,
    LOCK,
    is_pipeline_stage,
    is_set_up,
    local_paths,
    open_repo,
    upstream_first,
    why_left_out,
)
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts
from edpipe.pipeline.state.judgement import Judgement, judged, sound_paths
from edpipe.storage.job import Job

SHOWN = 3
"""So many stages are named; more are counted."""
ONLY_HERE = "not in cache"
"""What DVC calls a file that is the one of dvc.lock, and of which its cache has no copy."""


def record() -> None:
    """After a run: every step whose artifact is what would be made now is committed to dvc.lock and DVC's cache.

    Raises:
        BusyError: DVC is running a step here.
        CorruptFileError: DVC refuses.
        OverwriteError: the disk is full, or a file belongs to somebody else.
        ParamsError: params.yaml was edited meanwhile, and is wrong now.
        MismatchError: the code was edited meanwhile, so that DVC would store versions that were not used.
    """
    edited = changed_units()
    if edited:
        raise MismatchError(
            f"the code of {_named(edited)} was edited while Snakemake ran; what it made is not handed over to DVC; "
            "call `snakemake` again, then `edpipe dvc-record`"
        )
    params = load_params()
    write_tracked_jobs(params)
    _commit(params, judged_now(params))


def record_made() -> None:
    """Hands over to DVC what was made without it, and takes out of dvc.lock what does not belong there.

    Raises:
        MismatchError: DVC is not set up; or some steps are out of date or missing, and the others were handed over.
        BusyError: DVC is at work here.
        CorruptFileError: DVC refuses.
    """
    if not is_set_up():
        reason = why_left_out() or "there is no DVC here; install it, run `dvc init`, and unset EDPIPE_DVC"
        raise MismatchError(f"dvc-record: {reason}")
    params = load_params()
    write_tracked_jobs(params)
    write_code()
    judgements = judged_now(params)
    withdraw(params, judgements)
    print(f"{_commit(params, judgements)} steps handed over to DVC")
    unfit = sum(not one.fits for one in judgements)
    if unfit:
        raise MismatchError(
            f"dvc-record: {unfit} of {len(judgements)} tracked steps are out of date or missing and were not handed "
            "over (see `snakemake -n`); run `snakemake` first"
        )


def judged_now(params: Params) -> list[Judgement]:
    """Judgements of the tracked jobs."""
    checked = CheckedArtifacts()
    found = judged(jobs_of(params, params.tracked), checked)
    checked.save()
    return found


def stage_name(job: Job) -> str:
    """What DVC calls the stage of a job.

    >>> stage_name(Job("evaluate", {"experiment": "digits_ed", "seed": 0}, {}, {}, ()))
    'evaluate@digits_ed-0'
    """
    return f"{job.step}@{'-'.join(map(str, job.arguments.values()))}"


def _commit(params: Params, judgements: Sequence[Judgement]) -> int:
    """Commits the stages whose outputs are sound and whose entry in dvc.lock is another or none; says how many."""
    sound = {str(path) for path in sound_paths(judgements)}
    with open_repo(is_patient=True) as repo, repo.scm_context:
        stale = set(repo.status())
        stages = [s for s in upstream_first(repo) if s.addressing in stale and _is_ready_to_commit(s, sound)]
        if [stage.addressing for stage in stages] == [CHECK_STAGE] and not LOCK.is_file():
            return 0  # no first dvc.lock for nothing
        # A copy stays where it is; a link must be made, or the file would lie in the folder and in the cache.
        relink = bool({"hardlink", "symlink"} & set(repo.cache.local.cache_types))
        saved: list[Any] = []
        try:
            for stage in stages:
                stage.save()
                stage.commit(relink=relink)
                saved.append(stage)
            if load_params() != params:  # DVC has read other values than the records were compared with
                for stage in saved:
                    _forget_run(repo, stage)
                saved.clear()
                raise MismatchError(
                    "params.yaml was edited meanwhile; nothing is handed over; call `edpipe dvc-record`"
                )
        finally:
            if saved:
                _put(repo, saved)
        return len(saved)


def record_check() -> None:
    """Tells DVC that the lists and the versions of code fit, once they were written; does nothing without a dvc.lock.

    So an edit that means nothing leaves `dvc status` clean.

    Raises:
        BusyError: DVC is at work here.
        CorruptFileError: DVC cannot read its own files.
    """
    if not (is_set_up() and LOCK.is_file()) or "DVC_STAGE" in os.environ:
        return
    with open_repo(is_patient=False) as repo, repo.scm_context:
        stage = repo.stage.load_one(name=CHECK_STAGE)
        if stage.status():
            stage.save()
            _put(repo, [stage])


def _put(repo: Any, stages: Sequence[Any]) -> None:
    """Into dvc.lock, and, where DVC does so with what it writes, into git's index."""
    put_stages(stages)
    repo.scm_context.track_file(str(LOCK))


def _is_ready_to_commit(stage: Any, sound: Set[str]) -> bool:
    if stage.addressing == CHECK_STAGE:
        return True  # what it checks was written when the run began
    outputs, inputs = local_paths(stage.outs), local_paths(stage.deps)
    return (
        is_pipeline_stage(stage)
        and all(path in sound for path in outputs)
        and all(Path(path).exists() for path in inputs)
    )


def withdraw(params: Params, judgements: Iterable[Judgement]) -> list[str]:
    """Takes out of dvc.lock, and of DVC's run cache, stages that it calls current though their artifacts do not fit.

    As after `dvc commit --force`. A stage that DVC itself finds changed stays: its entry tells the truth of an earlier
    state. Says in one line which were taken out, and gives their names.

    Raises:
        BusyError: DVC is at work here.
        CorruptFileError: DVC cannot read its own files.
    """
    tracked = {path for job in jobs_of(params, params.tracked) for path in job.outputs}
    unfit = {stage_name(one.job) for one in judgements if one.is_unfit and tracked.issuperset(one.job.outputs)}
    suspects = unfit & stages_in_lock() if unfit else set()
    if not suspects:
        return []
    with open_repo(is_patient=False) as repo, repo.scm_context:
        status = repo.status(targets=sorted(suspects))
        false = [s for s in repo.index.stages if s.addressing in suspects and _is_clean(status.get(s.addressing, []))]
        for stage in false:
            _forget_run(repo, stage)  # else the run cache would put its entry back
        names = sorted(stage.addressing for stage in false)
        if names:
            remove_stages(names)
    if names:
        print(
            f"edpipe: taken out of dvc.lock, since the artifacts do not fit params.yaml, the code or their inputs: "
            f"{_named(names)}",
            file=sys.stderr,
        )
    return names


def _named(names: Sequence[str]) -> str:
    """
    >>> _named(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _is_clean(changes: Sequence[Any]) -> bool:
    """Whether DVC finds nothing changed, but for copies that are missing in its cache."""
    return all(
        isinstance(change, dict)
        and all(state == ONLY_HERE for files in change.values() for state in dict(files).values())
        for change in changes
    )


def _forget_run(repo: Any, stage: Any) -> None:
    from dvc.stage.cache import _can_hash, _get_stage_hash

    if _can_hash(stage):
        shutil.rmtree(repo.stage_cache._get_cache_dir(_get_stage_hash(stage)), ignore_errors=True)
