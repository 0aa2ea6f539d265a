"""What a terminal shows: a stand-in takes what is written, with the sequences that move its cursor."""

import re
import sys
import threading

import pytest
from log_records import CONTROL, Clock, Terminal, command_error, formatter, job_error, job_info, record, recorded, stats

from edpipe.pipeline.estimates.expected import Expected
from edpipe.pipeline.snakemake.terminal import live_view
from edpipe.pipeline.snakemake.terminal.live_view import LiveView, is_live
from edpipe.pipeline.snakemake.terminal.reader import Reader
from edpipe.pipeline.snakemake.terminal.run import Run, RunFacts

LINE = "x: 1,536/24,000 images, 1,501 images/s, 15 s left  epoch 1.2, loss 6.1514, val top1 0.25"
LONG = "a message of somebody else " * 5


class Shown:
    """A live view that is drawn when a test says so."""

    def __init__(self, **facts):
        self.terminal, self.clock, self.run, lock = Terminal(), Clock(), Run(started_s=100.0), threading.RLock()
        self.faults = []
        self.view = LiveView(self.terminal, self.run, lock, self.faults.append, clock=self.clock, **facts)
        self.reader = Reader(self.view, self.run, lock, formatter(), "snakemake --cores 2", False, self.clock)

    def take(self, *records):
        """The lines that are written of these records, and of drawing anew after each of them."""
        before = len(self.terminal.getvalue())
        for one in records:
            self.reader.take(one)
            self.view.refresh()
        return self.lines(before)

    def lines(self, before=0):
        return [
            line for line in CONTROL.sub("", self.terminal.getvalue()[before:]).replace("\r", "\n").split("\n") if line
        ]


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """On a terminal of 80 columns; its own thread draws too late to matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live_view, "EVERY_S", 1000.0)
    for name, value in {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    made = []

    def make(**facts):
        made.append(Shown(**facts))
        return made[-1]

    yield make
    for one in made:
        one.reader.close()
        assert one.faults == []


def test_a_recorded_run_has_no_line_that_is_wider_than_the_terminal(shown):
    for width in (80, 40, 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", str(width))
            lines = shown().take(*recorded())
        own = [
            line for line in lines if re.match(r" *\d|failed|and |student|teacher|evaluate|soft labels| +images", line)
        ]
        assert len(own) > 50
        assert all(len(line) <= width for line in own)


def test_jobs_appear_change_and_end_above_the_others(shown):
    one = shown()
    assert one.take(stats(run_stage=2, result=1)) == ["3 jobs: 2 run_stage, 1 result", "0 of 3 jobs done"]
    words = {"experiment": "ed", "seed": "0", "number": "1", "stage": "primary"}
    assert one.take(job_info(1, "run_stage", words, "a.log", output="a"))[-2:] == [
        f"{'student ed seed 0 stage primary':<73}for 1 s",
        "0 of 3 jobs done",
    ]
    with open("a.log", "w") as stream:
        stream.write(LINE + "\n")
    one.view.refresh()
    assert one.lines()[-3:] == [
        "                                                  images  images/s    loss  left",
        "student ed seed 0 stage primary             1,536/24,000     1,501  6.1514  15 s",
        "0 of 3 jobs done",
    ]
    one.clock.now_s += 66
    one.reader.take(record("", "JOB_FINISHED", job_id=1))
    assert one.lines()[-2:] == [
        " 1 min 6 s  student ed seed 0 stage primary: val top1 0.25, loss 6.1514",
        "1 of 3 jobs done",
    ]


def test_what_was_drawn_is_gone_at_the_end_and_the_last_line_says_what_was_done(shown):
    one = shown()
    one.take(
        stats(result=2), job_info(1, "result", {"experiment": "ed"}, "a.log"), record("", "JOB_FINISHED", job_id=1)
    )
    one.clock.now_s += 7
    one.reader.close()
    assert one.terminal.getvalue().endswith("1 of 2 jobs done in 7 s\n")
    one.reader.close()
    assert one.lines()[-1] == "1 of 2 jobs done in 7 s", "once"
    assert one.terminal.getvalue().rpartition("\x1b[?25")[2].startswith("h"), "the cursor is seen"


def test_the_cursor_is_never_hidden_for_long(shown):
    one = shown()
    one.take(stats(result=2))
    assert one.terminal.getvalue().rpartition("\x1b[?25")[2].startswith("h")


def test_messages_and_failures_are_whole(shown):
    one = shown()
    one.take(stats(result=1), record(LONG.strip()))
    assert LONG.strip() in one.lines()
    with open("a.log", "w") as stream:
        stream.write("x" * 200 + "\nedpipe: " + "y" * 200 + "\n")
    one.take(job_info(1, "result", {"experiment": "ed"}, "a.log"), command_error("edpipe result"))
    one.take(job_error(1, "result", "a.log"))
    assert "x" * 79 + "…" in one.lines()
    assert "edpipe: " + "y" * 200 in one.lines()
    assert "  rule result, exit status 1" in one.lines()
    with open("b.log", "w") as stream:
        stream.write("Traceback\nValueError: " + "z" * 200 + "\n")
    one.take(job_info(2, "result", {"experiment": "kd"}, "b.log"), job_error(2, "result", "b.log"))
    assert "ValueError: " + "z" * 200 in one.lines(), "the last line of a log may be all that is told of an error"


def test_the_time_left_is_told_once_the_graph_is_known(shown):
    one = shown()
    asked = []

    def expect():
        asked.append(1)
        return {"b": Expected(30.0, True)}

    one.take(stats(run_stage=2))
    one.reader.learn(RunFacts(5, [("run_stage", "a"), ("run_stage", "b")], expect))
    one.view.expect(RunFacts(5, [], expect))
    one.take(job_info(1, "run_stage", {}, "a.log", output="a"))
    assert one.lines()[-1] == "0 of 2 jobs done, 5 from the cache, at least 30 s left"
    assert len(asked) == 1
    one.take(job_info(2, "pack_dataset", {"dataset": "d"}, "b.log", output="b"), record("", "JOB_FINISHED", job_id=2))
    assert len(asked) == 2, "once more when a data set is packed"


def test_nothing_changes_in_place_while_a_job_may_write_itself(shown):
    one = shown()
    one.take(stats(mine=1, result=1), job_info(1, "result", {"experiment": "ed"}, "a.log"))
    assert one.take(job_info(2, "mine", {"x": "1"}))[-1] == "start: mine x=1"
    assert one.take(record("more")) == ["more"], "nothing is drawn"
    assert one.take(job_info(3, "result", {"experiment": "kd"}))[-1] == "start: result of kd", (
        "one of ours without a log"
    )
    one.take(record("", "JOB_FINISHED", job_id=2), record("", "JOB_FINISHED", job_id=3))
    assert one.lines()[-1] == "2 of 2 jobs done"


def test_what_this_process_prints_stands_above_in_whole_lines(shown, monkeypatch):
    one = shown()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, one.terminal)
    before = sys.stderr
    one.take(stats(result=1))
    assert not sys.stderr.isatty(), "so that nobody draws bars there"
    print("edpipe: half", end="")
    assert "edpipe: half" not in one.terminal.text
    print(" and whole", file=sys.stderr)
    print("", file=sys.stdout)
    print("10 %\r20 %\r\n\x1b[2Jred", file=sys.stdout)
    print("no end", end="")
    one.reader.close()
    lines = one.lines()
    assert " and whole" in lines
    assert "edpipe: half" in lines
    assert "20 %" in lines
    assert "\\u001b[2Jred" in lines
    assert lines[-1] == "no end"
    assert sys.stderr is sys.stdout is before


def test_a_stream_that_is_no_terminal_stays(shown, monkeypatch, capsys):
    one = shown()
    stdout = sys.stdout
    one.take(stats(result=1))
    assert sys.stdout is stdout


@pytest.mark.parametrize(("variable", "facts"), [("1", {}), (None, {"has_colours": False})])
def test_no_colours_where_none_are_wanted(shown, monkeypatch, variable, facts):
    if variable:
        monkeypatch.setenv("NO_COLOR", variable)
    one = shown(**facts)
    one.take(stats(result=1), record("careful", levelno=30), job_error(1, "result"))
    assert not re.search(r"\x1b\[[\d;]*3\d", one.terminal.getvalue())


def test_warnings_and_failures_have_colours(shown):
    one = shown()
    one.take(stats(result=1), record("careful", levelno=30), job_error(1, "result"))
    assert re.search(r"\x1b\[33mcareful", one.terminal.getvalue())
    assert re.search(r"\x1b\[31mfailed", one.terminal.getvalue())


def test_a_terminal_without_unicode_gets_none(shown, monkeypatch):
    monkeypatch.setattr(Terminal, "encoding", "ascii")
    one = shown()
    one.take(stats(result=1), job_info(1, "result", {"experiment": "e" * 100}, "a.log"))
    assert one.terminal.text.isascii()


def test_an_error_of_the_drawing_is_passed_on_once(shown, monkeypatch):
    monkeypatch.setattr(live_view, "EVERY_S", 0.001)
    one = shown()
    monkeypatch.setattr(live_view, "table", lambda *_: 1 / 0)
    one.reader.take(stats(result=1))
    one.view._ticker.join(10)
    assert [type(error) for error in one.faults] == [ZeroDivisionError]
    one.faults.clear()


@pytest.mark.parametrize(
    ("term", "is_terminal", "found"),
    [("xterm", True, True), ("dumb", True, False), ("", True, False), (None, True, False), ("xterm", False, False)],
)
def test_lines_change_in_place_on_terminals_that_can(monkeypatch, term, is_terminal, found):
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    terminal = Terminal()
    monkeypatch.setattr(terminal, "isatty", lambda: is_terminal)
    assert is_live(terminal) == found
