"""The simulation of the fan-out: exact where nothing fails, and Young's formula where something does."""

import importlib
import math
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT

from edpipe.pipeline.estimates.makespan import makespan
from edpipe.storage.job import Job, NoKnobs


@pytest.fixture(scope="module")
def fan_out():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("fan_out")


def job_of(name):
    return Job("s", {}, NoKnobs(), {}, (Path(name),))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 100))
def test_without_failures_it_ends_when_the_makespan_says(fan_out, num_jobs, workers, seconds):
    jobs = [job_of(str(number)) for number in range(num_jobs)]
    taken = {job.outputs[0]: float(seconds) for job in jobs}
    found = fan_out.simulate(fan_out.FanOut(num_jobs, float(seconds), workers))
    assert found.makespan_s == makespan(jobs, taken, dict.fromkeys(taken, 1), workers)
    assert (found.lost_s, found.writing_s, found.failures, set(found.starts)) == (0, 0, 0, {1})


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 10))
def test_checkpoints_alone_cost_what_they_take(fan_out, pieces, num_jobs, cost):
    found = fan_out.simulate(fan_out.FanOut(num_jobs, 10.0 * pieces, 1, interval_s=10, cost_s=cost))
    assert found.writing_s == num_jobs * (pieces - 1) * cost
    assert found.makespan_s == num_jobs * 10 * pieces + found.writing_s


def test_a_failure_loses_what_came_after_the_last_checkpoint(fan_out, monkeypatch):
    fails_after = iter([25.0, math.inf])
    monkeypatch.setattr(fan_out, "_failure", lambda *_: next(fails_after))
    found = fan_out.simulate(fan_out.FanOut(1, 30.0, 1, mtbf_s=1.0, interval_s=10, cost_s=2, restart_s=100))
    # Two pieces of 10 s and two checkpoints of 2 s are kept; 1 s is lost; 10 s are left.
    assert (found.lost_s, found.writing_s, found.failures, found.starts) == (1.0, 4.0, 1, [2])
    assert found.makespan_s == 25 + 100 + 10


def test_what_is_being_written_at_a_failure_does_not_count(fan_out, monkeypatch):
    fails_after = iter([11.0, math.inf])
    monkeypatch.setattr(fan_out, "_failure", lambda *_: next(fails_after))
    found = fan_out.simulate(fan_out.FanOut(1, 20.0, 1, mtbf_s=1.0, interval_s=10, cost_s=2))
    assert (found.lost_s, found.makespan_s) == (11.0, 11 + 20 + 2)


def test_another_worker_takes_over_at_once(fan_out, monkeypatch):
    fails_after = iter([5.0, math.inf])
    monkeypatch.setattr(fan_out, "_failure", lambda *_: next(fails_after))
    found = fan_out.simulate(fan_out.FanOut(1, 10.0, 2, mtbf_s=1.0, restart_s=1000))
    assert found.makespan_s == 15


def test_slow_jobs_take_their_factor(fan_out):
    found = fan_out.simulate(fan_out.FanOut(4, 10.0, 1, slow_share=1.0, slow_factor=2.5))
    assert found.makespan_s == 100
    share = [fan_out._slowness(fan_out.FanOut(1, 1.0, 1, slow_share=0.25, slow_factor=3), job) for job in range(2000)]
    assert share.count(3) / 2000 == pytest.approx(0.25, abs=0.03)


CASE = {"num_jobs": 400, "job_s": 20_000.0, "workers": 10, "mtbf_s": 40_000.0, "restart_s": 60}


@pytest.mark.slow
@pytest.mark.parametrize("interval_s", [100.0, 400.0, 1600.0])
def test_a_failure_costs_half_an_interval_on_average(fan_out, interval_s):
    found = fan_out.simulate(fan_out.FanOut(**CASE, interval_s=interval_s))
    assert found.failures == pytest.approx(CASE["num_jobs"] * CASE["job_s"] / CASE["mtbf_s"], rel=0.15)
    assert found.lost_s / found.failures == pytest.approx(interval_s / 2, rel=0.1)


@pytest.mark.slow
def test_the_best_interval_is_that_of_young(fan_out):
    case = fan_out.FanOut(**CASE, cost_s=10.0)
    best_s = fan_out.young_s(case.cost_s, case.mtbf_s)

    def overhead(interval_s):
        found = [fan_out.simulate(replace(case, interval_s=interval_s, seed=seed)) for seed in range(3)]
        return mean(one.lost_s + one.writing_s for one in found)

    around = [overhead(best_s * factor) for factor in (0.25, 0.5, 1, 2, 4)]
    assert min(around) == around[2]
    expected = case.num_jobs * case.job_s * (case.cost_s / best_s + best_s / (2 * case.mtbf_s))
    assert around[2] == pytest.approx(expected, rel=0.1)


def test_the_same_seed_gives_the_same_and_another_one_another(fan_out):
    case = fan_out.FanOut(**CASE | {"num_jobs": 20}, interval_s=300)
    assert fan_out.simulate(case) == fan_out.simulate(case)
    assert fan_out.simulate(case) != fan_out.simulate(replace(case, seed=1))


def test_nothing_to_do_is_refused(fan_out):
    with pytest.raises(ValueError, match="jobs, workers and times must be above 0"):
        fan_out.simulate(fan_out.FanOut(0, 1.0, 1))
