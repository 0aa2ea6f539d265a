"""A call that is handed over to the fork server is run once, as a new process would run it; any other runs plainly."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
from project import BIN, ROOT, make_project, tiny_params
from watching import TIMEOUT_S

from edpipe.cli import fork_server
from edpipe.runtime import fork_protocol

WITNESS = '''
"""Plays the steps of edpipe: what `steps` holds under the first word is run."""
import sys
from pathlib import Path

def main():
    found = {}
    exec((Path(__file__).parents[1] / "played" / sys.argv[1]).read_text(), found)
    return found["code"]
'''
STEPS = {
    "tell": (
        "import os, sys; code = 3; print(sys.argv[1:], os.getcwd(), os.environ['WORD'], sys.stdin.read());"
        "print('done', file=sys.stderr)"
    ),
    "process": "import os; code = 0; print(os.getppid(), os.getsid(0) == os.getpid(), os.listdir('/proc/self/fd'))",
    "fail": "raise RuntimeError('a bug')",
    "change": (
        "import sys; code = 0\n"
        "for stream in (sys.stdout, sys.stderr): stream.reconfigure(errors='replace'); print('said', file=stream)"
    ),
    "help": "print('said before the end'); raise SystemExit(0)",
    "die": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "wait": (
        "import os, signal, sys, time\n"
        "def end(number, _): os.write(1, b'signal %d\\n' % number); sys.exit(128 + number)\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, end)\n"
        "os.write(1, b'%d\\n' % os.getpid())\ntime.sleep(60)"
    ),
}


class Served:
    """A copy of the package whose steps are played, and a fork server for it."""

    def __init__(self, folder):
        self.folder, self.package = folder, folder / "code" / "edpipe"
        for name in ("played", "cli", "runtime"):
            (self.package / name).mkdir(parents=True)
        for name in ("__init__", "cli/__init__", "cli/entry", "cli/handover", "cli/fork_server"):
            shutil.copy(ROOT / f"edpipe/{name}.py", self.package / f"{name}.py")
        for name in ("__init__", "exit_codes", "fork_protocol", "repro_server", "signals"):
            shutil.copy(ROOT / f"edpipe/runtime/{name}.py", self.package / "runtime")
        (self.package / "cli" / "main.py").write_text(WITNESS)
        for name, text in STEPS.items():
            (self.package / "played" / name).write_text(text)
        self.listener = socket.socket(socket.AF_UNIX)
        self.path = folder / "private" / "socket"
        self.path.parent.mkdir()
        self.listener.bind(str(self.path))
        self.listener.listen(8)

    def start(self):
        """Starts the server; while self.held is open, it lives."""
        lifeline, self.held = os.pipe()
        command = [sys.executable, "-P", "-c", SERVER_WITHOUT_IMPORTS, str(self.listener.fileno()), str(lifeline)]
        self.server = subprocess.Popen(
            command,
            env=self.environment(),
            stdout=subprocess.DEVNULL,  # as Snakemake and DVC start it
            stderr=subprocess.DEVNULL,
            pass_fds=(self.listener.fileno(), lifeline),
            start_new_session=True,
        )
        os.close(lifeline)
        self.listener.close()

    def stop(self):
        """Ends the server by the end of its lifeline."""
        self.listener.close()
        if hasattr(self, "server"):
            os.close(self.held)
            self.server.wait(TIMEOUT_S)

    def environment(self, **more):
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON", "EDPIPE_"))
        }
        return (
            kept
            | {"PYTHONPATH": str(self.package.parent), "WORD": "as said", fork_protocol.SERVER: str(self.path)}
            | more
        )

    def call(self, *words, **environment):
        """One call of `edpipe`, to its end."""
        return subprocess.run(
            [BIN / "edpipe", *words],
            env=self.environment(**environment),
            cwd=self.folder,
            input="what was piped in",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    def is_served(self):
        """Whether a call is run by the server's child."""
        done = self.call("process")
        assert done.returncode == 0, done.stderr
        return done.stdout.startswith(f"{self.server.pid} True")


SERVER_WITHOUT_IMPORTS = """
from edpipe.cli import fork_server
fork_server.main()
"""


@pytest.fixture
def played(tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("s"))
    yield served
    served.stop()


@pytest.fixture
def served(played):
    played.start()
    return played


