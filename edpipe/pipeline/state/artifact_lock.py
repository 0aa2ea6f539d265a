"""One process at a time makes an artifact, on whatever host: a file in .edpipe/locks says who, and that it still works.

A thread sets the file's time anew every BEAT_S. Another process takes over when the first is gone: at once if both are
of one kernel and the process is no more, else when there was no beat for STALE_S, by the clock of the file system.

No lock of the system is used. On network file systems it may hold on one host alone; and filelock's lease, which also
beats, takes over by exchanging two names, which NFS refuses. All that is asked for here is that one of several
processes creates a file of a new name, and that each then sees what the others have created before.
"""

import json
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from random import uniform
from tempfile import TemporaryFile

from edpipe.errors import BusyError
from edpipe.pipeline.jobs import paths
from edpipe.runtime.progress import announce

BEAT_S = 15.0
STALE_S = 120.0
"""Eight beats: fewer may be late where a file server is slow."""
POLL_S = 1.0
_START, _STATE = 19, 0
"""Of the fields of Linux's /proc/<pid>/stat after the name: clock ticks from boot to the process's start, and state."""


@dataclass(frozen=True)
class Maker:
    """A process that makes an artifact."""

    host: str
    kernel: str
    """Of processes with equal ones, each sees by its number whether another is alive."""
    pid: int
    start: int
    """When it began, so that its number can be told from the same number later; clock ticks after boot."""
    job: str
    """Of Slurm; empty if there is none."""
    since: str
    token: str

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


@dataclass(frozen=True)
class _Claim:
    """What was read of a file."""

    path: Path
    number: int
    beat_ns: int
    maker: Maker | None
    """None while it is being written."""


@contextmanager
def only_maker(output: Path) -> Iterator[None]:
    """Inside the block no other process makes this artifact.

    A process that lost its claim, because it gave no sign for STALE_S, is sent SIGTERM.

    Raises:
        BusyError: another process makes it; of one on another host this takes up to BEAT_S to know.
    """
    folder, name, own = paths.LOCKS.absolute(), str(output).replace("/", "-"), this_process()
    try:
        with _beating(_take(folder, name, own, output), own, output):
            yield
    finally:
        for claim in _look(folder, name):
            if claim.maker == own:
                claim.path.unlink(missing_ok=True)


def this_process() -> Maker:
    """This process, as it would say of itself."""
    since = datetime.now().astimezone().isoformat(" ", "minutes")
    pid, job = os.getpid(), os.environ.get("SLURM_JOB_ID", "")
    return Maker(socket.gethostname(), kernel(), pid, _start_of(pid) or 0, job, since, uuid.uuid4().hex)


def kernel() -> str:
    """Of this process: one boot of one machine, and the container in it, where process numbers are its own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"


def makers_at_work() -> list[Maker]:
    """The processes that make artifacts in this folder, as far as can be seen from here; this one too."""
    folder = paths.LOCKS.absolute()
    claims = [claim for claim in _look(folder, r".+", is_pattern=True) if not _is_gone(claim)]
    return [claim.maker for claim in claims if claim.maker is not None]


def _take(folder: Path, name: str, own: Maker, output: Path) -> Path:
    """The file of this process, once it has the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    first_beats: dict[Path, int] = {}
    while True:
        there = _look(folder, name)
        if alive := [claim for claim in there if not _is_gone(claim)]:
            _refuse_or_wait(alive[0], own, output, first_beats)
            continue
        path = folder / f"{name}.{1 + max((claim.number for claim in there), default=0)}"
        if not _create(path, own):
            continue  # another was faster, and is seen at the next look
        if all(claim.path == path or _is_gone(claim) for claim in _look(folder, name)):
            for claim in there:
                with suppress(OSError):  # of another user, it may stay: it is known to be gone
                    claim.path.unlink(missing_ok=True)
            return path
        # The one who looked before and created later gives way. Both may: neither knows who was first.
        path.unlink(missing_ok=True)
        time.sleep(uniform(0, POLL_S))


def _refuse_or_wait(claim: _Claim, own: Maker, output: Path, first_beats: dict[Path, int]) -> None:
    """Returns as long as it is open whether another host's process still works.

    Raises:
        BusyError: it does.
    """
    maker, before = claim.maker, first_beats.get(claim.path)
    if maker is not None and (maker.kernel == own.kernel or before not in (None, claim.beat_ns)):
        raise BusyError(
            f"{output}: {maker} has been making it since {maker.since}; call the same again when that has ended"
        )
    if before is None:
        first_beats[claim.path] = claim.beat_ns
        if maker is not None:
            announce(f"{output}: waits for a sign of {maker}, which began to make it at {maker.since}")
    time.sleep(POLL_S)


def _create(path: Path, own: Maker) -> bool:
    """Whether this process and no other has created the file."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_text_of(own))
    except FileExistsError:
        return False
    except OSError:  # a full disk: nothing must stay that looks like a process at work
        path.unlink(missing_ok=True)
        raise
    return True


def _text_of(maker: Maker) -> str:
    return json.dumps(asdict(maker)) + "\n"


def _look(folder: Path, name: str, is_pattern: bool = False) -> list[_Claim]:
    """The files of one artifact, as they are now."""
    pattern = re.compile(rf"{name if is_pattern else re.escape(name)}\.(\d+)")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    claims = [_read(folder / match[0], int(match[1])) for match in map(pattern.fullmatch, names) if match]
    return [claim for claim in claims if claim is not None]


def _read(path: Path, number: int) -> _Claim | None:
    """None if it is gone. Network file systems ask their server at each opening, but not for each `stat`."""
    try:
        with path.open("rb") as file:
            return _Claim(path, number, os.fstat(file.fileno()).st_mtime_ns, _parse(file.read()))
    except OSError:
        return None


def _parse(text: bytes) -> Maker | None:
    try:
        return Maker(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _is_gone(claim: _Claim) -> bool:
    maker = claim.maker
    if maker is not None and maker.kernel == kernel():
        return _has_ended(maker)
    with TemporaryFile(dir=claim.path.parent) as file:  # has the time of the file system's clock
        return os.fstat(file.fileno()).st_mtime_ns - claim.beat_ns > STALE_S * 1e9


def _has_ended(maker: Maker) -> bool:
    try:
        os.kill(maker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    return _start_of(maker.pid) not in (None, maker.start)


def _start_of(pid: int) -> int | None:
    """When a process began, in clock ticks after boot; 0 if it has ended and waits for its parent; None if hidden."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return 0 if fields[_STATE] in "ZX" else int(fields[_START])


@contextmanager
def _beating(path: Path, own: Maker, output: Path) -> Iterator[None]:
    """Inside the block a thread shows that this process works."""
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, own, output, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def _beat(path: Path, own: Maker, output: Path, done: threading.Event) -> None:
    while not done.wait(BEAT_S):
        if _is_lost(path, own):
            announce(
                f"{output}: another process makes it now, since this one gave no sign for {STALE_S:.0f} s; it ends"
            )
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with suppress(OSError):  # a file server that is away for a moment
            os.utime(path)


def _is_lost(path: Path, own: Maker) -> bool:
    try:
        return path.read_text(encoding="utf-8") != _text_of(own)
    except FileNotFoundError:
        return True
    except OSError:
        return False
