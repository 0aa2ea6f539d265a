"""A recorded run, and events of every kind, as they are told in a file."""

import io
import logging
import re
import threading
from pathlib import Path

import pytest
from log_records import Clock, command_error, formatter, job_error, job_info, record, recorded, stats
from snakemake_interface_logger_plugins.common import LogEvent

from edpipe.pipeline.snakemake.terminal.plain_view import PlainView
from edpipe.pipeline.snakemake.terminal.reader import Reader
from edpipe.pipeline.snakemake.terminal.run import Run

COMMAND = "snakemake --cores 2 -- results/ed.json"


class Told:
    """A reader, and what it has written."""

    def __init__(self, is_verbose=False):
        self.stream, self.clock, self.run = io.StringIO(), Clock(), Run(started_s=100.0)
        view = PlainView(self.stream, self.run, self.clock, lambda: "12:00:00")
        self.reader = Reader(view, self.run, threading.RLock(), formatter(), COMMAND, is_verbose, self.clock)

    def take(self, *records):
        """What is written of these records."""
        before = self.stream.tell()
        for one in records:
            self.reader.take(one)
        return self.stream.getvalue()[before:].splitlines()

    def close(self):
        """All that is written by the end."""
        self.reader.close()
        return self.stream.getvalue().splitlines()


@pytest.fixture
def told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Told()


def write(path, *lines):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_a_recorded_run_has_a_line_at_the_start_and_end_of_each_job(told):
    lines = told.take(*recorded())
    told.reader.close()
    events = [getattr(one, "event", None) for one in recorded()]
    assert sum(" start   " in line for line in lines) == events.count(LogEvent.JOB_INFO)
    assert sum(" done    " in line for line in lines) == events.count(LogEvent.JOB_FINISHED)
    assert "12:00:00 start   train_teacher: teacher digits/specialists subset primary" in lines
    assert "12:00:00 done    run_stage: student ce seed 0 stage only; 1 s (6/19)" in lines
    assert told.stream.getvalue().splitlines()[-1] == "8 of 19 jobs done in 1 s, 2 failed"


def test_a_recorded_run_tells_its_failures_and_the_rest_as_snakemake_does(told):
    log = "logs/dump_soft_labels/digits-specialists-middle-views_0-0.log"
    before, failure, after = [], [], []
    for one in recorded():
        if getattr(one, "event", None) == LogEvent.JOB_ERROR and one.jobid == 12:
            write(log, "edpipe: top1 0.2 is under min_top1")
            failure = told.take(one)
        else:
            (after if failure else before).extend(told.take(one))
    assert failure == [
        "12:00:00 failed after 1 s: soft labels of digits/specialists subset middle views 0-0",
        "  rule dump_soft_labels, exit status 2",
        f"  log {log} ends with:",
        "edpipe: top1 0.2 is under min_top1",
        f"  to go on, once that is mended: {COMMAND}",
    ]
    assert not [line for line in [*before, *after] if "CalledProcessError" in line]
    assert "Exiting because a job execution failed. Look above for error messages" in after
    assert after[-2:] == ["WorkflowError:", "At least one job did not complete successfully."]
    assert any(line.startswith("Complete log(s): ") for line in after)
    assert "Job stats:" in before
    assert not re.search("Select jobs|Building DAG|Provided|Execute|Using shell|Elapsed", "\n".join(before + after))


def test_nothing_that_a_terminal_would_obey_is_written(told):
    write("a.log", "\x1b[31mred", "edpipe: \x1b[2Jgone")
    told.take(*recorded(), record("\x1b[31mred\r\n\x07", levelno=logging.WARNING))
    told.take(job_info(90, "result", {"experiment": "\x1b[1mx"}, "a.log"), job_error(90, "result", "a.log"))
    told.reader.close()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", told.stream.getvalue())


def test_a_done_job_says_what_came_of_it(told):
    told.take(
        stats(evaluate=1, dump_soft_labels=1), job_info(1, "evaluate", {"experiment": "ed", "seed": "0"}, "a.log")
    )
    write("a.log", "artifacts/evaluations/ed/seed0.json: top1 0.9582, 3 stages")
    told.clock.now_s += 65
    assert told.take(record("", "JOB_FINISHED", job_id=1)) == [
        "12:00:00 done    evaluate: evaluate ed seed 0: top1 0.9582, 3 stages; 1 min 5 s (1/2)"
    ]
    assert told.run.cached == 0


def test_soft_labels_that_were_there_already_count_as_cached(told):
    told.take(job_info(1, "dump_soft_labels", {}, "a.log"))
    write("a.log", "made: is there already, made from the same by the same; only its record is written anew")
    told.take(record("", "JOB_FINISHED", job_id=1))
    assert told.run.cached == 1


def test_the_end_of_a_job_whose_start_was_not_seen_is_told(told):
    assert told.take(record("Finished jobid: 9 (Rule: x)", "JOB_FINISHED", job_id=9)) == ["Finished jobid: 9 (Rule: x)"]


def test_rule_all_makes_nothing_and_is_not_told(told):
    assert told.take(job_info(0, "all", output=""), record("", "JOB_FINISHED", job_id=0)) == []
    assert told.run.done == 1


@pytest.mark.parametrize("event", [None, "SHELLCMD", "GROUP_INFO", "ERROR", "RULEGRAPH", "RUN_INFO"])
def test_messages_that_no_job_is_told_by_are_told(told, event):
    (line,) = told.take(record("something new", event))
    assert line.endswith("something new")