def test_a_served_call_has_arguments_folder_environment_and_streams_of_its_own(served):
    done = served.call("tell", "--dataset", "two words")
    assert done.stdout == f"['tell', '--dataset', 'two words'] {served.folder} as said what was piped in\n"
    assert (done.returncode, done.stderr) == (3, "done\n")
    assert served.is_served()


def test_streams_that_are_pipes_can_be_changed_though_the_servers_are_files(served):
    """The command line does so at once; a stream that was made for a file would look for its place in the pipe."""
    done = served.call("change")
    assert (done.returncode, done.stdout, done.stderr) == (0, "said\n", "said\n")


def test_a_child_leads_a_session_and_holds_nothing_of_the_server(served):
    words = served.call("process").stdout.split(" ", 2)
    assert words[:2] == [str(served.server.pid), "True"]
    # Standard streams, the folder that is being listed, and the sending end of the socket that wakes the server.
    assert len(json.loads(words[2].replace("'", '"'))) <= 5


def test_a_bug_in_a_child_ends_as_python_ends(served):
    done = served.call("fail")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RuntimeError: a bug\n")


def test_what_was_said_before_an_early_end_is_not_lost(served):
    done = served.call("help")
    assert (done.returncode, done.stdout) == (0, "said before the end\n")


def test_a_child_that_a_signal_ended_gives_the_code_that_shells_give(served):
    assert served.call("die").returncode == 128 + signal.SIGKILL
    assert served.is_served()  # and the server goes on


