"""Fetches one published file: a broken download goes on where it was, and the file is there whole or not at all."""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from io import BufferedIOBase
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from urllib.response import addinfourl

from filelock import lock_descriptor

from edpipe.runtime.progress import LINE_EVERY_S, announce

TIMEOUT_S = 60
CHUNK_BYTES = 1 << 18
MB = 1_000_000
LARGEST_BYTES = 50_000 * MB
"""Of a file; a server that does not say how much it sends could fill the disk."""
MOST_ATTEMPTS = 3
"""To fetch what came broken, in one call."""
PAUSE_S = 1.0
"""Before another attempt, times its number."""
Response = HTTPResponse | addinfourl
"""The latter for a file address."""


@dataclass(frozen=True)
class Digest:
    """What a file has to have: `kind` is "MD5" or "SHA256", `text` its hexadecimal digits."""

    kind: Literal["MD5", "SHA256"]
    text: str


class TooLargeError(OSError):
    """More comes than any published file has."""


@dataclass(frozen=True)
class _Body:
    """What the server said of what it has sent."""

    is_whole: bool
    """All of the file in one answer, of the length that was announced."""
    odd_kind: str
    """Empty for a plain file."""


def fetch(address: str, goal: Path, digest: Digest, waits: bool = False) -> None:
    """Puts the file at that address to `goal`; what has come of it waits in `.<name>.part` beside it.

    Args:
        address: https, http or file.
        goal: where a file that is already there is left as it is.
        digest: of the whole file.
        waits: for another process that is fetching the same file; else that is an error.

    Raises:
        OSError: the address cannot be reached or broke off, sends a page instead or more than `LARGEST_BYTES`, or the
            folder cannot be written.
        HTTPException: the server does not speak HTTP.
        RuntimeError: the file has another digest although it came whole, or another process is fetching it.
    """
    goal.parent.mkdir(parents=True, exist_ok=True)
    unfinished = goal.with_name(f".{goal.name}.part")
    with unfinished.open("ab+") as file:
        _lock(file, unfinished, waits)
        try:
            if not goal.is_file():  # else another process has fetched it between the caller's look and the lock
                _fetch_whole(file, address, digest)
                os.replace(unfinished, goal)
        finally:
            if file.seek(0, os.SEEK_END) == 0:
                unfinished.unlink(missing_ok=True)


def md5_of(file: BufferedIOBase) -> str:
    """The MD5 of all of a file, in hexadecimal digits."""
    return _digest_of(file, "MD5")


def _digest_of(file: BufferedIOBase, kind: str) -> str:
    file.seek(0)
    return hashlib.file_digest(file, partial(hashlib.new, kind.lower(), usedforsecurity=False)).hexdigest()


def _lock(file: BufferedIOBase, path: Path, waits: bool) -> None:
    if not lock_descriptor(file.fileno(), blocking=waits):
        raise RuntimeError(f"another process is writing {path}; wait for it")


def _fetch_whole(file: BufferedIOBase, address: str, digest: Digest) -> None:
    """Fetches until the file has its digest: goes on while more comes, and begins anew where what came is wrong."""
    wrong: list[str] = []
    for attempt in range(1, MOST_ATTEMPTS + 1):
        is_last, before = attempt == MOST_ATTEMPTS, file.seek(0, os.SEEK_END)
        try:
            body = _append_rest(file, address)
        except (OSError, HTTPException) as error:
            if is_last or isinstance(error, HTTPError | TooLargeError) or file.seek(0, os.SEEK_END) <= before:
                raise
        else:
            found = _digest_of(file, digest.kind)
            if found == digest.text:
                file.flush()
                os.fsync(file.fileno())
                return
            file.truncate(0)
            wrong.append(found)
            if body.odd_kind:
                raise OSError(f"{address}: the server sent {body.odd_kind}, not the file")
            if body.is_whole or wrong.count(found) > 1:
                raise RuntimeError(f"{address} has {digest.kind} {found}, but {digest.text} is wanted")
            if is_last:
                raise OSError(f"{address} came broken {len(wrong)} times, with another {digest.kind} each time")
        announce(f"fetch {address}: broken, fetched again ({attempt + 1} of {MOST_ATTEMPTS})")
        time.sleep(PAUSE_S * attempt)


def _append_rest(file: BufferedIOBase, address: str) -> _Body:
    before = file.seek(0, os.SEEK_END)
    request = Request(address, headers={"Range": f"bytes={before}-"} if before else {})
    try:
        response: Response = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        if before and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _Body(False, "")  # nothing is left to fetch: the digest will tell
        raise
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:  # this server sends the whole file again
            file.truncate(before := 0)
        total = before + int(response.headers["Content-Length"]) if response.headers["Content-Length"] else None
        done = before
        for chunk in _announced(response, address, before, total):
            if max(done + len(chunk), total or 0) > LARGEST_BYTES:
                file.truncate(0)
                raise TooLargeError(f"{address} is larger than {LARGEST_BYTES / MB:,.0f} MB; fetch it by hand")
            done += file.write(chunk)
    # Python's response ends quietly when the connection is cut.
    if total is not None and done != total:
        raise OSError(f"{done:,} of {total:,} bytes of {address} came; call again to go on from there")
    return _Body(total is not None and not before, _odd_kind(response))


def _odd_kind(response: Response) -> str:
    """A page, or compressed on the way."""
    encoding, content = response.headers["Content-Encoding"], response.headers.get_content_type()
    if encoding and encoding != "identity":
        return f"it compressed, as {encoding}"
    return "a page, text/html" if content == "text/html" else ""


def _announced(response: Response, address: str, before: int, total: int | None) -> Iterator[bytes]:
    """The body in chunks, with a line for people at the start and every ten seconds."""
    done, shown_s = before, float("-inf")
    while chunk := response.read(CHUNK_BYTES):
        if time.monotonic() - shown_s >= LINE_EVERY_S:
            shown_s = time.monotonic()
            announce(f"fetch {address}: {done / MB:,.0f}/{f'{total / MB:,.0f}' if total else '?'} MB")
        done += len(chunk)
        yield chunk
