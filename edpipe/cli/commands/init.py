"""`edpipe init FOLDER`: a project of one's own, ready to run; no clone of edpipe's repository is needed."""

import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from edpipe.errors import MismatchError, OverwriteError, ParamsError
from edpipe.params.yaml_file import PARAMS_PATH
from edpipe.pipeline.dvc.repo import refuse_braces
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.project.files import GENERATED, OWN, write_first_params, write_generated, write_own
from edpipe.pipeline.project.note import NOTE, write_note
from edpipe.storage.atomic import remove_file

WRITTEN = (PARAMS_PATH, *OWN, *GENERATED, NOTE)
"""Every file of a new project."""
DVC = (sys.executable, "-m", "dvc")
REMOTE = "store"
"""What DVC calls the place of `--remote`."""


def add_init(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("folder", help="of the project; it is made if it is not there; '.' for this one")
    command.add_argument("--git", action="store_true", help="make it a git repository too; nothing is committed")
    command.add_argument("--dvc", action="store_true", help="set up DVC there too")
    command.add_argument(
        "--remote",
        metavar="ADDRESS",
        help="with --dvc: where it pushes to and pulls from; what is pulled is compared with its digest",
    )
    command.set_defaults(run=init)


def init(folder: str, git: bool, dvc: bool, remote: str | None) -> None:
    """Writes the files of a project; overwrites nothing.

    Raises:
        ParamsError: a remote without DVC.
        OverwriteError: one of its files is there already, or cannot be written.
        MismatchError: git or DVC fail, or DVC cannot work in such a folder.
    """
    if remote is not None and not dvc:
        raise ParamsError(f"--remote {remote}: only DVC has a remote; give --dvc too")
    root = Path(folder).expanduser()
    _check_free(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OverwriteError(f"{root}: cannot be made: {error.strerror}; choose another folder") from error
    with chdir(root):
        if dvc:
            refuse_braces()
        _write()
        if git and not Path(".git").exists():
            _call(["git", "init", "--quiet"], "--git")
        if dvc and not Path(".dvc").exists():
            _set_up_dvc()
        if remote is not None:
            _add_remote(remote)
    _say(root)


def _check_free(root: Path) -> None:
    for path in (root / name for name in (*WRITTEN, paths.KNOBS)):
        if os.path.lexists(path):
            raise OverwriteError(
                f"{path}: is there already, nothing was written; choose another folder, or renew the files of an older "
                "project with `edpipe upgrade`"
            )


def _write() -> None:
    """Writes all files, or none."""
    try:
        write_first_params()
        for path in OWN:
            write_own(path)
        write_generated()
        write_note()
    except BaseException:
        for path in WRITTEN:  # none was there before
            remove_file(path)
        shutil.rmtree(paths.KNOBS, ignore_errors=True)
        raise


def _set_up_dvc() -> None:
    _call([*DVC, "init", "--quiet", *_place_in_git()], "--dvc")
    _call([*DVC, "config", "--quiet", "core.analytics", "false"], "--dvc")


def _add_remote(address: str) -> None:
    """DVC itself would take what the remote sends for what was asked for."""
    _call([*DVC, "remote", "add", "--quiet", "--default", REMOTE, address], "--remote")
    _call([*DVC, "remote", "modify", "--quiet", REMOTE, "verify", "true"], "--remote")


def _place_in_git() -> Sequence[str]:
    """What `dvc init` must be told of where git's repository is."""
    here = Path.cwd()
    if (here / ".git").exists():
        return ()
    return ("--subdir",) if any((parent / ".git").exists() for parent in here.parents) else ("--no-scm",)


def _call(words: Sequence[str], option: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MismatchError(
            f"{option}: {words[0]} cannot be started: {error.strerror}; the files are written"
        ) from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise MismatchError(f"{option}: `{' '.join(words[-3:])}` failed: {said}; the files are written")


def _say(root: Path) -> None:
    print(f"{root}: a project with three experiments on handwritten digits; params.yaml is the file to edit")
    go = "" if root.resolve() == Path.cwd() else f"cd {root} && "
    print(f"now run: {go}snakemake --cores 2 results/digits_ed.json")
