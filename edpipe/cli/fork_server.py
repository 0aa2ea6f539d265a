"""A process that has imported what steps need, and forks a child for every call of `edpipe` by Snakemake's jobs.

Importing torch takes seconds, a fork milliseconds. fork_server_launch.py starts it as
`python -P -m edpipe.cli.fork_server`; it ends with the Snakemake process that started it, or with the `dvc repro` whose
steps it serves, and `EDPIPE_FORK_SERVER=0` leaves it out. It is for speed alone: what a new process would do otherwise,
it declines, and the front-end (handover.py) runs the call itself.

Forking is safe because this process never has a second thread and never touches a GPU: it only imports, with all thread
counts at 1, and a child sets torch's threads itself (device.py).
"""

import gc
import importlib
import os
import selectors
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

from edpipe.runtime.fork_protocol import GO, STANDARD_DESCRIPTORS, WILLING, Call, close_all, origin, receive_call

PATIENCE_S = 5.0
"""A front-end that has begun to speak goes on at once, unless it was stopped."""
SOURCES = (".py", ".jinja")


def main() -> None:
    """Serves until the Snakemake process is gone and the last child has ended.

    Arguments: descriptors of the listening socket, and of what can be read once the process that it serves is gone (a
    pipe whose other end Snakemake holds, or DVC's process itself); modules to import.
    """
    listener = socket.socket(fileno=int(sys.argv[1]))
    folder = Path(listener.getsockname()).parent
    try:
        server = Server(listener, int(sys.argv[2]))
        server.prepare(tuple(sys.argv[3:]))
        server.serve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """Waits for calls, signals and the ends of children, one event after the other."""

    def __init__(self, listener: socket.socket, lifeline: int) -> None:
        self._code = source_state()
        self._listener = listener
        self._waiting: list[tuple[socket.socket, Call, list[int]]] = []
        self._children: dict[int, socket.socket] = {}
        self._is_prepared = False
        self._is_open = True
        self._events = selectors.DefaultSelector()
        self._watch(listener, self._receive)
        self._watch(lifeline, self._close)
        self._watch(_signal_of_ended_children(), self._reap)

    def prepare(self, modules: tuple[str, ...]) -> None:
        """Imports these modules; serves in between what needs no more."""
        for module in modules:
            with suppress(Exception):  # the step that needs it will say what is wrong
                importlib.import_module(module)
            self._turn(0)
        self._is_prepared = True
        gc.freeze()  # so that children need not copy what they would only look through
        self._serve_waiting()

    def serve(self) -> None:
        """Serves to the end."""
        while self._is_open or self._children:
            self._turn(None)

    def _turn(self, timeout_s: float | None) -> None:
        for key, _ in self._events.select(timeout_s):
            key.data(key.fileobj)
        self._serve_waiting()

    def _watch(self, source: Any, react: Callable[[Any], None]) -> None:
        self._events.register(source, selectors.EVENT_READ, react)

    def _receive(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            connection.settimeout(PATIENCE_S)
            try:
                self._waiting.append((connection, *receive_call(connection)))
            except OSError:
                connection.close()

    def _close(self, lifeline: int) -> None:
        """Snakemake is gone: nobody may call any more; children are ended by their own front-ends, or finish."""
        self._is_open = False
        self._events.unregister(lifeline)
        self._events.unregister(self._listener)
        self._listener.close()

    def _serve_waiting(self) -> None:
        for waiting in [w for w in self._waiting if self._is_ready_for(w[1])]:
            self._waiting.remove(waiting)
            connection, call, descriptors = waiting
            if not (self._may_serve(call) and _is_handed_over(connection)):
                connection.close()
            elif (child := os.fork()) == 0:
                self._be_child(connection, call, descriptors)
            else:
                self._children[child] = connection
                self._watch(connection, self._hear)
            close_all(descriptors)

    def _is_ready_for(self, call: Call) -> bool:
        return self._is_prepared or f"edpipe.steps.{call.step}" in sys.modules

    def _may_serve(self, call: Call) -> bool:
        """Whether a new process would import what was imported here."""
        return call.origin == origin() and source_state() == self._code

    def _hear(self, connection: socket.socket) -> None:
        """Passes signals on; a front-end that was killed takes its child with it, whatever that has started too."""
        for child in [child for child, own in self._children.items() if own is connection]:  # none if it has ended
            numbers = _received(connection)
            for number in numbers:
                os.kill(child, number)
            if not numbers:
                self._events.unregister(connection)
                os.kill(child, signal.SIGKILL)
                with suppress(ProcessLookupError):  # killed before it had a session of its own
                    os.killpg(child, signal.SIGKILL)

    def _reap(self, wakened: socket.socket) -> None:
        wakened.recv(4096)
        for child in list(self._children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                self._report_end(self._children.pop(child), os.waitstatus_to_exitcode(status))

    def _report_end(self, connection: socket.socket, code: int) -> None:
        with suppress(KeyError):  # no longer watched once its front-end is gone
            self._events.unregister(connection)
        with suppress(OSError), connection:
            connection.sendall(b"%d\n" % code)

    def _be_child(self, connection: socket.socket, call: Call, descriptors: list[int]) -> NoReturn:
        code = 1
        try:
            os.setsid()
            connection.sendall(b"%d\n" % os.getpid())
            connection.close()
            self._let_go()
            become(call, descriptors)
            code = run()
        finally:
            os._exit(code)

    def _let_go(self) -> None:
        """Closes what is the server's, so that its end and the ends of front-ends can be noticed."""
        signal.set_wakeup_fd(-1)
        for source in [key.fileobj for key in self._events.get_map().values()]:
            os.close(source) if isinstance(source, int) else source.close()  # type: ignore[union-attr]
        for connection, _, descriptors in self._waiting:
            connection.close()
            close_all(descriptors)
        self._events.close()


def source_state() -> dict[str, tuple[int, int] | None]:
    """Size and modification time of every source file of the package: other ones, other code; None: not to be read."""
    found: dict[str, tuple[int, int] | None] = {}
    for folder, _, names in os.walk(Path(__file__).resolve().parents[1]):
        for path in (os.path.join(folder, name) for name in names if name.endswith(SOURCES)):
            try:
                status = os.stat(path)
                found[path] = (status.st_size, status.st_mtime_ns)
            except OSError:  # an editor's dangling link, or a file that goes this very moment
                found[path] = None
    return found


def become(call: Call, descriptors: list[int]) -> None:
    """Gives this process everything that a process started by the call would have inherited."""
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(call.folder)
    os.environ.clear()
    os.environ.update(call.environment)
    for descriptor, standard in zip(descriptors, STANDARD_DESCRIPTORS, strict=True):
        os.dup2(descriptor, standard)
    close_all(descriptors)
    sys.argv = call.arguments
    sys.stdout = sys.__stdout__ = _opened_anew(sys.stdout, is_by_line=os.isatty(1))
    sys.stderr = sys.__stderr__ = _opened_anew(sys.stderr, is_by_line=True)


def _opened_anew(stream: TextIO, is_by_line: bool) -> TextIO:
    """The same stream, made for what its descriptor is now: a stream remembers whether that was a file or a pipe."""
    return open(
        stream.fileno(),
        "w",
        buffering=1 if is_by_line else -1,
        encoding=stream.encoding,
        errors=stream.errors,
        closefd=False,
    )


def run() -> int:
    """Runs the command of this process as Python runs a program; returns its exit code."""
    try:
        code = _code_of_main()
        sys.stdout.flush()
        return code
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1


def _code_of_main() -> int:
    from edpipe.cli.main import main

    try:
        return main()
    except SystemExit as leaving:  # argparse's, after a wrong word or --help
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)


def _is_handed_over(connection: socket.socket) -> bool:
    """Offers to run the call; whether the front-end has said that this process is to."""
    try:
        connection.sendall(WILLING)
        return connection.recv(1) == GO
    except OSError:
        return False


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(64)
    except OSError:
        return b""


def _signal_of_ended_children() -> socket.socket:
    """A socket that can be read whenever a child may have ended."""
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(sending.detach(), warn_on_full_buffer=False)
    return receiving


if __name__ == "__main__":
    main()
