"""Unpacking zip and tar archives: all of it or nothing, and nothing outside of the folder."""

import fcntl
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edpipe.datasets.readers import unpack as module
from edpipe.datasets.readers.unpack import Limits, unpack
from edpipe.errors import DataError

ROOM = Limits(num_files=100, num_bytes=10_000)
FORMS = ("zip", "tar", "tar.gz")


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr(module.os, "sync", lambda: None)


def write_archive(path, files):
    """An archive of these (name, bytes); None is a folder."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files:
                archive.writestr(f"{name}/" if data is None else name, data or b"")
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            for name, data in files:
                add(archive, name, data)
    return path


def add(archive, name, data, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.REGTYPE if data is not None else tarfile.DIRTYPE, len(data or b"")
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data or b""))


def tar_bytes(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files:
            add(archive, name, data)
    return stream.getvalue()


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(archive, text, limits=ROOM, top="top"):
    """Unpacking is refused in one line that names the archive, and leaves nothing."""
    with pytest.raises(DataError, match=text) as error:
        unpack(archive, archive.parent / "goal", limits, top)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{archive}: ")
    assert names_in(archive.parent) == [archive.name]


NAMES = st.lists(st.text("ab.é", min_size=1, max_size=4).filter(lambda t: t not in (".", "..")), min_size=1, max_size=3)
TREES = st.dictionaries(NAMES.map("/".join), st.binary(max_size=50), min_size=1, max_size=8).filter(
    lambda tree: not any(other.startswith(f"{name}/") for name in tree for other in tree)
)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@given(TREES)
@settings(max_examples=30)
def test_any_tree_comes_back_as_it_was(form, tree):
    with tempfile.TemporaryDirectory() as folder:
        archive = write_archive(Path(folder) / f"a.{form}", [(f"top/{name}", data) for name, data in tree.items()])
        goal = unpack(archive, Path(folder) / "goal", ROOM, "top")
        assert contents(goal) == tree
        assert names_in(Path(folder)) == sorted([archive.name, "goal"])


@pytest.mark.parametrize("form", FORMS)
def test_without_a_top_all_of_it_becomes_the_goal_with_usual_permissions(tmp_path, form):
    archive = write_archive(tmp_path / f"a.{form}", [("./", None) if form != "zip" else ("e", None), ("b/c", b"1")])
    goal = unpack(archive, tmp_path / "goal", ROOM)
    (tmp_path / "other").mkdir()
    assert contents(goal) == {"b/c": b"1"}
    assert goal.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_owner_and_permissions_of_an_archive_are_not_taken(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "top/a", b"1", mode=0o4777, uid=1)
    file = unpack(tmp_path / "a.tar", tmp_path / "goal", ROOM, "top") / "a"
    assert not file.stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)
    assert file.stat().st_uid == os.getuid()


@pytest.mark.parametrize("form", FORMS)
def test_archives_inside_are_unpacked_to_where_they_belong(tmp_path, form):
    files = [("cat.tar", tar_bytes([("1.jpg", b"1"), ("2.jpg", b"2")])), ("dog.tar", tar_bytes([("1.jpg", b"3")]))]
    archive = write_archive(tmp_path / f"a.{form}", [*files, ("readme", b"r")])

    def inner(name):
        return PurePosixPath(name.stem) if name.suffix == ".tar" else None

    goal = unpack(archive, tmp_path / "goal", ROOM, inner=inner)
    assert contents(goal) == {"cat/1.jpg": b"1", "cat/2.jpg": b"2", "dog/1.jpg": b"3", "readme": b"r"}


# what is refused


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["../evil", "top/../../evil", "/evil", "top/.."])
def test_name_that_leads_outside_is_refused(tmp_path, form, name):
    archive = write_archive(tmp_path / f"a.{form}", [("top/a", b"1"), (name, b"2")])
    refusal(archive, "is not unpacked: the name '.*' leads outside of its folder; fetch the published archive$")
    assert not (tmp_path.parent / "evil").exists()


def test_name_that_leads_outside_from_an_archive_inside_is_refused(tmp_path):
    archive = write_archive(tmp_path / "a.tar", [("in.tar", tar_bytes([("../../evil", b"1")]))])
    with pytest.raises(DataError, match="leads outside of its folder"):
        unpack(archive, tmp_path / "goal", ROOM, inner=lambda _: PurePosixPath("in"))
    assert names_in(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_link_or_device_in_a_tar_archive_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "top/a", b"1")
        add(archive, "top/b", b"", type=kind, linkname="/etc/passwd")
    refusal(tmp_path / "a.tar", "is not unpacked: top/b is a link or a device; fetch the published archive$")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_link_or_device_in_a_zip_archive_is_refused(tmp_path, kind):
    info = zipfile.ZipInfo("top/b")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("top/a", b"1")
        archive.writestr(info, "/etc/passwd")
    refusal(tmp_path / "a.zip", "is not unpacked: top/b is a link or a device; fetch the published archive$")


@pytest.mark.parametrize("form", FORMS)
def test_bytes_over_the_limit_are_refused_as_they_come(tmp_path, form, monkeypatch):
    monkeypatch.setattr(module, "COPY_BYTES", 1000)
    files = [("top/a", bytes(6_000)), ("top/b", bytes(4_000))]
    assert unpack(write_archive(tmp_path / f"a.{form}", files), tmp_path / "whole", ROOM, "top").is_dir()
    folder = tmp_path / "bomb"
    folder.mkdir()
    written = []
    monkeypatch.setattr(
        module, "_write", lambda *args, write=module._write: written.append(write(*args)) or written[-1]
    )
    bomb = write_archive(folder / f"a.{form}", [("top/a", bytes(6_000)), ("top/b", bytes(1_000_000))])
    refusal(bomb, "is not unpacked: it unpacks to more than 10,000 bytes; fetch the published archive$")
    assert sum(written) <= 11_000


@pytest.mark.parametrize("form", FORMS)
def test_files_over_the_limit_are_refused(tmp_path, form):
    files = [(f"top/{number}", b"") for number in range(101)]
    assert unpack(write_archive(tmp_path / f"a.{form}", files[:100]), tmp_path / "whole", ROOM, "top").is_dir()
    folder = tmp_path / "bomb"
    folder.mkdir()
    refusal(write_archive(folder / f"a.{form}", files), "it holds more than 100 files and folders; fetch the published")


def test_files_of_archives_inside_count(tmp_path):
    inside = tar_bytes([(str(number), b"") for number in range(101)])
    archive = write_archive(tmp_path / "a.tar", [("in.tar", inside)])
    with pytest.raises(DataError, match="it holds more than 100 files and folders"):
        unpack(archive, tmp_path / "goal", ROOM, inner=lambda _: PurePosixPath("in"))


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_name_that_comes_twice_is_refused(tmp_path, form):
    archive = write_archive(tmp_path / f"a.{form}", [("top/a", b"1"), ("top/a", b"2")])
    refusal(archive, r"cannot be unpacked to .*goal \(.*File exists.*\); free the disk or fetch the archive again$")


@pytest.mark.parametrize("form", FORMS)
def test_archive_without_the_folder_is_refused(tmp_path, form):
    archive = write_archive(tmp_path / f"a.{form}", [("other/a", b"1")])
    refusal(archive, "is not unpacked: it holds no folder top; fetch the published archive$")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.9])
def test_truncated_archive_is_refused(tmp_path, form, keep):
    files = [(f"top/{number}", os.urandom(9_000)) for number in range(4)]
    archive = write_archive(tmp_path / f"a.{form}", files)
    data = archive.read_bytes()
    archive.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    text = r"cannot be unpacked to .*goal \(.+\); free the disk or fetch the archive again$"
    refusal(archive, text, Limits(100, 100_000))


def test_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    refusal(write_archive(tmp_path / "a.tar", [("top/a", b"1")]), r"\(\[Errno 28\] No space left on device\); free the")


# several processes, and killed ones


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_kept(tmp_path):
    for name in (".unpack-dead", ".unpack-alive", ".unpack-begun"):
        (tmp_path / name / "content").mkdir(parents=True)
    (tmp_path / ".unpack-dead/lock").touch()
    with (tmp_path / ".unpack-alive/lock").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        unpack(write_archive(tmp_path / "a.tar", [("top/a", b"1")]), tmp_path / "goal", ROOM, "top")
    assert names_in(tmp_path) == [".unpack-alive", ".unpack-begun", "a.tar", "goal"]


def test_folder_that_is_written_is_seen_as_such_by_others(tmp_path, monkeypatch):
    archive, write, seen = write_archive(tmp_path / "a.tar", [("top/a", b"1")]), module._write, []

    def looked_at(*args):
        module._remove_abandoned(tmp_path)
        seen.append(write(*args))
        return seen[-1]

    monkeypatch.setattr(module, "_write", looked_at)
    assert contents(unpack(archive, tmp_path / "goal", ROOM, "top")) == {"a": b"1"}
    assert seen == [1]


def test_of_two_jobs_that_unpack_at_once_the_first_that_is_done_wins(tmp_path, monkeypatch):
    archive, rename = write_archive(tmp_path / "a.tar", [("top/a", b"1")]), os.rename

    def late(source, goal):
        goal.mkdir()
        (goal / "a").write_bytes(b"theirs")
        rename(source, goal)

    monkeypatch.setattr(module.os, "rename", late)
    assert contents(unpack(archive, tmp_path / "goal", ROOM, "top")) == {"a": b"theirs"}
    assert names_in(tmp_path) == ["a.tar", "goal"]


def test_a_line_is_said_now_and_then(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "LINE_EVERY_S", 0)
    archive = write_archive(tmp_path / "a.tar", [("top/a", b"1"), ("top/b", b"1")])
    unpack(archive, tmp_path / "goal", ROOM, "top")
    assert capsys.readouterr().err == f"unpack {archive}: 1 files\nunpack {archive}: 2 files\n"
