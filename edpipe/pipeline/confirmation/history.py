"""The package as it was at earlier commits, from git."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml

from edpipe.errors import MismatchError
from edpipe.storage.code.modules import PACKAGE, SourceTree
from edpipe.storage.code.versions import CONFIRMED, HERE

MOST_COMMITS = 200
"""How far back the confirmed code is looked for."""
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.11 has filters from 3.11.4 on; what is extracted is git's own archive."""
SETTLED = """
import json
from edpipe.storage.code.units import unit_names
from edpipe.storage.code.versions import HERE, is_edited
print(json.dumps([unit for unit in unit_names(HERE) if not is_edited(unit)]))
"""
"""Run with the package of a commit."""


@dataclass(frozen=True)
class History:
    """A git repository whose top holds the package."""

    top: Path
    scratch: Path
    """Folder for copies of the package."""
    _confirmed: dict[str, dict[str, str]] = field(default_factory=dict)
    _settled: dict[str, frozenset[str]] = field(default_factory=dict)

    def commits(self) -> list[str]:
        """Commits that changed the package, the latest first; before them those that confirmed something.

        Asking a commit takes a second or two, and most often one that confirmed code is what is looked for.
        """
        limit = f"--max-count={MOST_COMMITS}"
        confirming = self._git("rev-list", limit, "HEAD", "--", str(CONFIRMED.relative_to(HERE.root.parent)))
        changing = self._git("rev-list", limit, "HEAD", "--", PACKAGE)
        return list(dict.fromkeys((confirming + changing).decode().split()))

    def tree(self, commit: str) -> SourceTree:
        """The package as it was at a commit, written below `scratch`."""
        folder = self.scratch / commit
        if not folder.is_dir():
            archive = self._git("archive", "--format=tar", commit, "--", PACKAGE)
            with tarfile.open(fileobj=BytesIO(archive)) as files:
                files.extractall(folder, **SAFELY)
        return SourceTree(folder / PACKAGE)

    def confirmed_digests(self, commit: str) -> dict[str, str]:
        """By unit, the digest at which its version was confirmed, as a commit has it; none without such a file."""
        if commit not in self._confirmed:
            self._confirmed[commit] = self._read_confirmed(commit)
        return self._confirmed[commit]

    def _read_confirmed(self, commit: str) -> dict[str, str]:
        try:
            contents = yaml.safe_load(self._git("show", f"{commit}:{CONFIRMED.relative_to(HERE.root.parent)}"))
            kinds = {kind: entries for kind, entries in contents.items() if isinstance(entries, dict)}
            return {f"{kind}.{name}": e["digest"] for kind, entries in kinds.items() for name, e in entries.items()}
        except (MismatchError, yaml.YAMLError, AttributeError, KeyError, TypeError):
            return {}

    def settled_units(self, commit: str) -> frozenset[str]:
        """Units whose code, at a commit, is as it was confirmed; the commit's own code is asked."""
        if commit not in self._settled:
            root = self.tree(commit).root.parent
            command = [sys.executable, "-P", "-c", SETTLED]
            env = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
            self._settled[commit] = frozenset(json.loads(done.stdout) if done.returncode == 0 else ())
        return self._settled[commit]

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
    """The latest commit at which the code of a unit was confirmed with this digest, and not edited since.

    A commit's own code says whether it was: what follows names in code may have been another program then.

    Raises:
        MismatchError: there is none.
    """
    for commit in history.commits():
        if history.confirmed_digests(commit).get(unit) == digest and unit in history.settled_units(commit):
            return commit
    raise MismatchError(
        f"{unit}: no commit has the code that was confirmed ({digest}); confirm again what git has, or use --bump"
    )


def changed_definitions(before: SourceTree, now: SourceTree, unit: str) -> Iterator[str]:
    """Definitions of a unit that mean something else now, or are only on one side; sorted."""
    from edpipe.storage.code.closure import form_of
    from edpipe.storage.code.units import closure_of

    old, new = closure_of(before, unit).meaning, closure_of(now, unit).meaning
    for place in sorted(old | new):
        if not (place in old and place in new and form_of(before, place) == form_of(now, place)):
            yield str(place)
