"""The plugin as Snakemake uses it: which view it takes, and that nothing that goes wrong in it costs a run."""

import io
import logging
import sys
import time
from logging.handlers import QueueHandler
from queue import Queue
from unittest.mock import patch

import pytest
import snakemake.logging as snakemake_logging
from log_records import Terminal, command_error, job_info, record, recorded, stats
from snakemake.logging import LoggerManager
from snakemake.settings.enums import Quietness
from snakemake.settings.types import OutputSettings
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
from snakemake_interface_logger_plugins.tests import TestLogHandlerBase

from edpipe.pipeline.snakemake.terminal import handler as handler_module
from edpipe.pipeline.snakemake.terminal import live_view, plain_view
from edpipe.pipeline.snakemake.terminal.handler import LogHandler, LogHandlerSettings, let_log_catch_up

WARNING = "edpipe: warning: the view of this run failed ("


class TestAsThePluginInterfaceAsks(TestLogHandlerBase):
    """Snakemake's own tests of a logger plugin, with records of every event."""

    __test__ = True

    def get_log_handler_cls(self):
        return LogHandler

    def get_log_handler_settings(self):
        return LogHandlerSettings()


@pytest.fixture
def screen(monkeypatch, tmp_path):
    """Standard error, a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(live_view, "EVERY_S", 0.01)
    return Terminal()


def handler_on(screen, settings=None, plugin_settings=None):
    """A handler whose stream this is; pytest gives each phase of a test other streams."""
    with patch.multiple(sys, stdout=screen, stderr=screen):
        return LogHandler(settings or OutputSettings(), plugin_settings or LogHandlerSettings())


def shown(screen, records, settings=None, plugin_settings=None):
    """What a handler writes of these records."""
    handler = handler_on(screen, settings, plugin_settings)
    for one in records:
        handler.handle(one)
    handler.close()
    return screen.text


def as_snakemake(records, **settings):
    """What Snakemake's own handler writes of these records."""
    stream = io.StringIO()
    made = snakemake_logging.DefaultFormatter(settings.get("quiet") or set(), settings.get("show_failed_logs", False))
    own = snakemake_logging.ColorizingTextHandler(stream=stream, formatter=made)
    for one in records:
        own.handle(one)
    return stream.getvalue()


def without_times(text):
    return [line for line in text.splitlines() if not line.startswith("[")]


def test_snakemake_finds_the_plugin_and_its_option():
    plugin = LoggerPluginRegistry().get_plugin("edpipe")
    assert plugin.log_handler is LogHandler
    (option,) = plugin.get_settings_info()
    assert (option["cliarg"], option["default"]) == ("--logger-edpipe-view", "auto")
    assert option["choices"] == ("auto", "plain", "snakemake")


def wait_for(screen, text):
    """Until the thread that draws has come to it."""
    until_s = time.monotonic() + 20
    while text not in screen.getvalue() and time.monotonic() < until_s:
        time.sleep(0.01)
    assert text in screen.getvalue()


def test_a_terminal_has_lines_that_change_in_place(screen):
    handler = handler_on(screen)
    handler.handle(stats(result=1))
    wait_for(screen, "0 of 1 job done")
    handler.close()
    assert screen.text.startswith("1 job: 1 result\n")
    assert "\x1b" in screen.getvalue()


@pytest.mark.parametrize("reason", ["pipe", "dumb", "asked"])
def test_elsewhere_there_are_plain_lines(screen, monkeypatch, reason):
    settings = LogHandlerSettings(view="plain" if reason == "asked" else "auto")
    if reason == "pipe":
        monkeypatch.setattr(screen, "isatty", lambda: False)
    elif reason == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    text = shown(screen, recorded(), plugin_settings=settings)
    assert "\x1b" not in screen.getvalue()
    assert " start   train_teacher: teacher digits/specialists subset primary\n" in text
    assert text.splitlines()[-1].startswith("8 of 19 jobs done in ")


@pytest.mark.parametrize(
    "settings",
    [
        {"dryrun": True, "stdout": True},
        {"quiet": {Quietness.RULES}},
        {"quiet": {Quietness.PROGRESS, Quietness.RULES}},
        {"quiet": {Quietness.ALL}},
    ],
    ids=["dry run", "quiet rules", "quiet", "quiet all"],
)
def test_dry_and_quiet_runs_are_shown_as_snakemake_does_it(screen, monkeypatch, settings):
    monkeypatch.setattr(screen, "isatty", lambda: False)
    text = shown(screen, recorded()[2:], OutputSettings(**settings))
    assert without_times(text) == without_times(as_snakemake(recorded()[2:], quiet=settings.get("quiet")))
    assert "rule pack_dataset" in text


def test_snakemakes_own_output_can_be_asked_for(screen, monkeypatch):
    monkeypatch.setattr(screen, "isatty", lambda: False)
    text = shown(screen, recorded()[2:], plugin_settings=LogHandlerSettings(view="snakemake"))
    assert without_times(text) == without_times(as_snakemake(recorded()[2:]))


