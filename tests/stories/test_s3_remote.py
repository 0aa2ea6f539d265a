"""DVC's remote on S3: a project is pushed and pulled as docs/sharing.md says; the server damages or refuses.

Steps are played by stand_in_command_line.py; the server is s3_server.py.
"""

import subprocess

import pytest
from dvc_stories import EVERY_STEP, clone_of
from s3_server import BUCKET

pytest.importorskip("dvc_s3")
pytest.importorskip("snakemake")
pytestmark = pytest.mark.slow

SOFT_LABELS = "artifacts/soft_labels/digits/whole/all/views_0-1.h5"


@pytest.fixture
def on_s3(repository, s3_store):
    """A finished project with the server for its remote, nothing pushed yet."""
    repository.call("dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/project")
    repository.call("dvc", "remote", "modify", "store", "endpointurl", s3_store.address)
    repository.call("dvc", "remote", "modify", "store", "verify", "true")
    return repository


@pytest.fixture
def clone(on_s3, tmp_path):
    """A colleague's clone of it, pushed, nothing pulled yet."""
    return clone_of(on_s3, tmp_path / "second")


def artifacts_of(folder):
    """The contents of all artifacts and results by path."""
    files = [path for top in ("artifacts", "results") for path in (folder.root / top).rglob("*") if path.is_file()]
    return {path.relative_to(folder.root).as_posix(): path.read_bytes() for path in files}


def key_of(store, contents):
    """The object with these bytes."""
    (key,) = [key for key in store.keys if store.read(key) == contents]
    return key


def test_a_colleague_pulls_from_s3_and_nothing_runs(clone, on_s3, s3_store):
    clone.call("dvc", "pull")
    assert clone.snakemake() == []
    assert clone.dvc_repro() == []
    pulled = artifacts_of(clone)
    assert pulled == {path: contents for path, contents in artifacts_of(on_s3).items() if path != "results/index.html"}
    assert len(pulled) > len(EVERY_STEP)
    assert set(pulled.values()) <= {s3_store.read(key) for key in s3_store.keys}


@pytest.mark.parametrize("damage", ["a bit", "half", "all"])
def test_what_the_server_damaged_or_cut_short_is_refused(clone, on_s3, s3_store, damage):
    contents = (on_s3.root / SOFT_LABELS).read_bytes()
    key = key_of(s3_store, contents)
    damaged = {"a bit": contents[:-1] + bytes([contents[-1] ^ 1]), "half": contents[: len(contents) // 2], "all": b""}
    s3_store.write(key, damaged[damage])
    output = clone.call("dvc", "pull", is_refused=True)
    assert "failed to pull data" in output
    assert not (clone.root / SOFT_LABELS).exists()
    hidden = clone.root / ".dvc/cache" / key.removeprefix("project/")
    assert not hidden.exists(), "nor does it lie in the cache"
    assert set(artifacts_of(on_s3)) - set(artifacts_of(clone)) - {"results/index.html"} == {SOFT_LABELS}
    s3_store.write(key, contents)
    clone.call("dvc", "pull")
    assert clone.snakemake() == []


def test_without_verify_it_is_put_in_place_and_snakemake_makes_it_again(clone, on_s3, s3_store):
    clone.call("dvc", "remote", "modify", "store", "verify", "false")
    contents = (on_s3.root / SOFT_LABELS).read_bytes()
    s3_store.write(key_of(s3_store, contents), contents[:-1])
    clone.call("dvc", "pull")
    assert (clone.root / SOFT_LABELS).read_bytes() == contents[:-1]
    assert "dump_soft_labels --dataset digits --teacher whole --subset all --views 0-1" in clone.snakemake()
    assert (clone.root / SOFT_LABELS).read_bytes() == contents


def test_a_pull_that_the_server_breaks_off_goes_on(clone, s3_store):
    s3_store.requests.clear()
    s3_store.requests.refused_after = 40
    output = clone.call("dvc", "pull", is_refused=True)
    assert "Traceback" not in output
    s3_store.requests.refused_after = float("inf")
    clone.call("dvc", "pull")
    assert clone.snakemake() == []


def test_two_pushes_at_once_agree(on_s3, s3_store, tmp_path):
    on_s3.git_commit()
    other = on_s3.copy(tmp_path / "other")
    pushes = [
        subprocess.Popen(["dvc", "push"], cwd=one.root, env=one.environment, stdout=subprocess.DEVNULL)
        for one in (on_s3, other)
    ]
    assert [push.wait() for push in pushes] == [0, 0]
    clone = clone_of(on_s3, tmp_path / "second")
    clone.call("dvc", "pull")
    assert clone.snakemake() == []
