"""After a run: the page of all results is drawn where something is newer, and its failure does not fail the run."""

import os

import pytest
from examples import evaluation, write_result

from edpipe.pipeline.snakemake import hooks


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_result(tmp_path, [evaluation(0, "digits_ce")], "digits_ce")
    return tmp_path / "results" / "index.html"


def test_it_is_drawn_where_a_result_is_newer_and_left_alone_otherwise(index):
    hooks.draw_index()
    assert "digits_ce" in index.read_text(encoding="utf-8")
    index.write_text("kept", encoding="utf-8")
    hooks.draw_index()
    assert index.read_text(encoding="utf-8") == "kept"
    result = index.with_name("digits_ce.json")
    later = index.stat().st_mtime_ns + 10**9
    os.utime(result, ns=(later, later))
    hooks.draw_index()
    assert "digits_ce" in index.read_text(encoding="utf-8")


def test_without_results_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hooks.draw_index()
    assert not (tmp_path / "results").exists()


def test_a_failure_is_one_line_and_no_end_of_the_run(index, monkeypatch, capsys):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edpipe.results.page.index.write_index", full)
    hooks.draw_index()
    assert capsys.readouterr().err == ("edpipe: results/index.html: not drawn: [Errno 28] No space left on device\n")
