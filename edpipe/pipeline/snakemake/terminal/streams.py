"""What this process prints while a terminal has lines that change in place: it appears above them, in whole lines."""

import io
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from edpipe.errors import printable_lines


class LineStream:
    """Stands in for standard output and standard error, as far as these are the terminal.

    Args:
        terminal: where lines change.
        say: shows one line above them, under the lock.
        lock: of what is shown.
    """

    def __init__(self, terminal: Any, say: Callable[[str], None], lock: AbstractContextManager[Any]) -> None:
        self._terminal, self._say, self._lock = terminal, say, lock
        self._replaced: dict[str, tuple[Any, "_Stand"]] = {}

    def take_over(self) -> None:
        """From now on."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is self._terminal or (hasattr(stream, "isatty") and stream.isatty()):
                stand_in = _Stand(stream, self._say, self._lock)
                self._replaced[name] = (stream, stand_in)
                setattr(sys, name, stand_in)

    def give_back(self) -> None:
        """As it was before; the beginning of a line that has no end yet is shown."""
        for name, (stream, stand_in) in self._replaced.items():
            stand_in.end_line()
            if getattr(sys, name) is stand_in:
                setattr(sys, name, stream)
        self._replaced.clear()


class _Stand(io.TextIOBase):
    """Says whole lines. It is no terminal: nobody shall draw bars there."""

    def __init__(self, stream: Any, say: Callable[[str], None], lock: AbstractContextManager[Any]) -> None:
        self._stream, self._say, self._lock = stream, say, lock
        self._begun = ""

    def write(self, text: str) -> int:
        with self._lock:
            *whole, self._begun = (self._begun + text).split("\n")
            for line in whole:
                self._say(printable_lines(line.rstrip("\r").rpartition("\r")[2]))
        return len(text)

    def end_line(self) -> None:
        """Shows the beginning of a line."""
        if self._begun:
            self.write("\n")

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return self._stream.encoding

    @property
    def buffer(self) -> Any:
        return self._stream.buffer