def test_an_event_that_nobody_knows_is_told(told):
    one = record("from a later Snakemake")
    one.event = "later_event"
    assert told.take(one) == ["from a later Snakemake"]


@pytest.mark.parametrize("levelno", [logging.WARNING, logging.ERROR, logging.CRITICAL])
def test_warnings_and_errors_are_told_even_if_they_begin_as_chatter(told, levelno):
    assert told.take(record("Building DAG of jobs... failed", levelno=levelno)) == ["Building DAG of jobs... failed"]
    lines = "LockException:\nError: Directory cannot be locked."
    assert told.take(record(lines, "ERROR", levelno, exception="LockException")) == lines.split("\n")


def test_a_second_table_of_jobs_is_told_as_it_is(told):
    assert told.take(stats(result=1)) == ["Job stats:", "the table"]
    assert told.take(stats(result=2)) == ["Job stats:", "the table"]
    assert told.run.total == 1


def test_all_is_told_where_it_is_wanted():
    told = Told(is_verbose=True)
    lines = told.take(*recorded()[2:7])
    assert lines == [one.msg for one in recorded()[2:7]]


def test_empty_messages_are_not_told(told):
    assert told.take(record("None"), record(""), record("None", "RULEGRAPH", rulegraph={})) == []


# failures


def test_an_error_of_a_command_without_a_failed_job_comes_at_the_end(told):
    told.take(stats(result=1), job_info(1, "result", {"experiment": "ed"}))
    assert told.take(command_error("edpipe result > x")) == []
    assert told.close()[3:] == [
        "RuleException:",
        'CalledProcessError in file "/home/me/rules/a.smk", line 22:',
        "Command 'set -euo pipefail;  edpipe result > x' returned non-zero exit status 1.",
        "0 of 1 job done in 1 s",
    ]


def test_a_run_that_ends_before_its_first_job_has_no_last_line(told):
    told.take(stats(result=1), record("no such network", levelno=logging.ERROR))
    assert told.close() == ["Job stats:", "the table", "no such network"]


def test_an_error_of_another_command_is_not_taken_for_that_of_the_job(told):
    told.take(command_error("edpipe other"), job_info(1, "result"))
    assert told.take(job_error(1, "result"))[1] == "  rule result"
    told.reader.close()
    assert "edpipe other" in told.stream.getvalue()


def test_another_error_of_a_rule_is_told_at_once(told):
    text = 'RuleException:\nValueError in file "a", line 3:\nno such thing'
    assert told.take(record(text, "ERROR", logging.ERROR, exception="RuleException")) == text.split("\n")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("returned non-zero exit status 2.", "exit status 2"),
        ("died with <Signals.SIGKILL: 9>.", "killed by SIGKILL, as the system does when memory runs out"),
        ("died with <Signals.SIGSEGV: 11>.", "killed by SIGSEGV"),
    ],
)
def test_a_failed_job_says_how_its_command_ended(told, end, said):
    told.take(job_info(1, "result"), command_error("edpipe result", end))
    assert told.take(job_error(1, "result"))[1] == f"  rule result, {said}"


def test_a_failed_job_shows_the_end_of_each_log_and_what_the_executor_says(told):
    told.take(job_info(1, "result", {"experiment": "ed"}, "a.log"))
    write("a.log", *map(str, range(30)), "edpipe: no")
    write("slurm.log", "out of time")
    failed = job_error(1, "result", "a.log", rule_msg="see the cluster's log", aux={"external_jobid": 77})
    failed.log.append("slurm.log")
    assert told.take(failed) == [
        "12:00:00 failed after 1 s: result of ed",
        "  rule result",
        "  see the cluster's log",
        "  external_jobid: 77",
        "  log a.log ends with:",
        *map(str, range(11, 30)),
        "edpipe: no",
        "  log slurm.log ends with:",
        "out of time",
        f"  to go on, once that is mended: {COMMAND}",
    ]


def test_a_failed_job_without_a_log_and_without_a_start_is_told(told):
    assert told.take(job_error(1, "result", "absent.log")) == [
        "12:00:00 failed: result",
        "  rule result",
        "  log absent.log: nothing was written",
        f"  to go on, once that is mended: {COMMAND}",
    ]


@pytest.mark.parametrize("status", [129, 130, 143])
def test_a_stopped_job_has_not_failed(told, status):
    told.take(stats(result=1), job_info(1, "result", {"experiment": "ed"}, "a.log"))
    write("a.log", "some progress", "edpipe: interrupted; the same command goes on")
    told.take(command_error("edpipe result", f"returned non-zero exit status {status}."))
    assert told.take(job_error(1, "result", "a.log")) == [
        "12:00:00 interrupted after 1 s: result of ed",
        "edpipe: interrupted; the same command goes on",
        f"  to go on: {COMMAND}",
    ]
    assert told.close()[-1] == "0 of 1 job done in 1 s, 1 interrupted"


def test_a_job_that_is_tried_again_counts_once_when_it_is_done(told):
    told.take(stats(result=1), job_info(1, "result", output="made"), job_error(1, "result"))
    told.take(job_info(1, "result", output="made"), record("", "JOB_FINISHED", job_id=1))
    told.take(record(None, "PROGRESS", done=1, total=1))
    assert told.close()[-1] == "1 of 1 job done in 1 s, 1 failed"