def start_waiting(served):
    caller = subprocess.Popen(
        [BIN / "edpipe", "wait"], env=served.environment(), cwd=served.folder, stdout=subprocess.PIPE, text=True
    )
    return caller, int(caller.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_child_and_its_code_comes_back(served, number):
    caller, child = start_waiting(served)
    with caller:
        assert child != caller.pid
        caller.send_signal(number)
        assert caller.stdout.read() == f"signal {int(number)}\n"
    assert caller.returncode == 128 + number


def is_gone(process):
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_a_front_end_that_is_killed_takes_its_child_with_it(served):
    caller, child = start_waiting(served)
    with caller:
        caller.kill()
        assert is_gone(child)
    assert served.is_served()


@pytest.mark.slow
def test_a_server_that_is_killed_fails_what_it_ran_and_leaves_no_child(served, capfd):
    caller, child = start_waiting(served)
    with caller:
        served.server.kill()
        served.server.wait()
    assert caller.returncode == 1
    assert is_gone(child)
    assert "the fork server was ended from outside; run the same command again" in capfd.readouterr().err
    assert served.call("tell").returncode == 3  # later calls run plainly


def test_a_server_ends_with_snakemake_once_its_children_have_ended(served):
    caller, _ = start_waiting(served)
    with caller:
        os.close(served.held)
        served.held = os.open(os.devnull, os.O_RDONLY)
        assert served.call("tell").returncode == 3  # plainly: nobody is to call any more
        assert served.server.poll() is None
        caller.terminate()
        caller.wait()
    assert served.server.wait(TIMEOUT_S) == 0
    assert caller.returncode == 128 + signal.SIGTERM
    assert not served.path.parent.exists()


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_edited_code_is_run_plainly(served, change):
    assert served.is_served()
    if change == "edited":
        witness = served.package / "cli" / "main.py"
        witness.write_text(WITNESS.replace("found = {}", "found = dict()"))
    elif change == "added":
        (served.package / "more.py").write_text("")
    else:
        (served.package / "cli" / "fork_server.py").unlink()
    assert not served.is_served()


def test_another_copy_of_the_package_is_run_plainly(served, tmp_path):
    shutil.copytree(served.package, tmp_path / "edpipe")
    assert served.is_served()
    done = served.call("process", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    assert not done.stdout.startswith(f"{served.server.pid} ")


@pytest.mark.parametrize("path", ["", "/nowhere/socket", "x" * 200])
def test_without_a_server_a_call_runs_plainly(played, path):
    assert played.call("tell", EDPIPE_SERVER=path).returncode == 3


class OneSidedServer:
    """Accepts one call and says what it is told to."""

    def __init__(self, played):
        self.listener, self.played = played.listener, played

    def answer(self, *words):
        """Answers a call of `tell` with these words, each after the front-end spoke; gives how that ended."""
        caller = subprocess.Popen(
            [BIN / "edpipe", "tell"],
            env=self.played.environment(),
            cwd=self.played.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.listener.settimeout(TIMEOUT_S)
        connection, _ = self.listener.accept()
        _, descriptors = fork_protocol.receive_call(connection)
        fork_protocol.close_all(descriptors)
        with connection:
            for word in words:
                connection.sendall(word)
                assert connection.recv(1) == fork_protocol.GO
        out, err = caller.communicate(timeout=TIMEOUT_S)
        return caller.returncode, out, err


def test_source_files_that_cannot_be_looked_at_are_other_code(monkeypatch, tmp_path):
    monkeypatch.setattr(fork_server, "__file__", str(tmp_path / "cli" / "fork_server.py"))
    (tmp_path / "training.py").write_text("", encoding="utf-8")
    before = fork_server.source_state()
    (tmp_path / ".#training.py").symlink_to("nowhere")  # as an editor makes beside an unsaved file
    assert fork_server.source_state() == before | {str(tmp_path / ".#training.py"): None}


def test_a_call_that_is_declined_runs_plainly(played):
    code, out, _ = OneSidedServer(played).answer()
    assert code == 3
    assert out.startswith("['tell']")


def test_a_call_that_was_handed_over_is_never_run_again(played):
    code, out, err = OneSidedServer(played).answer(fork_protocol.WILLING)
    assert code == 1
    assert out == ""
    assert err.startswith("edpipe: the fork server was ended from outside")


@pytest.mark.parametrize("text", [b"", b"{}\n", b"[1]\n", b"no json\n", b'{"argv": 1}\n'])
def test_what_is_no_call_is_refused(text):
    ours, theirs = socket.socketpair()
    with theirs, open(os.devnull) as null:
        with ours:
            socket.send_fds(ours, [b"\n"], [null.fileno()] * 3)
            ours.sendall(text)
        with pytest.raises(ConnectionError, match=r"^no call of edpipe: "):
            fork_protocol.receive_call(theirs)


def test_a_call_without_its_streams_is_refused():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\n" + json.dumps(asdict(fork_protocol.this_call())).encode() + b"\n")
        with pytest.raises(ConnectionError, match="0 descriptors came instead of 3"):
            fork_protocol.receive_call(theirs)


def test_strange_bytes_in_the_environment_arrive(monkeypatch):
    monkeypatch.setitem(os.environ, "STRANGE", "\udcff ü")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fork_protocol.send_call(ours, fork_protocol.this_call())
        call, descriptors = fork_protocol.receive_call(theirs)
        fork_protocol.close_all(descriptors)
    assert call == fork_protocol.this_call()
    assert call.environment["STRANGE"] == "\udcff ü"


def test_the_front_end_imports_nothing_that_takes_time():
    program = "import sys, edpipe.cli.handover; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "yaml", "pydantic", "argparse", "subprocess"} & set(done.stdout.split())


PREPARED = """
import os, sys
from edpipe.pipeline.snakemake import fork_server_launch as launch
for name in (*launch.modules_of([step.name for step in launch.STEPS]), "timm", "torchvision.models"):
    __import__(name)
import torch
print(len(os.listdir("/proc/self/task")), torch.cuda.is_initialized())
"""


@pytest.mark.slow
def test_what_the_server_imports_starts_no_thread_and_no_gpu():
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", PREPARED], cwd=ROOT, env=os.environ | threads, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "False"], done.stderr


LAST_OF_SEVEN_JOBS = "artifacts/students/ed/seed0/1_primary.safetensors"


@pytest.mark.slow
def test_snakemake_makes_the_same_bytes_with_the_server_and_without(tmp_path):
    """With two threads: the server has one, and its children take up what the job says."""
    made = {}
    for switch in ("0", "1"):
        project = make_project(tmp_path / switch, tiny_params())
        ran = project.snakemake("--", LAST_OF_SEVEN_JOBS, EDPIPE_FORK_SERVER=switch, EDPIPE_THREADS=2)
        assert ran.rc == 0, ran.text
        made[switch] = {name: (project.root / name).read_bytes() for name in project.files("artifacts")}
    assert made["0"] == made["1"]
