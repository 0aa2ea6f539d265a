"""Files appear whole or not at all; records and weights vouch for each other, and what is damaged is refused."""

import errno
import json
import os
import re
import socket
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from file_limit import largest_file
from hypothesis import given, settings
from hypothesis import strategies as st

from edpipe.errors import CorruptFileError, MismatchError, OverwriteError
from edpipe.storage import atomic, weights
from edpipe.storage.atomic import write_atomically, write_text_atomically
from edpipe.storage.digests import digest_bytes, digest_file, digest_json, sha256_file
from edpipe.storage.hdf5 import write_hdf5_atomically
from edpipe.storage.records import library_versions, make_record, read_record, record_path, to_json, write_record
from edpipe.storage.weights import read_weights, write_weights

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


def refused(error, write, path):
    """The one line with which writing or reading this path is refused."""
    with pytest.raises(error) as caught:
        write()
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


# write_atomically


def test_file_appears_with_its_folders_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "a/b/c.txt"
    for text in ("one", "twö"):
        write_text_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in path.parent.iterdir()] == ["c.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_old_file_stays_when_the_block_fails(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with write_atomically(path) as partial:
            partial.write_text("new")
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_name_is_given_only_to_bytes_that_are_on_disk(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(atomic.os, "fsync", lambda _: steps.append("sync"))
    replace = os.replace
    monkeypatch.setattr(atomic.os, "replace", lambda *paths: (steps.append("rename"), replace(*paths)))
    write_text_atomically(tmp_path / "a.txt", "new")
    assert steps == ["sync", "rename", "sync"]


def test_cached_object_behind_a_hard_link_is_not_touched(tmp_path):
    (tmp_path / "cached").write_text("old")
    os.link(tmp_path / "cached", tmp_path / "a.txt")
    write_text_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "cached").read_text() == "old"


def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with largest_file(1000):
        text = refused(OverwriteError, lambda: write_text_atomically(path, "x" * 5000), path)
    assert text.endswith("a.txt: cannot be written: File too large; nothing was changed")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_disk_that_is_full_only_at_the_sync_is_one_line(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    text = refused(OverwriteError, lambda: write_text_atomically(tmp_path / "a.txt", "x"), tmp_path / "a.txt")
    assert "cannot be written: No space left on device; nothing was changed" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_read_only_folder_is_one_line(tmp_path, monkeypatch, number):
    def read_only(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.Path, "mkdir", read_only)
    monkeypatch.setattr(atomic.Path, "unlink", read_only)
    text = refused(OverwriteError, lambda: write_text_atomically(tmp_path / "a/b", "x"), tmp_path / "a/b")
    assert f"cannot be written: {os.strerror(number)}; nothing was changed" in text


def test_file_where_a_folder_must_be_is_one_line(tmp_path):
    (tmp_path / "a").write_text("in the way")
    for path in (tmp_path / "a/b", tmp_path / "a/b/c"):
        assert "cannot be written: " in refused(
            OverwriteError, lambda path=path: write_text_atomically(path, "x"), path
        )


def test_folder_in_the_way_is_one_line(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    assert "cannot be written: Is a directory" in refused(
        OverwriteError, lambda: write_text_atomically(path, "x"), path
    )
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


# write_hdf5_atomically


def write_hdf5(path):
    with write_hdf5_atomically(path) as file:
        file.create_dataset("rows", (2000, 50), np.uint8)
        for start in range(0, 2000, 100):
            file["rows"][start : start + 100] = start % 256
        file.attrs["name"] = "ä" * 100


def test_hdf5_file_is_an_ordinary_one_and_the_same_every_time(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_hdf5(tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["rows"][:, 0].tolist() == [start % 256 for start in range(0, 2000, 100) for _ in range(100)]
        assert file.attrs["name"] == "ä" * 100


@pytest.mark.parametrize("num_bytes", [0, 10, 1000, 50_000, 100_100])
def test_full_disk_ends_an_hdf5_file_with_one_line_at_any_moment(tmp_path, num_bytes):
    with largest_file(num_bytes):
        text = refused(OverwriteError, lambda: write_hdf5(tmp_path / "a.h5"), tmp_path / "a.h5")
    assert text.endswith("cannot be written: File too large; nothing was changed")
    assert list(tmp_path.iterdir()) == []


def test_error_inside_the_block_is_the_one_that_is_seen(tmp_path):
    def write():
        with write_hdf5_atomically(tmp_path / "a.h5") as file:
            file["rows"] = np.zeros(100)
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        write()
    assert list(tmp_path.iterdir()) == []


# records


@settings(max_examples=25)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_record_is_read_as_written_whatever_the_order_of_its_keys(tmp_path_factory, contents):
    path = tmp_path_factory.getbasetemp() / "record.json"
    write_record(path, contents)
    first = path.read_bytes()
    assert read_record(path) == contents
    write_record(path, dict(reversed(contents.items())))
    assert path.read_bytes() == first


def test_record_is_text_for_people():
    assert to_json({"b": [1], "a": "ä"}) == '{\n "a": "ä",\n "b": [\n  1\n ]\n}\n'
    with pytest.raises(ValueError, match="Out of range float"):
        to_json({"loss": float("nan")})


@given(st.binary(max_size=50))
def test_digests_are_the_start_of_sha256(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "data"
    path.write_bytes(data)
    assert digest_file(path) == digest_bytes(data) == sha256_file(path)[:16]
    assert len(digest_bytes(data)) == 16


def test_digest_of_a_value_does_not_depend_on_the_order_of_keys():
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1}) != digest_json({"a": 2, "b": 1})


def test_record_names_step_knobs_inputs_code_and_versions():
    record = make_record("partition_dataset", {"b": 1}, {"dataset": "d"}, num_samples=3)
    assert sorted(record) == ["code", "inputs", "knobs", "num_samples", "step", "versions"]
    assert record == make_record("partition_dataset", {"b": 1}, {"dataset": "d"}, num_samples=3)
    assert record["code"] != make_record("pack_dataset", {}, {})["code"]
    assert library_versions()["h5py"] == h5py.__version__


def test_library_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr("edpipe.storage.records.LIBRARIES", ("numpy", "no-such-library-anywhere"))
    assert library_versions() == {"numpy": np.__version__}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "not a readable record"),
        (b"", "not a readable record"),
        (b'{"a": 1', "not a readable record"),
        (b"\xff\xfe", "not a readable record"),
        (b"[1]", "a record must be a JSON object, got list; make it again"),
    ],
)
def test_damaged_record_is_refused(tmp_path, content, text):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert text in refused(CorruptFileError, lambda: read_record(path), path)


def test_record_without_a_required_key_is_refused(tmp_path):
    path = tmp_path / "a.json"
    write_record(path, {"a": 1})
    assert read_record(path, "a") == {"a": 1}
    text = refused(CorruptFileError, lambda: read_record(path, "a", "b"), path)
    assert "the record lacks 'b'; make it again with `snakemake --force " in text


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_digest_of_no_file_is_refused(tmp_path, make):
    path = tmp_path / "a"
    make(path)
    assert "cannot be read: " in refused(CorruptFileError, lambda: digest_file(path), path)


# weights


TENSORS = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7), "h": torch.ones(2, dtype=torch.float16)}


