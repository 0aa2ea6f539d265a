"""How long a run will still take; every expected value was computed by hand."""

import pytest

from edpipe.pipeline.estimates.expected import Expected
from edpipe.pipeline.snakemake.terminal.pace import QUICK_S, TimeLeft, time_left
from edpipe.pipeline.snakemake.terminal.run import EndedJob, Run, RunFacts, RunningJob
from edpipe.runtime.progress_line import ProgressLine


def running(number, rule="run_stage", output="", started_s=0.0, left_s=None, seen_s=0.0):
    job = RunningJob(number, rule, rule, output or f"{rule}{number}", None, started_s)
    if left_s is not None:
        job.progress, job.seen_s = ProgressLine("x", 1, 2, 1.0, left_s, ""), seen_s
    return job


def run_of(jobs=(), ended=(), waiting=None, **facts):
    return Run(running={job.number: job for job in jobs}, ended=list(ended), waiting=waiting or {}, **facts)


def test_nothing_is_said_while_nothing_is_known():
    run = run_of([running(1)], waiting={"a": "result", "b": "run_stage"})
    assert time_left(run, {}, 5.0) is None
    assert time_left(run, {"b": Expected(10.0, False)}, 5.0) is None, "at an unknown scale"


def test_a_running_job_says_what_is_left_of_itself():
    run = run_of([running(1, left_s=30.0, seen_s=8.0)])
    assert time_left(run, {}, 10.0) == TimeLeft(28.0, True)
    assert time_left(run, {}, 60.0) == TimeLeft(0.0, True), "it takes longer than it said"


def test_jobs_that_wait_take_as_long_as_others_of_their_rule():
    run = run_of(ended=[EndedJob("run_stage", "a", 10.0), EndedJob("run_stage", "b", 20.0)], waiting={"c": "run_stage"})
    assert time_left(run, {}, 40.0) == TimeLeft(15.0, True)


def test_two_jobs_at_once_take_half_the_time():
    jobs = [running(number, started_s=10.0, left_s=30.0, seen_s=20.0) for number in (1, 2)]
    run = run_of(jobs, [EndedJob("run_stage", "a", 10.0)], {"b": "result"})
    assert time_left(run, {}, 20.0) == TimeLeft((30.0 + 30.0 + QUICK_S) / 2, True)


def test_the_longest_job_is_waited_for():
    run = run_of([running(1, left_s=100.0), running(2, left_s=2.0)])
    assert time_left(run, {}, 0.0) == TimeLeft(100.0, True)


def test_expectations_are_scaled_by_what_jobs_of_the_same_rule_took():
    expected = {"a": Expected(5.0, False), "b": Expected(20.0, False), "c": Expected(7.0, False)}
    run = run_of(ended=[EndedJob("run_stage", "a", 10.0)], waiting={"b": "run_stage"})
    assert time_left(run, expected, 10.0) == TimeLeft(40.0, True)
    run.waiting = {"c": "evaluate"}
    assert time_left(run, expected, 10.0) == TimeLeft(14.0, True), "and of another rule by what all took"


def test_what_the_very_job_took_before_is_not_scaled():
    expected = {"a": Expected(5.0, False), "b": Expected(20.0, True)}
    run = run_of(ended=[EndedJob("run_stage", "a", 10.0)], waiting={"b": "run_stage"})
    assert time_left(run, expected, 10.0) == TimeLeft(20.0, True)


def test_a_running_job_that_says_nothing_is_expected_to_take_its_time():
    run = run_of([running(1, "evaluate", "b", started_s=12.0)], [EndedJob("evaluate", "a", 10.0)])
    assert time_left(run, {}, 15.0) == TimeLeft(7.0, True)
    assert time_left(run, {}, 30.0) == TimeLeft(0.0, True)


def test_a_lower_bound_says_that_it_is_one():
    run = run_of([running(1, left_s=30.0)], waiting={"a": "dump_soft_labels"})
    assert time_left(run, {}, 0.0) == TimeLeft(30.0, False)


def test_a_run_knows_which_jobs_wait():
    run = Run(total=4)
    run.start(running(1, output="a"))
    run.learn(RunFacts(3, [("run_stage", "a"), ("run_stage", "b"), ("all", "")], dict))
    assert (run.cached, run.waiting) == (3, {"b": "run_stage"})
    run.start(running(2, output="b"))
    assert run.waiting == {}
    assert run.finish(1, 7.0).number == 1
    assert run.ended == [EndedJob("run_stage", "a", 7.0)]
    run.fail(2, is_interruption=False)
    assert (run.done, run.failed, run.interrupted, run.waiting) == (1, 1, 0, {"b": "run_stage"}), (
        "it may be tried again"
    )
    run.fail(9, is_interruption=True)
    assert (run.failed, run.interrupted) == (1, 1)
    assert run.finish(9, 7.0) is None


@pytest.mark.parametrize("now_s", [0.0, 5.0])
def test_a_run_that_is_over_has_nothing_left(now_s):
    assert time_left(run_of(ended=[EndedJob("result", "a", 1.0)]), {}, now_s) is None
