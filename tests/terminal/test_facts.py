"""What Snakemake's graph says of a run, and how it reaches the view."""

from types import SimpleNamespace

import pytest
from project import ROOT
from snakemake.settings.types import OutputSettings

from edpipe.params.load import load_params
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.snakemake.terminal import facts
from edpipe.pipeline.snakemake.terminal.facts import facts_of, tell_view
from edpipe.pipeline.snakemake.terminal.handler import LogHandler, LogHandlerSettings


def dag_of(*jobs):
    """A graph of such jobs: rule, first output, whether it is to run."""
    made = [SimpleNamespace(rule=SimpleNamespace(name=rule), output=output and [output]) for rule, output, _ in jobs]
    running = {id(job) for job, (_, _, is_run) in zip(made, jobs, strict=True) if is_run}
    return SimpleNamespace(jobs=made, needrun=lambda job: id(job) in running)


def test_jobs_that_need_not_run_come_from_the_cache():
    found = facts_of(dag_of(("all", [], True), ("pack_dataset", "a", False), ("result", "b", True)))
    assert (found.cached, list(found.waiting)) == (1, [("result", "b")])


def test_expectations_are_those_of_the_jobs_that_wait(monkeypatch):
    monkeypatch.chdir(ROOT)
    teacher = next(job for job in jobs_of(load_params(), ["digits_kd"]) if job.step == "train_teacher")
    path = str(teacher.outputs[0])
    found = facts_of(dag_of(("train_teacher", path, True), ("mine", "x.txt", True)))
    assert [*found.expect()] == [path]


def test_wrong_params_are_no_reason_to_stop(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert facts_of(dag_of(("result", "results/a.json", True))).expect() == {}


@pytest.fixture
def told(monkeypatch):
    """What handlers of ours have learnt."""
    learnt = []
    monkeypatch.setattr(LogHandler, "learn", lambda _, found: learnt.append(found()))
    return learnt


def test_our_view_is_told(told):
    handlers = [object(), LogHandler(OutputSettings(), LogHandlerSettings(view="plain"))]
    manager = SimpleNamespace(get_log_handlers=lambda: handlers)
    tell_view(SimpleNamespace(dag=dag_of(("result", "b", True)), logger_manager=manager))
    assert [found.waiting for found in told] == [(("result", "b"),)]


@pytest.mark.parametrize("manager", [None, SimpleNamespace(get_log_handlers=lambda: [])])
def test_without_our_view_nothing_is_looked_at(told, monkeypatch, manager):
    monkeypatch.setattr(facts, "facts_of", lambda _: 1 / 0)
    tell_view(SimpleNamespace(dag=None, logger_manager=manager))
    assert told == []
