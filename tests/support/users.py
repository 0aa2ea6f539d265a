"""Two users of this machine with a group in common, who are there while a test runs."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dvc_stories import Folder

PROGRAMS = ("useradd", "userdel", "groupadd", "groupdel")


NOBODY = 65534


def why_not():
    """Why two users cannot be made and run edpipe here; empty: they can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        return f"{missing[0]} is not installed" if missing else "only root may make users"
    try:
        subprocess.run([sys.executable, "-c", ""], user=NOBODY, group=NOBODY, extra_groups=[], check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"other users cannot start {sys.executable}"
    return ""


@dataclass(frozen=True)
class User:
    """A user, and the group that both have."""

    name: str
    group: int

    @property
    def number(self):
        return pwd.getpwnam(self.name).pw_uid

    def options(self, umask=0o022):
        """For subprocess: as this user."""
        own = pwd.getpwnam(self.name).pw_gid
        return {"user": self.number, "group": own, "extra_groups": [self.group], "umask": umask}


@dataclass
class OwnFolder(Folder):
    """A project folder in which one user types."""

    user: User = field(kw_only=True)
    umask: int = field(default=0o022, kw_only=True)

    def __post_init__(self):
        """git takes a neighbour's repository only where this user's own settings say so."""
        self.home.mkdir()
        (self.home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")

    @property
    def home(self):
        return self.root.with_name(f"{self.root.name}.home")

    def call(self, *words, is_refused=False):
        answer = subprocess.run(
            words,
            cwd=self.root if self.root.is_dir() else self.root.parent,
            env=self.environment | {"HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
            **self.user.options(self.umask),
        )
        output = answer.stdout + answer.stderr
        assert (answer.returncode != 0) == is_refused, output
        return output


@contextmanager
def two_users():
    """A folder that all may read, one below it that the group may write, and the two users."""
    names, group = [f"edpipe_{letter}{os.getpid()}" for letter in "ab"], f"edpipe_g{os.getpid()}"
    top = Path(tempfile.mkdtemp(prefix="edpipe_users_"))
    try:
        top.chmod(0o777)
        subprocess.run(["groupadd", group], check=True)
        for name in names:
            subprocess.run(["useradd", "--no-create-home", "--groups", group, name], check=True)
        store = top / "store"
        store.mkdir()
        shutil.chown(store, group=group)
        store.chmod(0o3775)
        yield top, store, [User(name, store.stat().st_gid) for name in names]
    finally:
        for name in names:
            subprocess.run(["userdel", name], check=False)
        subprocess.run(["groupdel", group], check=False)
        shutil.rmtree(top)
