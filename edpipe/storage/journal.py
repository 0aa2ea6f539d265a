"""A journal of finished blocks: an append-only text whose every line has its own checksum.

A line that a killed process left half-written, or that a disk has garbled, is as if it had not been written.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

from edpipe.errors import StaleJournalError


class Journal:
    """Appends entries; what was appended before a kill is read back.

    Args:
        path: of the journal; made if it is not there.
        key: of what it is a journal of.

    Raises:
        StaleJournalError: the journal at `path` belongs to another key, or is none.
    """

    def __init__(self, path: Path, key: str) -> None:
        first = _line({"key": key})
        data = path.read_bytes() if path.exists() else b""
        if len(data) < len(first) and first.startswith(data):  # killed while the first line was being written
            path.write_bytes(b"")
            data = b""
        lines = data.split(b"\n")
        entries = [_read_line(line) for line in lines if line]
        if entries and entries[0] != {"key": key}:
            raise StaleJournalError(
                f"{path}: belongs to another dump, or is no journal; remove the folder {path.parent} and start again"
            )
        self.entries = [entry for entry in entries[1:] if entry is not None]
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        if not entries:
            self.append({"key": key})
        elif lines[-1]:
            self._write(b"\n")  # the next entry must not join a torn line

    def append(self, entry: dict[str, Any]) -> None:
        """Adds one entry; a kill after this keeps it, a power cut may not before `sync`."""
        self._write(_line(entry))

    def sync(self) -> None:
        """Waits until the entries are on disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """No more entries."""
        os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, sort_keys=True)
    return f"{text} {zlib.crc32(text.encode()):08x}\n".encode()


def _read_line(line: bytes) -> dict[str, Any] | None:
    text, _, checksum = line.rpartition(b" ")
    if not text or f"{zlib.crc32(text):08x}".encode() != checksum:
        return None
    return json.loads(text)