def test_being_quiet_about_reasons_and_hosts_leaves_the_view(screen):
    text = shown(screen, [stats(result=1)], OutputSettings(quiet={Quietness.REASON, Quietness.HOST}))
    assert text.startswith("1 job: 1 result\n")


def test_under_snakemakes_manager_quiet_all_is_silent(screen):
    for quiet, is_silent in ((set(), False), ({Quietness.ALL}, True)):
        settings = OutputSettings(quiet=quiet, log_handler_settings={"edpipe": LogHandlerSettings()})
        logger = logging.getLogger(f"test_quiet_{is_silent}")
        logger.propagate = False
        with patch.object(sys, "stderr", screen):
            manager = LoggerManager(logger, settings)
        logger.warning("a warning")
        manager.stop()
        assert ("a warning" in screen.text) == (not is_silent)
        screen.seek(0)
        screen.truncate()


# What goes wrong


def test_an_error_of_the_view_is_one_warning_and_then_snakemake_speaks(screen, monkeypatch):
    monkeypatch.setattr(screen, "isatty", lambda: False)
    monkeypatch.setattr(plain_view.PlainView, "started", lambda *_: 1 / 0)
    text = shown(screen, [stats(result=1), job_info(1, "result"), job_info(2, "result"), record("more")])
    assert text.count(WARNING) == 1
    assert f"{WARNING}ZeroDivisionError: division by zero)" in text
    assert text.count("rule result:") == 0  # the made records lack what Snakemake's own form shows
    assert text.splitlines()[-1] == "more"


def test_after_an_error_no_record_is_lost(screen, monkeypatch):
    monkeypatch.setattr(screen, "isatty", lambda: False)
    records = recorded()
    monkeypatch.setattr(plain_view.PlainView, "failed", lambda *_: 1 / 0)
    text = shown(screen, records)
    number = next(n for n, one in enumerate(records) if "Error in rule" in str(one.msg))
    # The error of the command, which was held back, comes first.
    assert text.index("CalledProcessError") < text.index("Error in rule dump_soft_labels:")
    rest = without_times(as_snakemake(records[number:]))
    assert without_times(text)[-len(rest) :] == rest


def test_an_error_of_the_drawing_is_one_warning_too(screen, monkeypatch):
    monkeypatch.setattr(live_view, "table", lambda *_: 1 / 0)
    handler = handler_on(screen)
    handler.handle(stats(result=1))
    wait_for(screen, WARNING)
    handler.handle(record("more"))
    handler.close()
    assert screen.text.count(WARNING) == 1
    assert screen.text.splitlines()[-1] == "more"


def test_an_error_at_the_beginning_is_one_warning(screen, monkeypatch):
    monkeypatch.setattr(live_view, "is_live", lambda _: 1 / 0)
    text = shown(screen, [record("more")])
    assert text.startswith(WARNING)
    assert text.splitlines()[-1] == "more"


def test_an_error_of_the_facts_is_one_warning(screen):
    handler = handler_on(screen)
    handler.learn(lambda: 1 / 0)
    handler.learn(lambda: 1 / 0)
    handler.close()
    assert screen.text.count(WARNING) == 1


def test_two_errors_at_once_are_one_warning(screen):
    handler = handler_on(screen)
    for _ in range(2):
        handler._fall_back(ValueError("one"))
    assert screen.text.count(WARNING) == 1


def test_a_reader_that_is_gone_ends_nothing(screen, monkeypatch):
    def write(_):
        raise BrokenPipeError

    monkeypatch.setattr(screen, "isatty", lambda: False)
    handler = handler_on(screen)
    monkeypatch.setattr(screen, "write", write)
    for one in recorded():
        handler.handle(one)
    handler.close()


def test_an_error_that_was_held_back_is_shown_when_a_run_ends(screen, monkeypatch):
    monkeypatch.setattr(screen, "isatty", lambda: False)
    assert "CalledProcessError" in shown(screen, [command_error("edpipe result")])


# The command that goes on, and the order of what is said


@pytest.mark.parametrize(
    ("words", "found", "command"),
    [
        (["/bin/snakemake", "--cores", "2", "a b"], "/bin/snakemake", "snakemake --cores 2 'a b'"),
        ([".venv/bin/snakemake", "x"], "/bin/snakemake", ".venv/bin/snakemake x"),
        (["/lib/snakemake/__main__.py", "x"], None, "python -m snakemake x"),
        ([], None, "snakemake"),
    ],
)
def test_the_command_is_as_it_was_typed(monkeypatch, words, found, command):
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(handler_module.shutil, "which", lambda _: found)
    assert handler_module._command() == command


def test_somebody_who_prints_waits_for_what_was_logged(monkeypatch):
    monkeypatch.setattr(handler_module, "PATIENCE_S", 0.05)
    queue = Queue()
    monkeypatch.setattr(snakemake_logging.logger, "handlers", [QueueHandler(queue), logging.NullHandler()])
    let_log_catch_up()
    queue.put("a record")
    before_s = time.monotonic()
    let_log_catch_up()
    assert time.monotonic() - before_s >= 0.05, "nobody shows it"
    queue.get()
    queue.task_done()
    let_log_catch_up()
