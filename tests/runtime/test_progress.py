"""What a person sees while a step runs."""

import io
import re
from dataclasses import dataclass

import pytest
from rich.console import Console

import edpipe.runtime.progress as progress
from edpipe.runtime.progress import LINE_EVERY_S, Tick, announce, show_progress
from edpipe.runtime.progress_line import ProgressLine


@dataclass(frozen=True)
class Now:
    images: int
    loss: float


class Clock:
    """A clock that a test winds on."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    return clock


def test_announce_is_one_line_on_standard_error(capsys):
    announce("teacher a: top1 0.9")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "teacher a: top1 0.9\n")


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(capsys, clock):
    with show_progress("pack digits", 1000) as show:
        for done in range(100, 1100, 100):
            clock.now_s += 4
            show(Tick(done, f"at {done}"))
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    # Every 4 s a tick, so that a line is due after 12, 24 and 36 s, and the last one at the end.
    assert [line.split("  ")[-1] for line in lines] == ["at 300", "at 600", "at 900", "at 1000"]
    assert lines[0] == "pack digits: 300/1,000 images, 25 images/s, 28 s left  at 300"
    assert lines[-1] == "pack digits: 1,000/1,000 images, 25 images/s, 0 s left  at 1000"


def test_a_log_that_is_a_file_gets_lines_sooner_at_first(tmp_path, monkeypatch, clock):
    log = tmp_path / "job.log"
    with log.open("w") as stream:
        monkeypatch.setattr(progress.sys, "stderr", stream)
        with show_progress("pack digits", 100_000) as show:
            for done in range(1000, 100_001, 1000):
                clock.now_s += 1
                show(Tick(done, ""))
    done_at = [ProgressLine.parse(line).done // 1000 for line in log.read_text().splitlines()]
    # A second after the last line, then a fifth of the time that has passed, then ten seconds.
    assert done_at == [1, 2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 38, 48, 58, 68, 78, 88, 98, 100]


def test_what_an_earlier_call_has_done_counts_neither_for_the_rate_nor_for_the_time_left(capsys, clock):
    with show_progress("resumed", 1000, 600) as show:
        clock.now_s += 2
        show(Tick(700, "loss 1"))
    assert capsys.readouterr().err == "resumed: 700/1,000 images, 50 images/s, 6 s left  loss 1\n"
    with show_progress("over", 1000, 1000):
        clock.now_s += 2
    assert capsys.readouterr().err.startswith("over: 1,000/1,000 images, 0 images/s, 0 s left")


def test_a_short_task_gets_one_line(capsys, clock):
    with show_progress("short", 10) as show:
        clock.now_s += LINE_EVERY_S / 2
        show(Tick(10, ""))
    assert capsys.readouterr().err == "short: 10/10 images, 2 images/s, 0 s left  \n"


def test_a_task_without_a_tick_still_ends(capsys, clock):
    with show_progress("nothing", 10):
        pass
    assert capsys.readouterr().err.startswith("nothing: 0/10 images, 0 images/s, ")


def test_a_failure_is_passed_on_and_says_nothing_more(capsys, clock):
    with pytest.raises(RuntimeError, match="broken"), show_progress("failing", 10):
        raise RuntimeError("broken")
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=160))
    with show_progress("stage one", 100) as show:
        show(Tick(50, "epoch 0.5, loss 1.2345"))
        show(Tick(100, "epoch 1.0, loss 0.5000"))
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "stage one" in plain
    assert "100 %" in plain
    assert "epoch 1.0, loss 0.5000" in plain
    assert "images/s" in plain
