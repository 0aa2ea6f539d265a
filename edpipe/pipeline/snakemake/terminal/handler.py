"""The logger plugin `edpipe`: Snakemake makes a `LogHandler`, and gives it every log record in a thread of its own.

Snakemake imports this module in each of its processes, so that it imports little; what it needs comes with the handler.
"""

import logging
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

if TYPE_CHECKING:
    from edpipe.pipeline.snakemake.terminal.run import RunFacts

AUTO, PLAIN, SNAKEMAKE = "auto", "plain", "snakemake"
QUIET = {"progress", "rules", "all"}
"""With one of them, Snakemake keeps back records without which nobody could tell what runs."""
PATIENCE_S = 5.0
"""So long somebody who has something to say waits for what was said before."""


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Options of Snakemake's command line and of profiles."""

    view: str = field(
        default=AUTO,
        metadata={
            "help": "What is shown of a run: 'auto' (lines that change in place on a terminal, elsewhere one line at "
            "the start and end of each job), 'plain' (such lines everywhere), or 'snakemake' (its own output).",
            "env_var": False,
            "required": False,
            "choices": (AUTO, PLAIN, SNAKEMAKE),
        },
    )


@runtime_checkable
class _Shown(Protocol):
    def take(self, record: logging.LogRecord) -> None: ...

    def held(self) -> list[logging.LogRecord]: ...

    def leave(self) -> None: ...

    def close(self) -> None: ...


class LogHandler(LogHandlerBase):
    """Shows a run; whatever goes wrong in here costs the run nothing, it is then shown as Snakemake does it."""

    def __post_init__(self) -> None:
        self._command = _command()
        self._stream: Any = sys.stdout if self.common_settings.stdout else sys.stderr
        self._learn: Callable[["RunFacts"], None] | None = None
        self._has_failed = False
        try:
            self._shown: _Shown = self._first_shown()
        except Exception as error:
            self._fall_back(error)

    @property
    def writes_to_stream(self) -> bool:
        """It takes the place of Snakemake's own output."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """No; Snakemake keeps its complete log."""
        return False

    @property
    def has_filter(self) -> bool:
        """No: Snakemake's own filter knows what --quiet means."""
        return False

    @property
    def has_formatter(self) -> bool:
        """No: what is not known here is shown in Snakemake's form."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """No."""
        return False

    def emit(self, record: logging.LogRecord) -> None:
        """Shows one record."""
        try:
            self._shown.take(record)
        except Exception as error:
            self._fall_back(error)
            self._shown.take(record)

    def learn(self, facts: Callable[[], "RunFacts"]) -> None:
        """What the log does not say of a run; called by the Snakefile before the first job."""
        try:
            if self._learn is not None:
                self._learn(facts())
        except Exception as error:
            self._fall_back(error)

    def close(self) -> None:
        """Ends what changes in place."""
        try:
            self._shown.close()
        except Exception as error:
            self._fall_back(error)
        super().close()

    def _first_shown(self) -> _Shown:
        settings = self.common_settings
        view = getattr(self.settings, "view", AUTO)
        is_quiet = bool({str(quietness) for quietness in settings.quiet or ()} & QUIET)
        if view == SNAKEMAKE or is_quiet or settings.dryrun:
            return _AsSnakemake(self._stream, settings)
        return self._reader(view)

    def _reader(self, view: str) -> _Shown:
        from edpipe.pipeline.snakemake.terminal.live_view import LiveView, is_live
        from edpipe.pipeline.snakemake.terminal.plain_view import PlainView
        from edpipe.pipeline.snakemake.terminal.reader import Reader
        from edpipe.pipeline.snakemake.terminal.run import Run

        settings = self.common_settings
        run, lock = Run(started_s=time.monotonic()), threading.RLock()
        if view == PLAIN or not is_live(self._stream):
            shown, expect = PlainView(self._stream, run), None
        else:
            shown = LiveView(self._stream, run, lock, self._fall_back, has_colours=not settings.nocolor)
            expect = shown.expect
        reader = Reader(shown, run, lock, _formatter(settings), self._command, is_verbose=settings.verbose)
        self._learn = reader.learn if expect is None else lambda facts: (reader.learn(facts), expect(facts))[0]
        return reader

    def _fall_back(self, error: Exception) -> None:
        """From now on Snakemake's own output, after one warning."""
        with self.lock or nullcontext():
            if self._has_failed:
                return
            self._has_failed, self._learn = True, None
            before = getattr(self, "_shown", None)
            self._shown = now = _AsSnakemake(self._stream, self.common_settings)
            for record in before.held() if before is not None else []:
                now.take(record)
        with suppress(Exception):  # it would be the same error
            if before is not None:
                before.leave()
        now.tell(
            f"edpipe: warning: the view of this run failed ({type(error).__name__}: {error}); Snakemake's own output "
            "follows; `--logger-edpipe-view snakemake` asks for that"
        )


class _AsSnakemake:
    """Snakemake's own output."""

    def __init__(self, stream: Any, settings: Any) -> None:
        from snakemake.logging import ColorizingTextHandler

        self._handler = ColorizingTextHandler(settings.nocolor, stream, _formatter(settings))
        self._stream = stream
        self._is_broken = False

    def take(self, record: logging.LogRecord) -> None:
        """Shows it, as long as somebody reads."""
        if not self._is_broken:
            try:
                self._handler.emit(record)
            except BrokenPipeError:  # in this thread nobody could do anything about it
                self._is_broken = True

    def tell(self, text: str) -> None:
        """Shows a line."""
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except OSError:
            self._is_broken = True

    def held(self) -> list[logging.LogRecord]:
        """Nothing."""
        return []

    def leave(self) -> None:
        """Nobody goes on after this one."""

    def close(self) -> None:
        """There is nothing to end."""


def _formatter(settings: Any) -> logging.Formatter:
    from snakemake.logging import DefaultFormatter

    return DefaultFormatter(settings.quiet, settings.show_failed_logs)


def _command() -> str:
    """The command of this process, as it can be typed again."""
    program, *words = sys.argv or ["snakemake"]
    name = Path(program).name
    if name == "__main__.py":
        start = ["python", "-m", "snakemake"]
    else:
        start = [name if shutil.which(name) == os.path.abspath(program) else program]
    return shlex.join([*start, *words])


def let_log_catch_up() -> None:
    """Returns when what was logged until now is shown, for somebody who writes to the same stream without a logger."""
    from logging.handlers import QueueHandler

    from snakemake.logging import logger

    until_s = time.monotonic() + PATIENCE_S
    for handler in logger.handlers:
        if isinstance(handler, QueueHandler):
            while getattr(handler.queue, "unfinished_tasks", 0) and time.monotonic() < until_s:
                time.sleep(0.005)
