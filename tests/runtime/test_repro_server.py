"""The steps of one `dvc repro` find one server; nobody else does, and what keeps them from it costs time only."""

import os
import sys

import pytest

from edpipe.runtime import repro_server
from edpipe.runtime.repro_server import FOLDER, socket_under_dvc

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can watch another's process")


class Processes:
    """What the system says of processes, as far as is asked here."""

    def __init__(self, root):
        self.root = root

    def add(self, pid, parent, words, stage=None, began=7):
        folder = self.root / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        variables = ["HOME=/", *([f"DVC_STAGE={stage}"] if stage else [])]
        (folder / "environ").write_bytes(b"".join(variable.encode() + b"\0" for variable in variables))
        fields = ["S", str(parent), *["0"] * 17, str(began)]
        (folder / "stat").write_text(f"{pid} (a ) name) {' '.join(fields)}")


@pytest.fixture
def processes(tmp_path, monkeypatch):
    """A shell below DVC runs this step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "run_stage@x")
    monkeypatch.delenv("EDPIPE_FORK_SERVER", raising=False)
    found = Processes(tmp_path / "processes")
    found.add(50, 1, ["bash"])
    found.add(60, 50, ["/usr/bin/python3", "/usr/bin/dvc", "repro"])
    found.add(70, 60, ["sh", "-c", "edpipe run_stage"], stage="run_stage@x")
    monkeypatch.setattr(repro_server, "_PROCESSES", found.root)
    monkeypatch.setattr(os, "getppid", lambda: 70)
    monkeypatch.setattr(os, "pidfd_open", lambda pid: os.open(found.root / str(pid) / "stat", os.O_RDONLY))
    return found


class Starts:
    """Stands in for starting a server; it listens at once."""

    def __init__(self):
        self.watched = []

    def __call__(self, path, watched):
        self.watched.append(os.read(watched, 2).decode())
        path.touch()


def test_the_second_step_starts_the_server_of_its_dvc_process_and_all_others_find_it(processes):
    starts = Starts()
    assert socket_under_dvc(True, starts) is None
    assert starts.watched == []
    path = socket_under_dvc(True, starts)
    assert path == str(FOLDER / "60-7" / "socket")
    assert starts.watched == ["60"]
    assert [socket_under_dvc(True, starts) for _ in range(3)] == [path] * 3
    assert starts.watched == ["60"], "once for any number of steps"


def test_another_dvc_process_has_a_server_of_its_own(processes):
    starts = Starts()
    first = [socket_under_dvc(True, starts) for _ in range(2)][1]
    processes.add(60, 50, ["dvc", "repro"], began=8)  # the same number, later
    assert [socket_under_dvc(True, starts) for _ in range(2)] == [None, str(FOLDER / "60-8" / "socket")]
    assert not os.path.exists(first), "what the one that is gone has left is removed"


def test_python_may_run_dvc_as_a_module(processes):
    processes.add(60, 50, ["python", "-m", "dvc", "exp", "run"])
    assert repro_server.dvc_process() == 60


@pytest.mark.parametrize("words", [["bash"], ["python", "-m", "pytest", "dvc/tests"], []])
def test_a_variable_that_somebody_else_has_set_starts_nothing(processes, words):
    processes.add(60, 50, words)
    assert [socket_under_dvc(True, Starts()) for _ in range(3)] == [None] * 3
    assert not FOLDER.exists()


def test_other_commands_have_no_server(processes):
    assert [socket_under_dvc(False, Starts()) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize(("name", "value"), [("EDPIPE_FORK_SERVER", "0"), ("DVC_STAGE", None)])
def test_it_can_be_switched_off_and_is_for_steps_of_dvc_alone(processes, monkeypatch, name, value):
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    assert [socket_under_dvc(True, Starts()) for _ in range(3)] == [None] * 3


def test_where_processes_cannot_be_watched_there_is_no_server(processes, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    assert [socket_under_dvc(True, Starts()) for _ in range(3)] == [None] * 3


def test_a_server_that_cannot_be_started_is_done_without(processes):
    def refuse(*_):
        raise OSError("no sockets on this disk")

    assert [socket_under_dvc(True, refuse) for _ in range(3)] == [None] * 3


def test_processes_that_may_not_be_looked_at_have_no_server(processes):
    (processes.root / "70" / "environ").unlink()
    assert socket_under_dvc(True, Starts()) is None
