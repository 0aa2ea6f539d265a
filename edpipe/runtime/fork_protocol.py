"""How a call of `edpipe` is handed over to the fork server: what is said on the socket, and in which order.

front-end → server    three descriptors and a Call, one line of JSON
server → front-end    WILLING; anything else, or silence, and the front-end runs the call itself
front-end → server    GO: from here on the call is the server's, and is never run by the front-end
child → front-end     its process number, one line
front-end → server    numbers of signals for the child, one byte each
server → front-end    how the child ended, one line: its exit code, or minus a signal's number
"""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

SERVER = "EDPIPE_SERVER"
"""Environment variable with the path of the fork server's socket, for the jobs of one Snakemake process."""
WILLING = b"w"
GO = b"g"
STANDARD_DESCRIPTORS = (0, 1, 2)


@dataclass(frozen=True)
class Call:
    """One call of `edpipe`, with all that a process inherits and can be sent."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    origin: list[str]
    """Which Python and which copy of the package would run it."""

    @property
    def step(self) -> str:
        """The subcommand; empty if there is none."""
        return self.arguments[1] if len(self.arguments) > 1 else ""


def this_call() -> Call:
    """The call that this process is."""
    return Call(sys.argv, os.getcwd(), dict(os.environ), origin())


def origin() -> list[str]:
    """Equal for processes that import the same modules: interpreter, virtual environment, package and search path."""
    package = Path(__file__).resolve().parents[1]
    return [os.path.realpath(sys.executable), sys.prefix, str(package), os.environ.get("PYTHONPATH", "")]


def send_call(connection: socket.socket, call: Call) -> None:
    """Sends the call, and this process's standard input, output and error."""
    socket.send_fds(connection, [b"\n"], STANDARD_DESCRIPTORS)
    connection.sendall(json.dumps(asdict(call)).encode() + b"\n")


def receive_call(connection: socket.socket) -> tuple[Call, list[int]]:
    """The call and the three descriptors that came with it, which the caller must close.

    Raises:
        OSError: the other side fell silent, went away, or said something else.
    """
    _, descriptors, _, _ = socket.recv_fds(connection, 1, len(STANDARD_DESCRIPTORS))
    try:
        with connection.makefile("rb") as stream:
            call = Call(**json.loads(stream.readline()))
        if len(descriptors) != len(STANDARD_DESCRIPTORS):
            raise ValueError(f"{len(descriptors)} descriptors came instead of {len(STANDARD_DESCRIPTORS)}")
    except (ValueError, TypeError, OSError) as error:
        close_all(descriptors)
        raise ConnectionError(f"no call of edpipe: {error}") from error
    return call, descriptors


def close_all(descriptors: list[int]) -> None:
    """Closes file descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)
