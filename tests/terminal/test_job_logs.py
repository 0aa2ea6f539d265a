"""What is read in the logs of running and of ended jobs."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.pipeline.jobs.step_table import STEPS
from edpipe.pipeline.snakemake.terminal.job_logs import END_LINES, JobLog, fact
from edpipe.pipeline.snakemake.terminal.words import TITLES, title
from edpipe.runtime.progress_line import ProgressLine

LINE = "ed seed 0 middle: 1,536/24,000 images, 1,501 images/s, 15 s left  epoch 1.2, loss 6.1514, val top1 0.25"
words = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20)
counts = st.integers(0, 10**9)


@pytest.fixture
def log(tmp_path):
    """The log of a job that began a moment ago."""
    path = tmp_path / "job.log"
    path.touch()
    return JobLog(path, time.time())


@given(words, counts, counts, counts, counts, words)
def test_a_line_of_progress_is_read_as_it_was_written(name, done, total, rate, left_s, text):
    line = ProgressLine(name, done, total, float(rate), float(left_s), text)
    read = ProgressLine.parse(str(line))
    assert read is not None
    # A name that itself looks like progress may be divided elsewhere; the line is the same.
    assert str(read) == str(line)
    if ": " not in name:
        assert read == line


@pytest.mark.parametrize("line", ["", "edpipe: interrupted", "a: 1/2 images", "fetch x: 3/4 MB", LINE[:-60]])
def test_other_lines_are_no_progress(line):
    assert ProgressLine.parse(line) is None


def test_a_loss_is_taken_from_the_text():
    assert ProgressLine.parse(LINE).loss == "6.1514"
    assert ProgressLine.parse(LINE.replace("6.1514", "nan")).loss == "nan"
    assert ProgressLine.parse("a: 1/2 images, 3 images/s, 0 s left  view 8").loss == ""


def test_a_growing_log_tells_its_last_progress_and_its_last_line(log):
    assert log.look().progress is None
    assert log.look() is None, "nothing new"
    log.path.write_text(f"goes on after iteration 3\n{LINE}\n{LINE.replace('1,536', '2,000')}\nand a word\n")
    look = log.look()
    assert (look.progress.done, look.progress.total, look.last) == (2000, 24_000, "and a word")
    assert log.look() is None


def test_only_the_end_of_a_long_log_is_read(log):
    log.path.write_text("x" * 100_000 + f"\n{LINE}\n" + "tail\n" * 3)
    assert log.look().progress.done == 1536
    log.path.write_text(f"{LINE}\n" + "y" * 100_000)
    assert log.look().progress is None
    (end,) = log.end()
    assert end.endswith("yyy")
    assert len(end) <= 2000


def test_the_log_of_an_earlier_run_says_nothing(tmp_path):
    path = tmp_path / "job.log"
    path.write_text(f"{LINE}\nedpipe: of yesterday\n")
    os.utime(path, (1, 1))
    log = JobLog(path, time.time())
    assert (log.look(), log.outcome(), log.end()) == (None, "", [])
    path.write_text("new\n")
    assert (log.look().last, log.outcome(), log.end()) == ("new", "new", ["new"])


def test_a_log_whose_clock_is_behind_counts_once_it_changes(tmp_path):
    path = tmp_path / "job.log"
    log = JobLog(path, time.time() + 1000)
    path.write_text(f"{LINE}\n")
    assert log.look().progress.done == 1536
    assert log.outcome() == "val top1 0.25, loss 6.1514"


def test_no_log_says_nothing(tmp_path):
    log = JobLog(tmp_path / "absent.log", time.time())
    assert (log.look(), log.outcome(), log.end()) == (None, "", [])


def test_the_end_of_a_log_has_the_last_of_its_lines_of_progress(log):
    log.path.write_text(
        "".join(f"{LINE.replace('1,536', str(n))}\n" for n in range(50)) + "Traceback\n  line\n\nError: x\n"
    )
    assert log.end() == [LINE.replace("1,536", "49"), "Traceback", "  line", "Error: x"]
    log.path.write_text("".join(f"{number}\n" for number in range(50)))
    assert log.end() == [str(number) for number in range(50 - END_LINES, 50)]


def test_a_log_cannot_move_the_cursor(log):
    log.path.write_bytes(b"\x1b[2Jred \xff\rgone\n")
    assert log.end() == ["\\u001b[2Jred �", "gone"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("artifacts/teacher_evaluations/digits/t/all.json: top1 0.98 on 359 images", "top1 0.98 on 359 images"),
        ("teacher digits_teacher/all: top1 0.9930 on 143 val images", "top1 0.9930 on 143 val images"),
        ("pack digits: 1,797/1,797 images, 4,613 images/s, 0 s left  ", "1,797 images"),
        ("warning: bfloat16: slow", "warning: bfloat16: slow"),
        ("no colon", "no colon"),
        ("", ""),
    ],
)
def test_what_came_of_a_job_is_its_last_line_without_its_name(line, said):
    assert fact(line) == said


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_job_of_the_pipeline_has_a_name_that_tells_it_from_others(step):
    values = {option: f"{option}_of_it" for option in step.options}
    said = title(step.name, values)
    assert step.name in TITLES
    assert all(value in said for value in values.values()), said
    assert len(said) < 100


def test_users_rules_are_called_by_their_message_or_their_wildcards():
    assert title("plot", {}) == "plot"
    assert title("plot", {"a": "1", "b": "2"}) == "plot a=1 b=2"
    assert title("plot", {"a": "1"}, "Drawing 1") == "Drawing 1"
    assert title("result", {"sample": "x"}) == "result sample=x", "a user's own rule may have one of our names"