def write_some_weights(path, record=None, tensors=TENSORS):
    write_weights(path, tensors, record or {"step": "train_teacher"})
    return path


def test_weights_are_read_as_written_with_their_record(tmp_path):
    path = write_some_weights(tmp_path / "a.safetensors")
    found, record = read_weights(path)
    assert {name: (value.dtype, value.tolist()) for name, value in found.items()} == {
        name: (value.dtype, value.tolist()) for name, value in TENSORS.items()
    }
    assert record == {"step": "train_teacher", "weights_digest": digest_file(path)}
    assert write_some_weights(tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


def test_views_and_transposed_weights_are_written_by_value(tmp_path):
    tensors = {"t": torch.arange(6.0).reshape(2, 3).T, "g": torch.ones(2, requires_grad=True)}
    found, _ = read_weights(write_some_weights(tmp_path / "a.safetensors", tensors=tensors))
    assert found["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert not found["g"].requires_grad


def test_weights_and_record_of_two_runs_are_refused(tmp_path):
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_some_weights(path)
    write_some_weights(other, tensors={"w": torch.zeros(2)})
    os.replace(other, path)
    text = refused(MismatchError, lambda: read_weights(path), path)
    assert f"content has digest {digest_file(path)}, its record says " in text
    assert "make both again with `snakemake --force " in text


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + b"\x01"])
def test_damaged_weights_are_refused(tmp_path, damage):
    path = write_some_weights(tmp_path / "a.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    assert "its record says" in refused(MismatchError, lambda: read_weights(path), path)


def test_missing_weights_or_record_are_refused(tmp_path):
    path = write_some_weights(tmp_path / "a.safetensors")
    content = path.read_bytes()
    path.unlink()
    assert "cannot be read: No such file" in refused(CorruptFileError, lambda: read_weights(path), path)
    path.write_bytes(content)
    record_path(path).unlink()
    assert "not a readable record" in refused(CorruptFileError, lambda: read_weights(path), record_path(path))


def test_file_that_is_no_safetensors_file_is_refused_though_its_record_fits(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"no weights")
    write_record(record_path(path), {"weights_digest": digest_file(path)})
    assert "not a safetensors file (" in refused(CorruptFileError, lambda: read_weights(path), path)


def test_record_is_gone_while_weights_are_being_replaced(tmp_path, monkeypatch):
    path = write_some_weights(tmp_path / "a.safetensors")

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "write_atomically", stop)
    with pytest.raises(KeyboardInterrupt):
        write_some_weights(path)
    assert not record_path(path).exists()


def test_full_disk_is_one_line_for_weights(tmp_path):
    path = tmp_path / "a.safetensors"
    with largest_file(100):
        text = refused(OverwriteError, lambda: write_some_weights(path), path)
    assert "cannot be written: File too large; nothing was changed" in text
    assert list(tmp_path.iterdir()) == []


def test_record_holds_plain_json(tmp_path):
    path = write_some_weights(tmp_path / "a.safetensors", {"hits": [1, 2], "note": "ä"})
    assert json.loads(record_path(path).read_text(encoding="utf-8"))["note"] == "ä"


def test_leftovers_of_killed_processes_are_removed_and_those_of_living_ones_kept(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    target = tmp_path / "a.json"
    host = re.sub(r"\W", "_", socket.gethostname())
    dead, living, foreign = (
        tmp_path / f".a.json.{name}.partial" for name in (f"{host}-{killed.pid}", f"{host}-{os.getppid()}", "other-1")
    )
    for path in (dead, living, foreign):
        path.write_text("half")
    write_text_atomically(target, "whole")
    assert target.read_text() == "whole"
    assert not dead.exists()
    assert living.exists()
    assert foreign.exists()
