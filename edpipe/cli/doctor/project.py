"""The folder: params.yaml, code, runs, git, DVC and its remote."""

import importlib.util
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from edpipe.cli.doctor.findings import Finding, Level, fault, of_error, ok, warning
from edpipe.errors import BusyError, EdpipeError
from edpipe.params.load import load_params
from edpipe.params.plans.registered import REGISTRY
from edpipe.pipeline.dvc import repo
from edpipe.pipeline.dvc.code_file import changed_units
from edpipe.pipeline.dvc.lists import check_tracked_jobs
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.state.judgement import all_jobs
from edpipe.pipeline.state.running import all_runs
from edpipe.runtime.loggers import chosen_logger
from edpipe.storage.code.units import unit_names
from edpipe.storage.code.versions import HERE, is_edited

GIT_TIMEOUT_S = 30
CONFLICTS = ("DD", "AU", "UD", "UA", "DU", "AA", "UU")
"""What `git status --porcelain` writes before a file that holds both sides of a merge."""
SNAKEMAKE_LOCKS = Path(".snakemake/locks")
PLUGINS = {"s3": "dvc_s3", "ssh": "dvc_ssh", "gs": "dvc_gs", "azure": "dvc_azure", "gdrive": "dvc_gdrive"}
"""By the scheme of a remote's address: the module that DVC needs for it."""


def check_params() -> Iterator[Finding]:
    """params.yaml, the jobs that follow from it, and its logger."""
    params = load_params()
    yield ok("params", f"params.yaml: {len(params.experiments)} experiments, {len(all_jobs(params)):,} jobs")
    name = chosen_logger(params.logger)
    if name is not None:
        yield ok("logger", f"{name} is told the learning curves")


def check_code() -> Iterator[Finding]:
    """Versions of the code: whether edits are confirmed, and whether DVC's file fits."""
    # Of the package alone: code of plugins is the project's own, and nobody confirms it.
    edited = sorted(unit for unit in unit_names(HERE) if unit not in REGISTRY.places and is_edited(unit))
    if edited:
        yield warning(
            "code", f"edited and not confirmed: {_some(edited)}; what hangs on it runs again", "`edpipe code confirm`"
        )
    else:
        yield ok("code", "as confirmed")
    changed = changed_units()
    if changed:
        text = f"{paths.CODE} does not fit the code of {_some(changed)}: `dvc repro` would stop"
        yield warning("code", text, "`edpipe code`")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def check_runs() -> Iterator[Finding]:
    """Who is at work here, and what a killed Snakemake has left."""
    runs = all_runs()
    for run in runs:
        yield ok("runs", f"snakemake is at work: process {run.pid} on {run.host}")
    if not runs and SNAKEMAKE_LOCKS.is_dir() and any(SNAKEMAKE_LOCKS.iterdir()):
        yield warning(
            "runs",
            f"{SNAKEMAKE_LOCKS} is not empty: a snakemake was killed, or one builds its graph just now",
            "if none is at work, `snakemake --unlock`",
        )


def check_git() -> Iterator[Finding]:
    """Whether git looks after the folder."""
    try:
        status = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, errors="replace", timeout=GIT_TIMEOUT_S
        )
    except FileNotFoundError:
        yield warning("git", "not installed", "install it: DVC and `edpipe code confirm` need it")
        return
    except subprocess.TimeoutExpired:
        yield warning("git", f"does not answer within {GIT_TIMEOUT_S} s", "look what `git status` does")
        return
    if status.returncode:
        said = " ".join(status.stderr.split())
        remedy = "`git init`, then commit params.yaml" if "not a git repository" in said else "mend that"
        yield warning("git", said.removeprefix("fatal: "), remedy)
        return
    lines = status.stdout.splitlines()
    conflicts = [line[3:] for line in lines if line[:2] in CONFLICTS]
    if conflicts:
        yield fault("git", f"both sides of a merge are in {_some(conflicts)}", "mend these files, then `git add` them")
    else:
        yield ok("git", f"{len(lines)} files are not committed as they are" if lines else "everything is committed")


def check_dvc(asks_remote: bool) -> Iterator[Finding]:
    """Whether DVC can follow the pipeline, and from where colleagues would pull."""
    if os.environ.get("EDPIPE_DVC") == "0":
        yield ok("dvc", "left out by EDPIPE_DVC=0")
        return
    if not repo.is_set_up():
        yield warning(
            "dvc",
            "does not look after this folder: artifacts are not shared with anybody",
            f"`dvc init` in a git repository{'' if repo.PIPELINE.is_file() else f', and {repo.PIPELINE}'}",
        )
        return
    yield from _dvc_findings()
    yield from _remote_findings(asks_remote)


def _dvc_findings() -> Iterator[Finding]:
    try:
        repo.refuse_merge_conflict()
        with repo.open_repo(is_patient=False):
            pass
    except BusyError:
        yield ok("dvc", "is at work here just now")
        return
    except EdpipeError as error:
        yield from of_error("dvc", error)
        return
    try:
        check_tracked_jobs(load_params())
    except EdpipeError as error:
        yield from of_error("dvc", error, Level.WARNING)
        return
    yield ok("dvc", "follows what params.yaml lists as tracked")


def _remote_findings(asks_remote: bool) -> Iterator[Finding]:
    from dvc.config import Config
    from dvc.exceptions import DvcException

    try:
        config = Config(str(Path(".dvc").absolute()))
    except DvcException as error:
        line = " ".join(str(error).split())
        yield fault("remote", f"DVC cannot read its configuration: {line}", "mend .dvc/config")
        return
    name = config["core"].get("remote")
    if not name:
        yield warning(
            "remote",
            "none: `dvc push` and `dvc pull` have no place to go to",
            "`dvc remote add --default NAME ADDRESS`",
        )
        return
    yield from _remote_named(name, config["remote"].get(name, {}), asks_remote)


def _remote_named(name: str, knobs: Mapping[str, Any], asks_remote: bool) -> Iterator[Finding]:
    address = str(knobs.get("url", ""))
    scheme = urlparse(address).scheme
    module = PLUGINS.get(scheme)
    text = f"'{name}' at {address}"
    if not address:
        yield fault("remote", f"'{name}' has no address", f"`dvc remote modify {name} url ADDRESS`")
    elif module and importlib.util.find_spec(module) is None:
        yield fault("remote", f"{text}: DVC needs a plugin for {scheme}", f"`pip install {module.replace('_', '-')}`")
    elif not scheme and not Path(address).is_dir():
        yield fault("remote", f"{text}: there is no such folder", f"make it, or `dvc remote modify {name} url ADDRESS`")
    elif asks_remote:
        yield from _answer_of(name, text)
    else:
        yield ok("remote", f"{text}; not asked (`edpipe doctor --remote` does)")
    if address and not knobs.get("verify"):
        yield warning(
            "remote",
            f"'{name}': `dvc pull` takes over damaged files without a word",
            f"`dvc remote modify {name} verify true`",
        )


def _answer_of(name: str, text: str) -> Iterator[Finding]:
    try:
        with repo.open_repo(is_patient=False) as opened:
            odb = opened.cloud.get_remote_odb(name)
            odb.fs.exists(odb.path)
    except BusyError as error:
        yield from of_error("remote", error, Level.WARNING)
    except Exception as error:  # each kind of remote has errors of its own
        line = " ".join(str(error).split()) or type(error).__name__
        yield fault("remote", f"{text}: does not answer: {line}", "look at its address, your network and your rights")
    else:
        yield ok("remote", f"{text}: answers")
