"""What the log of a job says: how far it is, how it ended, why it failed.

A log that was last changed before the job began is of an earlier run, and says nothing of this one.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from edpipe.errors import printable, shortened
from edpipe.runtime.progress_line import ProgressLine

TAIL_BYTES = 8192
"""So much is read of a growing log."""
END_BYTES = 65536
"""And of the log of a failed job."""
END_LINES = 20
CLOCK_S = 2.0
"""So much the clock of a file system may be behind."""
SEEN_BEFORE = "is there already, made from the same by the same"
"""What `dump_soft_labels` says of files that it need not make."""


@dataclass(frozen=True)
class Look:
    """What a log says at some moment."""

    progress: ProgressLine | None
    """The last of the lines that were read."""
    last: str
    """The last line, whatever it is; empty: there is none."""


class JobLog:
    """The log of one job that runs.

    Args:
        path: of the log.
        began_s: when the job began, in seconds of the system's clock.
    """

    def __init__(self, path: Path, began_s: float) -> None:
        self.path = path
        state = self._state()
        is_earlier = state is not None and state[2] / 1e9 < began_s - CLOCK_S
        self._earlier = state if is_earlier else None
        self._seen = self._earlier

    def look(self) -> Look | None:
        """What it says now; None: nothing new."""
        state = self._state()
        if state is None or state == self._seen:
            return None
        self._seen = state
        lines = _lines(self.path, TAIL_BYTES)
        progress = [found for line in lines if (found := ProgressLine.parse(line))]
        return Look(progress[-1] if progress else None, lines[-1] if lines else "")

    def outcome(self) -> str:
        """What the job said at its end: of a training its last loss, else its last line; without the artifact's name.

        Empty where it said nothing.
        """
        if self._state() in (None, self._earlier):
            return ""
        return fact(next(reversed(_lines(self.path, TAIL_BYTES)), ""))

    def end(self) -> list[str]:
        """Its last lines; of lines of progress that follow each other the last one."""
        if self._state() in (None, self._earlier):
            return []
        return _without_repeats(_lines(self.path, END_BYTES))[-END_LINES:]

    def _state(self) -> tuple[int, int, int] | None:
        """Changes when the log does; None where there is none."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def fact(line: str) -> str:
    """What a line says of an artifact, without its name; of a training the accuracy first.

    >>> fact("artifacts/evaluations/digits_ce/seed1.json: top1 0.9916, 1 stages")
    'top1 0.9916, 1 stages'
    >>> fact("ed seed 0 middle: 8,000/8,000 images, 1,382 images/s, 0 s left  epoch 9.3, loss 0.29, val top1 0.94")
    'val top1 0.94, loss 0.29'
    >>> fact("ed seed 0 middle: 8,000/8,000 images, 1,382 images/s, 0 s left  epoch 9.3, loss 0.2871")
    'loss 0.2871'
    """
    progress = ProgressLine.parse(line)
    if progress is not None:
        return _result(progress) or f"{progress.done:,} images"
    name, colon, rest = line.partition(": ")
    return rest if colon and name != "warning" else line


def _result(progress: ProgressLine) -> str:
    said = [word for word in progress.text.split(", ") if not word.startswith("epoch ")]
    return ", ".join(sorted(said, key=lambda word: "top1" not in word))


def _lines(path: Path, num_bytes: int) -> list[str]:
    """The last lines of a text, none of them empty, without what a terminal would obey."""
    try:
        with path.open("rb") as stream:
            start = max(stream.seek(0, os.SEEK_END) - num_bytes, 0)
            stream.seek(start)
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    if start and len(lines) > 1:  # the first one is no whole one
        del lines[0]
    return [printable(shortened(line)) for line in lines if line.strip()]


def _without_repeats(lines: list[str]) -> list[str]:
    is_progress = [*(ProgressLine.parse(line) is not None for line in lines), False]
    return [line for number, line in enumerate(lines) if not (is_progress[number] and is_progress[number + 1])]
