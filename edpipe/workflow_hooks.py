"""What the Snakefile calls: loading, checks before the first job, and the bridge to DVC."""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from edpipe import dvcsync
from edpipe.errors import EdpipeError, ParamsError
from edpipe.params.load import load_params
from edpipe.params.schema import Params

GPU_FOLDER = Path("/proc/driver/nvidia/gpus")


def load(workflow: Any, config: dict[str, Any]) -> Params:
    """The checked params; before that, in a folder that DVC looks after, what DVC knows is made known to Snakemake.

    Ends the process with one line if params.yaml is wrong, if values were given on the command line, or if DVC is busy.
    """
    try:
        if config:
            raise ParamsError(
                f"--config {' '.join(map(str, config))}: edit params.yaml instead; DVC and the steps would not see this"
            )
        params = load_params()
        if dvcsync.is_enabled(workflow):
            dvcsync.reconcile(params, is_dry_run=bool(workflow.output_settings.dryrun))
        return params
    except EdpipeError as error:
        _end(error)


def put_command_on_path() -> None:
    """Steps find `edpipe` beside this Python also where the virtual environment is not activated."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def check_before_first_job(workflow: Any) -> None:
    """Model names of the experiments that are about to run; ends the process with one line if one is unknown."""
    from edpipe.checks import check_params

    experiments = {str(name) for job in workflow.dag.jobs if (name := job.wildcards_dict.get("experiment"))}
    try:
        check_params(load_params(), tuple(sorted(experiments)))
    except EdpipeError as error:
        _end(error)


def hand_over_to_dvc(workflow: Any) -> None:
    """Steps that this run finished become known to DVC; a failure to do so is told, but the run has still succeeded."""
    if not dvcsync.is_enabled(workflow):
        return
    try:
        dvcsync.record(workflow.dag)
    except EdpipeError as error:
        print(f"edpipe: {error}", file=sys.stderr)


def gpus_per_job() -> int:
    """1 where this machine has an NVIDIA GPU that may be used, else 0."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or os.environ.get("EDPIPE_DEVICE") == "cpu":
        return 0
    return int(GPU_FOLDER.is_dir() and any(GPU_FOLDER.iterdir()))


def _end(error: EdpipeError) -> NoReturn:
    for line in str(error).splitlines():
        print(f"edpipe: {line}", file=sys.stderr)
    sys.stderr.flush()
    raise SystemExit(2)
