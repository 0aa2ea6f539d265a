"""The lines that change: their form, and that none is wider than the terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from edpipe.pipeline.snakemake.terminal.lines import Tone
from edpipe.pipeline.snakemake.terminal.pace import TimeLeft
from edpipe.pipeline.snakemake.terminal.run import Run, RunningJob
from edpipe.pipeline.snakemake.terminal.table import LINES_BESIDE, Size, cut, cut_middle, table
from edpipe.runtime.progress_line import ProgressLine

SIZE = Size(80, 24)
counts = st.integers(0, 10**9)
texts = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=120)
said = texts | st.just("epoch 1.0, loss 6.1514")
progress = st.tuples(texts, counts, counts, st.floats(0, 1e9), st.floats(0, 1e7), said)
jobs = st.lists(st.tuples(texts, st.floats(0, 1e6), st.none() | progress, texts), max_size=40)


def run_of(numbers, of_jobs):
    total, done, cached, failed, interrupted = numbers
    run = Run(total=total, done=done, cached=cached, failed=failed, interrupted=interrupted)
    for number, (title, started_s, facts, last_line) in enumerate(of_jobs):
        run.running[number] = job(number, title, started_s, facts and ProgressLine(*facts), last_line=last_line)
    return run


def job(number, title, started_s=0.0, progress=None, **facts):
    return RunningJob(number, "run_stage", title, "", None, started_s, progress=progress, **facts)


@given(
    st.tuples(*[counts] * 5),
    jobs,
    st.integers(1, 200),
    st.integers(1, 60),
    st.none() | st.tuples(st.floats(0, 1e7), st.booleans()),
)
def test_no_line_is_wider_than_the_terminal_nor_are_there_too_many(numbers, of_jobs, width, height, left):
    lines = table(run_of(numbers, of_jobs), left and TimeLeft(*left), 2e6, Size(width, height))
    assert all(cell_len(line.text) <= width for line in lines)
    assert len(lines) <= max(height, LINES_BESIDE)


def test_each_job_has_a_line_and_all_have_a_last_one():
    run = Run(total=48, done=14, cached=12)
    progress = ProgressLine("x", 3200, 8000, 1010.4, 4.6, "epoch 4.1, loss 0.4123, val top1 0.91")
    jobs = [
        job(7, "student digits_ed seed 0 stage middle", 10.0, progress, seen_s=20.0),
        job(8, "evaluate digits_ed seed 1", 18.0),
        job(9, "fetch teacher big all classes", 19.0, last_line="fetch there: 3/97 MB"),
    ]
    run.running = {one.number: one for one in reversed(jobs)}
    lines = table(run, TimeLeft(80.0, True), 21.0, SIZE)
    assert [line.text for line in lines] == [
        "                                                  images  images/s    loss  left",
        "student digits_ed seed 0 stage middle        3,200/8,000     1,010  0.4123   4 s",
        "evaluate digits_ed seed 1                                                for 3 s",
        "fetch teacher big all classes: fetch there: 3/97 MB                      for 2 s",
        "14 of 48 jobs done, 12 from the cache, about 1 min 20 s left",
    ]
    assert [line.tone for line in lines] == [Tone.QUIET, *[Tone.PLAIN] * 4]


def test_a_lower_bound_is_told_apart():
    assert table(Run(total=2), TimeLeft(80.0, False), 0.0, SIZE)[-1].text == (
        "0 of 2 jobs done, at least 1 min 20 s left"
    )


def test_a_narrow_terminal_has_fewer_columns():
    progress = ProgressLine("x", 3200, 8000, 1010.4, 4.6, "loss 0.4123")
    run = Run(running={1: job(1, "student digits_ed seed 0 stage middle", progress=progress)})
    headers = {
        width: " ".join(table(run, None, 0.0, Size(width, 24))[0].text.split()) for width in (61, 60, 45, 40, 30)
    }
    assert headers == {
        61: "images images/s loss left",
        60: "images loss left",
        45: "images left",
        40: "left",
        30: "left",
    }


def test_a_low_terminal_counts_the_jobs_that_do_not_fit():
    run = Run(total=9, running={n: job(n, f"job {n}", float(n)) for n in range(9)})
    lines = [line.text.split("  ")[0] for line in table(run, None, 9.0, Size(80, 7))]
    assert lines == ["job 0", "job 1", "job 2", "and 6 more jobs", "0 of 9 jobs done"]


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("students", 8, "students"),
        ("students", 5, "stud…"),
        ("students", 1, "…"),
        ("students", 0, ""),
        ("学生学生", 5, "学生…"),
    ],
)
def test_lines_are_cut_at_their_end(text, width, short):
    assert cut(text, Size(width, 24)) == short


def test_names_are_cut_in_their_middle():
    assert cut_middle("teacher a subset middle", SIZE, 23) == "teacher a subset middle"
    assert cut_middle("teacher a subset middle", SIZE, 15) == "teacher a…iddle"
    assert cut_middle("teacher a subset middle", Size(80, 24, "."), 15) == "teacher a.iddle"


@pytest.mark.parametrize("width", range(0, 24))
def test_names_that_are_cut_in_the_middle_fit_the_narrowest_column(width):
    assert cell_len(cut_middle("teacher a subset middle", SIZE, width)) <= width
