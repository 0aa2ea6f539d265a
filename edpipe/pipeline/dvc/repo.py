"""DVC's view of this folder: whether it is set up, its lock, its stages and their files.

Everything in this package does nothing where DVC is not installed or not set up, inside a step that DVC runs, in
Snakemake's own sub-processes, and with EDPIPE_DVC=0.
"""

import atexit
import importlib.util
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from edpipe.errors import BusyError, CorruptFileError, MismatchError, OverwriteError
from edpipe.pipeline.dvc.lists import STEPS
from edpipe.pipeline.jobs import paths

PIPELINE = Path("dvc.yaml")
READERS_AND_WRITERS = Path(".dvc", "tmp", "rwlock")
"""Where DVC names the steps that it is running; it lets go of its main lock while a step runs."""
CHECK_STAGE = "check_params"
"""DVC's stage that makes no file; Snakemake has no such rule."""
LOCK = Path("dvc.lock")
MAIN_LOCK = Path(".dvc", "tmp", "lock")
BUSY = "DVC is at work in this folder; wait for it or, if you know better, leave it out with EDPIPE_DVC=0"
SNAKEMAKE = "snakemake, at work in this folder until it ends"
"""As DVC names us when it refuses to touch what Snakemake may be making."""


def is_main(workflow: Any) -> bool:
    """Whether this is the Snakemake process that a person called: no sub-process of it, nor inside a step of DVC."""
    return bool(workflow.is_main_process) and "DVC_STAGE" not in os.environ


def is_enabled(workflow: Any) -> bool:
    """Whether this Snakemake process should keep DVC informed."""
    return is_main(workflow) and is_set_up()


def is_set_up() -> bool:
    """Whether DVC is installed, looks after this folder, can work here, and is not switched off."""
    return _is_wanted() and not _lacks_git()


def why_left_out() -> str | None:
    """A line for people where DVC's files are here but DVC cannot work, as in an archive of a repository; or None."""
    if _is_wanted() and _lacks_git():
        return (
            "DVC is left out, since this folder is in no git repository; for DVC, call `git init`, or "
            "`dvc config core.no_scm true`"
        )
    return None


def _is_wanted() -> bool:
    return (
        os.environ.get("EDPIPE_DVC", "1") != "0"
        and Path(".dvc").is_dir()
        and PIPELINE.is_file()
        and importlib.util.find_spec("dvc") is not None
    )


def _lacks_git() -> bool:
    """Whether DVC would refuse this folder: it is in no git repository, and DVC was not told to do without."""
    if any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents)):
        return False
    from dvc.config import Config, ConfigError

    try:
        return not Config.from_cwd()["core"].get("no_scm", False)
    except ConfigError:  # DVC itself says what is wrong with it
        return False


def refuse_braces() -> None:
    """That DVC can work here: its progress bars take braces in the path of the folder for fields to fill in.

    Raises:
        MismatchError: it cannot.
    """
    folder = str(Path.cwd())
    if "{" in folder or "}" in folder:
        raise MismatchError(
            f"{folder}: DVC cannot work in a folder whose path has '{{' or '}}'; move the project, or leave DVC out "
            "with EDPIPE_DVC=0"
        )


@contextmanager
def open_repo(is_patient: bool) -> Iterator[Any]:
    """DVC's view of this folder, under DVC's lock, and without DVC's chatter; a patient caller waits for the lock.

    Raises:
        BusyError: DVC is at work here.
        CorruptFileError: DVC cannot read its own files.
        MismatchError: the folder's path has braces.
        OverwriteError: the disk is full, or a file belongs to somebody else.
    """
    refuse_braces()
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    chatter = logging.getLogger("dvc")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)
    try:
        if _is_running_a_step():
            raise LockError("a step is running")
        with _beside_other_snakemakes(), Repo(".", _wait_for_lock=is_patient) as repo, lock_repo(repo):
            yield repo
    except LockError as error:
        raise BusyError(BUSY) from error
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
def _beside_other_snakemakes() -> Iterator[None]:
    """DVC's commit minds what another Snakemake holds; two of them make different files, and agree with each other."""
    from dvc import rwlock

    mind = rwlock.rwlock
    rwlock.rwlock = lambda *_: nullcontext()
    try:
        yield
    finally:
        rwlock.rwlock = mind


_held = ExitStack()


def hold_outputs() -> None:
    """Until this process ends or lets go, DVC refuses by itself to run steps or commit here; it may read.

    Raises:
        BusyError: DVC is running a step.
    """
    from dvc.exceptions import DvcException
    from dvc.rwlock import rwlock
    from dvc_objects.fs.local import localfs

    folders = [str(folder.absolute()) for folder in (paths.ARTIFACTS, paths.RESULTS)]
    tmp = READERS_AND_WRITERS.parent.absolute()
    tmp.mkdir(exist_ok=True)
    try:
        _held.enter_context(rwlock(str(tmp), localfs, SNAKEMAKE, folders, [], False))
    except DvcException as error:
        raise BusyError(BUSY) from error
    atexit.register(let_go)


def let_go() -> None:
    """Ends what `hold_outputs` began."""
    with suppress(Exception):  # somebody has removed DVC's file
        _held.close()


def is_busy() -> bool:
    """Whether DVC is running a step here, or holds its lock, as during `dvc pull`."""
    return _is_running_a_step() or _is_locked()


def _is_locked() -> bool:
    import zc.lockfile  # DVC's own way to lock

    if not MAIN_LOCK.is_file():
        return False
    try:
        zc.lockfile.LockFile(str(MAIN_LOCK)).close()
    except zc.lockfile.LockError:
        return True
    except OSError:  # not ours to lock
        return False
    return False


def refuse_merge_conflict() -> None:
    """That DVC's files are not in the middle of a merge; DVC itself would say so only after the last job.

    Raises:
        CorruptFileError: one of them is.
    """
    for path in (PIPELINE, LOCK):
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if any(line.startswith(("<<<<<<< ", ">>>>>>> ")) for line in text.splitlines()):
            raise CorruptFileError(
                f"DVC cannot go on here: {path} holds both sides of a merge; mend that, or leave DVC out with "
                "EDPIPE_DVC=0"
            )


def _is_running_a_step() -> bool:
    try:
        contents = json.loads(READERS_AND_WRITERS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    readers = [reader for readers in contents.get("read", {}).values() for reader in readers]
    entries = [entry for entry in [*contents.get("write", {}).values(), *readers] if entry]
    return any(_is_alive(entry["pid"]) for entry in entries if entry.get("cmd") != SNAKEMAKE)


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


def upstream_first(repo: Any) -> list[Any]:
    """DVC's stages, each after all those it depends on."""
    import networkx

    return list(networkx.dfs_postorder_nodes(repo.index.graph))


def _step_of(stage: Any) -> str:
    return stage.addressing.split("@")[0]


def is_pipeline_stage(stage: Any) -> bool:
    """Whether Snakemake makes the same files; a user may have added stages, or data of `dvc add`."""
    return _step_of(stage) in STEPS


def local_paths(entries: list[Any]) -> list[str]:
    """Files of this folder among dependencies or outputs; params.yaml, whose time says nothing, is left out."""
    from dvc.dependency.param import ParamsDependency

    local = [e for e in entries if e.protocol == "local" and not isinstance(e, ParamsDependency)]
    return [os.path.relpath(e.fs_path) for e in local]
