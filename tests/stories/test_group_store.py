"""One cache of DVC for a group, as docs/sharing.md says: two real users make, take over, and cannot harm each other.

Steps are played by stand_in_command_line.py.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from dvc_stories import EVERY_STEP, FROM_MIDDLE, MIDDLE, copy_compiled, start
from users import OwnFolder, two_users, why_not

pytest.importorskip("dvc")
pytest.importorskip("snakemake")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=f"two users: {why_not()}")]

SOFT_LABELS = "artifacts/soft_labels/digits/whole/all/views_0-1.h5"


@dataclass(frozen=True)
class Group:
    """What two users have."""

    first: OwnFolder
    second: OwnFolder
    store: Path


@pytest.fixture(scope="module")
def group():
    """The first has made and committed everything, the second has a clone and nothing of DVC's."""
    with two_users() as (top, store, (one, other)):
        first = OwnFolder(start(top / "first", "symlink").root, user=one)
        for number in range(256):  # as the page says
            (store / f"files/md5/{number:02x}").mkdir(parents=True)
        for folder in (store / "files", store / "files/md5", *store.glob("files/md5/*")):
            os.chown(folder, 0, one.group)
            folder.chmod(0o3775)
        subprocess.run(["chown", "-R", str(one.number), top / "first"], check=True)
        first.call("dvc", "cache", "dir", str(store))
        first.call("dvc", "config", "cache.shared", "group")
        first.call("dvc", "config", "cache.type", "symlink")
        assert first.snakemake() == EVERY_STEP
        first.git_commit()
        second = OwnFolder(top / "second", user=other, umask=0o077)
        second.call("git", "clone", "--quiet", str(first.root), str(second.root))
        copy_compiled(first.root / "edpipe", second.root / "edpipe")
        subprocess.run(["chown", "-R", str(other.number), second.root], check=True)
        second.call("dvc", "checkout")
        yield Group(first, second, store)


def test_the_second_user_computes_nothing_and_has_no_copy(group):
    assert group.second.snakemake() == []
    assert group.second.dvc_repro() == []
    path = group.second.root / SOFT_LABELS
    assert path.is_symlink()
    assert path.resolve().is_relative_to(group.store)
    assert path.stat().st_uid == group.first.user.number


@pytest.mark.parametrize(
    "attempt", ["echo x >> {path}", "chmod u+w {path}", "rm {object}", "cp {path} own; mv own {object}"]
)
def test_neither_can_change_or_delete_what_the_other_made(group, attempt):
    path = group.second.root / SOFT_LABELS
    before = path.read_bytes()
    words = attempt.format(path=path, object=path.resolve())
    said = group.second.call("sh", "-c", words, is_refused=True)
    assert "denied" in said or "not permitted" in said
    assert path.read_bytes() == before


def test_what_the_second_makes_the_first_takes_over_and_back(group):
    first, second = group.first, group.second
    second.edit(MIDDLE, MIDDLE.replace("0.1", "5e-2"))
    shutil.chown(second.root / "params.yaml", second.user.number)
    assert second.snakemake() == FROM_MIDDLE
    second.git_commit()
    subprocess.run(["chmod", "-R", "a+rX", second.root], check=True)  # in place of a host of git
    first.call("git", "pull", "--quiet", str(second.root), "HEAD")
    first.call("dvc", "checkout")
    assert first.snakemake() == []
    assert first.dvc_repro() == []
    owners = {path.stat().st_uid for path in group.store.rglob("*") if path.is_file()}
    assert owners == {first.user.number, second.user.number}


def test_one_may_clear_away_only_their_own(group):
    before = {path: path.read_bytes() for path in group.store.rglob("*") if path.is_file()}
    theirs = [path for path in before if path.stat().st_uid == group.first.user.number]
    lock = group.second.root / "dvc.lock"
    kept = lock.rename(lock.with_suffix(".kept"))  # so that the second uses nothing of all this
    said = group.second.call("dvc", "gc", "--workspace", "--force", is_refused=True)
    kept.rename(lock)
    assert "Operation not permitted" in said
    assert {path: path.read_bytes() for path in theirs} == {path: before[path] for path in theirs}


def test_a_hard_link_to_a_file_of_the_other_is_refused_by_the_kernel(group):
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("this kernel allows such links")
    group.second.call("dvc", "config", "--local", "cache.type", "hardlink")
    assert "Checkout failed" in group.second.call("dvc", "checkout", "--relink", is_refused=True)
    group.second.call("dvc", "config", "--local", "cache.type", "symlink")
    group.second.call("dvc", "checkout", "--relink")
    assert group.second.snakemake() == []
