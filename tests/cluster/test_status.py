"""The status of a job over its tries, with a scheduler that says what the test wants."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edpipe.errors import EdpipeError
from edpipe.pipeline.cluster import cancelling, overview, status, submission
from edpipe.pipeline.cluster.fates import GONE, Fate, SchedulerState
from edpipe.pipeline.cluster.status import FAILED, RUNNING, SUCCESS
from edpipe.pipeline.cluster.submitted_job import FOLDER, read_job

PROPERTIES = {
    "type": "single",
    "rule": "run_stage",
    "output": ["a.json"],
    "params": {"code": "1"},
    "wildcards": {"seed": "0"},
    "log": ["logs/run_stage/0.log"],
    "threads": 1,
    "resources": {},
}


class StandIn:
    """A scheduler that keeps what it was told; `said` is what it says of every job."""

    def __init__(self):
        self.said, self.submitted, self.cancelled, self.asked, self.refusal = None, [], [], 0, None

    def submit(self, request, script, output):
        if self.refusal:
            raise EdpipeError(self.refusal)
        self.submitted.append(request.name)
        self.said = SchedulerState(True, word="RUNNING")
        return str(len(self.submitted))

    def states(self, ids):
        self.asked += 1
        return None if self.said is None else dict.fromkeys(ids, self.said) if self.said is not GONE else {}

    def cancel(self, ids):
        self.cancelled += ids
        self.said = SchedulerState(False, Fate.CANCELLED, "CANCELLED")


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("scheduler: slurm\nretries: 2\n")
    found = StandIn()
    for module in (status, submission, cancelling, overview):
        monkeypatch.setattr(module, "scheduler_of", lambda settings: found)
    monkeypatch.setattr("edpipe.pipeline.cluster.states.REMEMBERED_S", 0.0)
    monkeypatch.setattr(status, "GRACE_S", 0.0)
    monkeypatch.setattr(submission, "PAUSE_S", 0.0)
    return found


def submit(tmp_path, **properties):
    script = tmp_path / "snakemake.sh"
    script.write_text(f"#!/bin/sh\n# properties = {json.dumps(PROPERTIES | properties)}\n")
    return submission.submit(tmp_path / "cluster.yaml", script)


def ended(name, code, *step_codes):
    end = {"code": code, "step_codes": step_codes, "node": "n1", "begun_s": time.time() - 5, "ended_s": time.time()}
    (FOLDER / name / "end.json").write_text(json.dumps(end))


def fates(name):
    return [one.fate for one in read_job(name).tries]


def log():
    return Path("logs/run_stage/0.log").read_text(encoding="utf-8")


def test_a_job_runs_until_it_says_that_it_has_ended(scheduler, tmp_path):
    name = submit(tmp_path)
    assert [status.status(name) for _ in range(3)] == [RUNNING] * 3
    ended(name, 0)
    assert status.status(name) == SUCCESS
    assert fates(name) == ["done"]
    assert not (tmp_path / "logs").exists()


def test_a_scheduler_that_does_not_answer_leaves_it_running(scheduler, tmp_path):
    name = submit(tmp_path)
    scheduler.said = None
    assert status.status(name) == RUNNING


@pytest.mark.parametrize(
    ("said", "again"),
    [(Fate.TIMED_OUT, True), (Fate.PREEMPTED, True), (Fate.NODE_LOST, True), (None, True), (Fate.CANCELLED, False),
     (Fate.OUT_OF_MEMORY, False)],
)  # fmt: skip
def test_what_another_try_helps_is_submitted_again(scheduler, tmp_path, said, again):
    name = submit(tmp_path)
    scheduler.said = SchedulerState(False, said, "WORD", "n1")
    assert status.status(name) == (RUNNING if again else FAILED)
    assert len(scheduler.submitted) == 1 + again
    assert fates(name)[0] == (said or Fate.VANISHED).value
    assert again or f"run_stage-0-{name[-8:]}: job 1 of the cluster: {said.value} (WORD); " in log()


def test_what_an_earlier_try_left_says_nothing_of_the_next(scheduler, tmp_path):
    name = submit(tmp_path)
    ended(name, 1, 143)
    scheduler.said = SchedulerState(False, Fate.TIMED_OUT, "TIMEOUT")
    assert status.status(name) == RUNNING
    assert read_job(name).end() is None


def test_an_old_answer_of_the_scheduler_does_not_count(scheduler, tmp_path):
    name = submit(tmp_path)
    assert status.status(name) == RUNNING
    scheduler.said = SchedulerState(False, Fate.CANCELLED, "CANCELLED")
    assert status.status(name) == FAILED


def test_after_so_many_tries_it_has_failed(scheduler, tmp_path):
    name = submit(tmp_path)
    for answer in (RUNNING, RUNNING, FAILED):
        scheduler.said = SchedulerState(False, Fate.TIMED_OUT, "TIMEOUT")
        assert status.status(name) == answer
    assert fates(name) == ["out of time"] * 3
    assert (
        "job 3 of the cluster, the last of 3 tries: out of time (TIMEOUT); set a larger steps.run_stage.minutes"
        in log()
    )


def test_what_cannot_succeed_is_not_tried_again(scheduler, tmp_path):
    name = submit(tmp_path)
    ended(name, 1, 2)
    scheduler.said = SchedulerState(False, Fate.FAILED, "FAILED")
    assert status.status(name) == FAILED
    assert len(scheduler.submitted) == 1
    assert "job 1 of the cluster on n1: cannot succeed (FAILED); its log says what to mend" in log()


def test_a_job_that_the_scheduler_starts_again_by_itself_goes_on(scheduler, tmp_path):
    name = submit(tmp_path)
    ended(name, 1, 143)
    scheduler.said = SchedulerState(True, word="PENDING")
    assert status.status(name) == RUNNING
    assert len(scheduler.submitted) == 1


def test_a_job_that_was_cancelled_for_snakemake_is_not_tried_again(scheduler, tmp_path):
    name = submit(tmp_path)
    cancelling.cancel([name, "unknown"])
    assert scheduler.cancelled == ["1"]
    scheduler.said = GONE
    assert status.status(name) == FAILED


def test_the_word_of_a_job_may_come_late(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(status, "GRACE_S", 1000.0)
    name = submit(tmp_path)
    scheduler.said = SchedulerState(False, word="COMPLETED")
    assert status.status(name) == RUNNING
    ended(name, 0)
    assert status.status(name) == SUCCESS


def test_a_refused_retry_ends_it_with_the_scheduler_s_words(scheduler, tmp_path):
    name = submit(tmp_path)
    scheduler.said, scheduler.refusal = SchedulerState(False, Fate.TIMED_OUT, "TIMEOUT"), "sbatch: refuses: no account"
    assert status.status(name) == FAILED
    assert "edpipe: sbatch: refuses: no account\n" in log()


@pytest.mark.parametrize("damage", ["", "{", '{"request": 1}'])
def test_without_its_folder_it_has_failed(scheduler, tmp_path, damage):
    name = submit(tmp_path)
    (FOLDER / name / "job.json").write_text(damage)
    assert status.status(name) == FAILED
    assert status.status("unknown") == FAILED


def test_the_same_job_of_an_earlier_run_is_taken_over(scheduler, tmp_path):
    name = submit(tmp_path)
    assert submit(tmp_path) == name
    assert scheduler.submitted == [name]


@pytest.mark.parametrize("why", ["edited", "waiting", "cancelled"])
def test_an_earlier_job_that_is_not_the_same_or_has_not_begun_is_ended_first(scheduler, tmp_path, why):
    name = submit(tmp_path)
    scheduler.said = SchedulerState(True, word="PENDING (Resources)" if why == "waiting" else "RUNNING")
    if why == "cancelled":
        replace(read_job(name), is_cancelled=True).write()
    submit(tmp_path, params={"code": "2" if why == "edited" else "1"})
    assert scheduler.cancelled == ["1"]
    assert scheduler.submitted == [name, name]
    assert len(read_job(name).tries) == 1


def test_an_earlier_job_that_has_ended_is_submitted_anew(scheduler, tmp_path):
    name = submit(tmp_path)
    ended(name, 0)
    submit(tmp_path)
    assert scheduler.submitted == [name, name]
    assert read_job(name).end() is None


def test_variables_of_edpipe_go_with_the_job(scheduler, tmp_path, monkeypatch):
    monkeypatch.setenv("EDPIPE_CHECKPOINT_SECONDS", "7")
    monkeypatch.setenv("EDPIPE_SERVER", "/socket")
    environment = read_job(submit(tmp_path)).environment
    assert environment["EDPIPE_CHECKPOINT_SECONDS"] == "7"
    assert "EDPIPE_SERVER" not in environment


def test_the_scheduler_is_asked_once_for_all_jobs_in_a_moment(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr("edpipe.pipeline.cluster.states.REMEMBERED_S", 1000.0)
    name = submit(tmp_path)
    before = scheduler.asked
    assert [status.status(name) for _ in range(5)] == [RUNNING] * 5
    assert scheduler.asked == before + 1


def test_the_table_shows_each_try(scheduler, tmp_path):
    name = submit(tmp_path)
    scheduler.said = SchedulerState(False, Fate.PREEMPTED, "PREEMPTED", "n2")
    status.status(name)
    first, second = overview.rows()
    assert (first.job, first.number, first.id, first.state) == (name, 1, "1", "preempted (PREEMPTED)")
    assert (second.number, second.id, second.state, second.waited_s) == (2, "2", "RUNNING", None)
    ended(name, 0)
    assert list(overview.rows())[1].state == "ended with exit code 0"
    status.status(name)
    last = list(overview.rows())[1]
    assert (last.state, last.node, round(last.ran_s)) == ("done", "n1", 5)
    assert os.listdir(FOLDER)
