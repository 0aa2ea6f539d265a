"""The page of all results."""

import json
import re
from html.parser import HTMLParser

import pytest
from examples import evaluation, write_result

from edpipe.cli.main import main
from edpipe.results.page.index import index_page, read_index, write_index


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for experiment, shift in (("digits_ce", 0.03), ("digits_kd", 0.01), ("digits_ed", -0.02)):
        write_result(tmp_path, [evaluation(seed, experiment, shift) for seed in (0, 1)], experiment)
    return tmp_path / "results"


def words(page):
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_results_stand_in_order_with_their_numbers(folder):
    text = words(index_page(read_index(folder)))
    assert "3 results. Top1" in text
    assert "The best is digits_ce with 91.0 %." in text
    assert "digits_ce ce resnet8 91.00 % ± 0.71" in text
    assert text.index("digits_ce ce") < text.index("digits_kd kd") < text.index("digits_ed ed")


def test_pages_that_are_there_are_linked(folder):
    (folder / "digits_kd.html").touch()
    page = index_page(read_index(folder))
    assert re.findall(r'<th scope="row"><a href="([^"]*)">', page) == ["digits_kd.html"]


def test_results_of_other_data_stand_apart(folder, tmp_path):
    record = evaluation(0, "digits_ce")
    record["inputs"]["dataset"] = "f" * 16
    write_result(tmp_path, [record], "others_ce")
    found = read_index(folder)
    assert [len(group.entries) for group in found.groups] == [3, 1]
    assert found.groups[1].picture is None


def test_damaged_files_are_named_and_the_others_shown(folder, capsys):
    path = folder / "digits_kd.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"method": "kd"', '"method": "ed"'), encoding="utf-8")
    assert main(["index"]) == 0
    out, err = capsys.readouterr()
    assert out == "results/index.html: 2 results, 0 studies\n"
    assert re.fullmatch(r"edpipe: left out: results/digits_kd\.json: .*make it again with .*\n", err)
    assert "Left out" in (folder / "index.html").read_text(encoding="utf-8")


def test_other_files_are_no_results(folder):
    (folder / "notes.json").write_text(json.dumps({"format": "other"}), encoding="utf-8")
    assert read_index(folder).left_out == ()


def test_an_empty_folder_says_how_to_begin(tmp_path):
    (tmp_path / "results").mkdir()
    assert "There is no result yet." in words(index_page(read_index(tmp_path / "results")))


def test_without_a_folder_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["index"]) == 2
    assert capsys.readouterr().err.startswith("edpipe: index: no folder results here; make a result first")
    assert not (tmp_path / "results").exists()


def test_the_page_is_whole_and_fetches_nothing(folder):
    write_index(folder)
    page = (folder / "index.html").read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert not re.search(r"https?:|url\(|@import|<script", page)
    assert write_index(folder) == read_index(folder)
    assert (folder / "index.html").read_text(encoding="utf-8") == page
