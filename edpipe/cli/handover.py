"""A call of `edpipe`: jobs of Snakemake and of `dvc repro` are handed over to a fork server; other calls run here.

Imports little, since a job that is handed over needs nothing more.
"""

import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from edpipe.runtime.exit_codes import tell_exit_code
from edpipe.runtime.fork_protocol import GO, SERVER, WILLING, send_call, this_call
from edpipe.runtime.repro_server import socket_under_dvc

PATIENCE_S = 60.0
"""The server may be at its imports, which take seconds; when it is silent for longer, the call is run without it."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run() -> int:
    """Runs the command of this process, here or in the server; returns its exit code."""
    connection = _hand_over()
    if connection is not None:
        with connection:
            return _wait_for_end(connection)
    from edpipe.cli.main import main
    from edpipe.runtime.signals import ignore_signals

    code = main()
    ignore_signals()
    tell_exit_code(code)
    return code


def _hand_over() -> socket.socket | None:
    """The connection to a server that runs this call; None if there is no server, or none that will."""
    path = os.environ.get(SERVER) or socket_under_dvc(_is_step(), _start_under_dvc)
    if not path:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(PATIENCE_S)
        connection.connect(path)
        send_call(connection, this_call())
        if connection.recv(1) == WILLING:
            _go(connection)
            return connection
    except OSError:
        pass  # the call has not been handed over, so that it is run here; only time is lost
    connection.close()
    return None


def _is_step() -> bool:
    """Whether this call is a step of the pipeline; a word of the command line names it."""
    steps = Path(__file__).resolve().parents[1] / "steps"
    return len(sys.argv) > 1 and sys.argv[1].isidentifier() and (steps / f"{sys.argv[1]}.py").is_file()


def _start_under_dvc(path: Path, watched: int) -> None:
    from edpipe.pipeline.snakemake.fork_server_launch import start_under_dvc  # takes time, and is for one call only

    start_under_dvc(path, watched)


def _go(connection: socket.socket) -> None:
    """Hands over; signals that come meanwhile wait, so that each reaches either this process or the child."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        connection.sendall(GO)
        connection.settimeout(None)
        _pass_signals_on(connection)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)


def _pass_signals_on(connection: socket.socket) -> None:
    def pass_on(number: int, _: FrameType | None) -> None:
        with suppress(OSError):  # the server is gone, which the reader of the connection finds out
            connection.sendall(bytes([number]))

    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, pass_on)


def _wait_for_end(connection: socket.socket) -> int:
    """The child's exit code, as a shell would give it."""
    with connection.makefile("rb") as replies:
        child = replies.readline()
        end = replies.readline()
    if end:
        code = int(end)
        return code if code >= 0 else 128 - code
    if child:
        with suppress(ProcessLookupError):
            os.killpg(int(child), signal.SIGKILL)  # nobody would hear how it ends
    print("edpipe: the fork server was ended from outside; run the same command again", file=sys.stderr)
    return 1
