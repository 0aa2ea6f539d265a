"""What all tests share."""

import os
import signal
import socket
import sys
from dataclasses import fields

import fault_table
import pytest
from dvc_stories import NUM_STEPS, start
from file_server import serving
from hypothesis import HealthCheck, settings
from project import AS_SNAKEMAKE_SAYS, make_project, tiny_params

from edpipe.params.plans import plugins
from edpipe.params.plans.registered import REGISTRY
from edpipe.storage.code.units import closure_of, unit_digest

# Where the tests themselves were started to ignore signals, as by nohup, their children would ignore them too.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# A loaded machine makes an example slow, which says nothing of the code: neither time of one example fails a test, nor
# the time that drawing its input takes. CI draws the same examples in every run.
settings.register_profile(
    "edpipe",
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("edpipe")

# Helpers; some of them run only inside throw-away copies of the package.
collect_ignore = ["support"]


def pytest_ignore_collect(collection_path, config):
    """Tests of faults are a job of their own: `make test-faults`."""
    return True if collection_path.name == "faults" and "faults" not in config.option.markexpr else None


def pytest_collection_modifyitems(items):
    """Whole pipelines first: with several workers none is left alone with the longest file at the end."""
    items.sort(key=lambda item: "stories" not in item.path.parts)


def pytest_terminal_summary(terminalreporter):
    """What was tried and what survived, where faults were."""
    for line in fault_table.lines():
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def plugins_are_forgotten():
    """What a test registers of plugins is gone after it, with the modules that hold it."""
    plugins.load_built_in()
    known = [getattr(REGISTRY, field.name) for field in fields(REGISTRY)]
    before, path = [dict(one) for one in known], [*sys.path]
    yield
    if before != known:
        for one, kept in zip(known, before, strict=True):
            one.clear()
            one.update(kept)
        for name in [name for name, module in list(sys.modules.items()) if plugins._MARK in vars(module)]:
            del sys.modules[name]
        sys.path[:] = path
        closure_of.cache_clear()
        unit_digest.cache_clear()


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory):
    """A folder in which `snakemake results/ed.json` ran undisturbed, once for all tests; not to be changed.

    What Snakemake said is in its file snakemake.out.
    """
    project = make_project(tmp_path_factory.mktemp("finished") / "project", tiny_params())
    ran = project.snakemake(*AS_SNAKEMAKE_SAYS, "--", "results/ed.json")
    assert ran.rc == 0, ran.text
    (project.root / "snakemake.out").write_text(ran.text, encoding="utf-8")
    return project


@pytest.fixture(scope="session")
def _finished_repository(tmp_path_factory):
    folder = start(tmp_path_factory.mktemp("repository") / "first", "copy")
    assert len(folder.snakemake()) == NUM_STEPS
    folder.git_commit()
    return folder


@pytest.fixture
def repository(_finished_repository, tmp_path):
    """A git repository in which everything is made and committed, for one test to work in."""
    return _finished_repository.copy(tmp_path / "project")


@pytest.fixture
def server(monkeypatch):
    """An HTTP server of this process (file_server.py), reached whatever proxy is set."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield server


@pytest.fixture
def s3_store(monkeypatch):
    """An S3 server of this process (s3_server.py) with an empty bucket, which programs of the test may use."""
    pytest.importorskip("moto", reason="needs edpipe[dev]")
    from s3_server import serving_s3

    with serving_s3() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        yield store


@pytest.fixture
def no_network(monkeypatch):
    """A test that reaches for the network fails."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def one_thread():
    """Networks of a module's tests compute on one CPU thread, so that their last bits are the same everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        yield
    torch.set_num_threads(before)
