"""Files that a user has put somewhere: raw images and weights, which neither git nor DVC knows."""

from pathlib import Path

EXPERIMENT_FOLDERS = (".dvc", "tmp", "exps")
"""Where DVC makes the folders of `dvc exp run --temp` and of a queue, below the project's own folder."""


def given_path(path: Path) -> Path:
    """Where a user's file or folder is: relative paths count from the project, also in a folder of an experiment.

    DVC copies only what git and itself know into such a folder. What lies there nevertheless is taken from there.
    """
    project = project_of(Path.cwd())
    return path if project is None or path.is_absolute() or path.exists() else project / path


def project_of(folder: Path) -> Path | None:
    """The project whose experiment DVC runs in this folder; None: it is no such folder.

    >>> project_of(Path("/photos", *EXPERIMENT_FOLDERS, "one")), project_of(Path("/photos"))
    (PosixPath('/photos'), None)
    """
    parts, length = folder.parts, len(EXPERIMENT_FOLDERS)
    starts = [at for at in range(1, len(parts) - length) if parts[at : at + length] == EXPERIMENT_FOLDERS]
    return Path(*parts[: starts[-1]]) if starts else None
