"""Digests of bytes, JSON values and files: the first 16 hex digits of sha256."""

import hashlib
from pathlib import Path

from edpipe.errors import CorruptFileError, remake
from edpipe.params.base import canonical_json

DIGEST_LENGTH = 16


def digest_bytes(data: bytes | memoryview) -> str:
    """First 16 hex digits of sha256.

    >>> digest_bytes(b"edpipe")
    'c230d19f4c846416'
    """
    return hashlib.sha256(data).hexdigest()[:DIGEST_LENGTH]


def digest_json(value: object) -> str:
    """Digest of a value's canonical JSON: equal values, equal digests."""
    return digest_bytes(canonical_json(value).encode())


def digest_file(path: Path) -> str:
    """Digest of a file's content.

    Raises:
        CorruptFileError: the file is missing or cannot be read.
    """
    return sha256_file(path)[:DIGEST_LENGTH]


def sha256_file(path: Path) -> str:
    """All 64 hex digits of the sha256 of a file's content.

    Raises:
        CorruptFileError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CorruptFileError(f"{path}: cannot be read: {error.strerror}; {remake(path)}") from error
