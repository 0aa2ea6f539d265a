"""The package as it was at earlier commits, from git."""

import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from edpipe.errors import MismatchError
from edpipe.storage.code.modules import PACKAGE, SourceTree
from edpipe.storage.code.units import unit_digest

MOST_COMMITS = 200
"""How far back the confirmed code is looked for."""


@dataclass(frozen=True)
class History:
    """A git repository whose top holds the package."""

    top: Path
    scratch: Path
    """Folder for copies of the package."""

    def commits(self) -> list[str]:
        """Commits that changed the package, the latest first."""
        return self._git("rev-list", f"--max-count={MOST_COMMITS}", "HEAD", "--", PACKAGE).decode().split()

    def tree(self, commit: str) -> SourceTree:
        """The package as it was at a commit, written below `scratch`."""
        folder = self.scratch / commit
        if not folder.is_dir():
            archive = self._git("archive", "--format=tar", commit, "--", PACKAGE)
            with tarfile.open(fileobj=BytesIO(archive)) as files:
                files.extractall(folder, filter="data")
        return SourceTree(folder / PACKAGE)

    def _git(self, *words: str) -> bytes:
        """What git says.

        Raises:
            MismatchError: it fails, or is not installed.
        """
        try:
            return subprocess.run(["git", "-C", str(self.top), *words], capture_output=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"").decode(errors="replace").strip() or str(error)
            raise MismatchError(f"{self.top}: git {words[0]} failed: {said.splitlines()[0]}") from error


def open_history(package: Path, scratch: Path) -> History:
    """The repository in whose top folder the package lies.

    Raises:
        MismatchError: there is no such repository.
    """
    history = History(package.parent, scratch)
    if not (package.parent / ".git").exists():
        raise MismatchError(
            f"{package.parent}: is no git repository, so that the confirmed code cannot be found; "
            "confirm code in a clone, or use --bump"
        )
    return history


def find_commit(history: History, unit: str, digest: str) -> str:
    """The latest commit at which the code of a unit meant what this digest says.

    Raises:
        MismatchError: there is none.
    """
    for commit in history.commits():
        if _digest_at(history, commit, unit) == digest:
            return commit
    raise MismatchError(
        f"{unit}: no commit has the code that was confirmed ({digest}); confirm again what git has, or use --bump"
    )


@cache
def _digest_at(history: History, commit: str, unit: str) -> str | None:
    try:
        return unit_digest(history.tree(commit), unit)
    except (KeyError, SyntaxError, ValueError):
        return None  # there was no such unit, or no such package


def changed_definitions(before: SourceTree, now: SourceTree, unit: str) -> Iterator[str]:
    """Definitions of a unit that mean something else now, or are only on one side; sorted."""
    from edpipe.storage.code.closure import form_of
    from edpipe.storage.code.units import closure_of

    old, new = closure_of(before, unit).meaning, closure_of(now, unit).meaning
    for place in sorted(old | new):
        if not (place in old and place in new and form_of(before, place) == form_of(now, place)):
            yield str(place)
