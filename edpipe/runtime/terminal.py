"""What goes to the terminal: no text from elsewhere may move the cursor, set colours or forge a line."""

import codecs
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from edpipe.errors import printable_lines


class EscapingStream(io.TextIOBase):
    """A stream in which control characters are written as in JSON; all else is the stream's own affair.

    Rich, which has colours of its own to send, writes to the stream itself: names in its tables must be `printable`.
    """

    def __init__(self, stream: Any) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Writes the text; returns the number of its characters."""
        self.rich_proxied_file.write(printable_lines(text))
        return len(text)

    def flush(self) -> None:
        """Of the stream itself, which outlives this."""
        self.rich_proxied_file.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self.rich_proxied_file.isatty()

    def fileno(self) -> int:
        """The stream's descriptor."""
        return self.rich_proxied_file.fileno()

    @property
    def buffer(self) -> Any:
        """Of the stream: bytes are written as they are."""
        return self.rich_proxied_file.buffer


@contextmanager
def escaped_output() -> Iterator[None]:
    """Inside, standard output escapes control characters, and both streams what their encoding lacks."""
    codecs.register_error("json_escapes", _json_escapes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json_escapes")
    with redirect_stdout(EscapingStream(sys.stdout)):
        yield


def _json_escapes(error: UnicodeError) -> tuple[str, int]:
    """What stands for the characters that cannot be encoded, and where to go on after them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
