"""Snakemake to DVC: after a run, finished steps are committed to dvc.lock and DVC's cache."""

import importlib.util
import subprocess
import sys
from typing import Any

from edpipe.errors import EdpipeError, MismatchError
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.pipeline.dvc import snakemake_metadata as records
from edpipe.pipeline.dvc.code_file import write_code
from edpipe.pipeline.dvc.lists import write_tracked_jobs
from edpipe.pipeline.dvc.repo import (
    CHECK_STAGE,
    digest_at_start,
    digest_of_sources,
    is_pipeline_stage,
    is_set_up,
    local_paths,
    open_repo,
    upstream_first,
)


def record(dag: Any) -> None:
    """After a run: every step that it finished or found up to date is committed to dvc.lock and DVC's cache.

    Raises:
        BusyError: DVC is running a step here.
        CorruptFileError: DVC refuses.
        OverwriteError: the disk is full, or a file belongs to somebody else.
        MismatchError: params.yaml or the code was edited meanwhile, so that DVC would store values that were not used.
    """
    if digest_at_start != [digest_of_sources(load_params())]:
        raise MismatchError(
            "params.yaml or the code was edited while Snakemake ran; what it made is not handed over to DVC; "
            "call `snakemake` again, then `edpipe dvc-record`"
        )
    _commit({str(path) for job in dag.jobs if dag.finished(job) or not dag.needrun(job) for path in job.output})


def _commit(done: set[str]) -> int:
    """Commits the stages all of whose outputs are `done` and Snakemake's own; says how many."""
    with open_repo(is_patient=True) as repo, repo.scm_context:
        stale = set(repo.status())
        stages = [s for s in upstream_first(repo) if s.addressing in stale and _is_ready_to_commit(s, done)]
        # A copy stays where it is; a link must be made, or the file would lie in the folder and in the cache.
        relink = bool({"hardlink", "symlink"} & set(repo.cache.local.cache_types))
        saved = []
        try:
            for stage in stages:
                stage.save()
                stage.commit(relink=relink)
                saved.append(stage)
                for output in local_paths(stage.outs):
                    records.restamp(output)
        finally:
            if saved:
                saved[0].dvcfile.dump_stages(saved, update_pipeline=False)
        return len(saved)


def _is_ready_to_commit(stage: Any, done: set[str]) -> bool:
    if stage.addressing == CHECK_STAGE:
        return True  # what it checks was written when the run began
    outputs = local_paths(stage.outs)
    return is_pipeline_stage(stage) and all(path in done and records.is_intact(path) for path in outputs)


def record_made() -> None:
    """Hands over to DVC what was made without it, once Snakemake says that nothing is left to do.

    Raises:
        MismatchError: there is something to do, or DVC is not set up.
        BusyError: DVC is at work here.
        CorruptFileError: DVC refuses.
    """
    if not is_set_up():
        raise MismatchError("dvc-record: there is no DVC here; install it, run `dvc init`, and unset EDPIPE_DVC")
    params = load_params()
    write_tracked_jobs(params)
    write_code()
    _check_nothing_to_do()
    made = {path for path in _tracked_outputs(params) if records.is_intact(path)}
    print(f"{_commit(made)} steps handed over to DVC")


def _tracked_outputs(params: Params) -> list[str]:
    from edpipe.pipeline.jobs.graph import jobs_of

    return [str(path) for job in jobs_of(params, params.tracked) for path in job.outputs]


def _check_nothing_to_do() -> None:
    if importlib.util.find_spec("snakemake") is None:
        raise MismatchError("dvc-record: needs snakemake, which knows what is up to date")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    if completed.returncode:
        lines = [line for line in completed.stderr.splitlines() if line.strip()]
        raise EdpipeError(f"dvc-record: `snakemake -n` failed: {lines[-1] if lines else 'without a word'}")
    if "Nothing to be done" not in completed.stdout + completed.stderr:
        raise MismatchError(
            "dvc-record: some steps are out of date or missing (see `snakemake -n`); run `snakemake` first"
        )
