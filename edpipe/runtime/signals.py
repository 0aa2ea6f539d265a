"""SIGTERM, Ctrl-C, a closed terminal: heeded at once where nothing is lost, else at training's next safe moment.

A signal that this process was started to ignore, as by nohup or behind `&` in a script, stays ignored.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAME_S = 1.0
"""Signals so soon after the first are the same wish: it comes to the whole process group, and is passed on as well."""


class Interrupted(BaseException):
    """The process was asked to end. No Exception, so that nothing takes it for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What shells and schedulers expect: 143 after SIGTERM, 130 after Ctrl-C, 129 after SIGHUP."""
        return 128 + self.number


class Postponed:
    """Signals that came while they were postponed."""

    def __init__(self) -> None:
        self.number: int | None = None

    def interrupt(self) -> NoReturn:
        """Raises Interrupted: by the signal that has come, or by SIGTERM if it came to another process."""
        raise Interrupted(self.number if self.number is not None else signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM, Ctrl-C and SIGHUP raise Interrupted inside the block, so that half-written files are cleared away."""
    come: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        come.append(number)
        raise Interrupted(number)

    with _handled_by(interrupt):
        try:
            yield
        except Interrupted:
            raise
        except BaseException as error:
            if come:  # h5py makes a SystemError of what is raised in the midst of it, pydantic's core a panic
                raise Interrupted(come[0]) from error
            raise


@contextmanager
def postponing() -> Iterator[Postponed]:
    """A first signal is only noted, for the block to ask for; a later one raises Interrupted at once."""
    postponed = Postponed()
    noted_s = 0.0

    def note(number: int, _: FrameType | None) -> None:
        nonlocal noted_s
        if postponed.number is None:
            postponed.number, noted_s = number, time.monotonic()
        elif time.monotonic() >= noted_s + SAME_S:
            raise Interrupted(number)

    with _handled_by(note):
        yield postponed


def ignore_signals() -> None:
    """To the end of this process: its work is done, and must not look failed while torch is taken down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handled_by(handler: object) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers nowhere else
        yield
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
