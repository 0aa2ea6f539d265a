"""Errors as people see them: the first ten lines and a count, no line without end."""

import pytest

from edpipe.cli.main import main
from edpipe.errors import LONGEST_LINE, EdpipeError, ParamsError, nearest, shortened


@pytest.mark.parametrize("num_lines", [0, 1, 10])
def test_up_to_ten_lines_are_shown(num_lines):
    lines = [f"place {number}: wrong" for number in range(num_lines)]
    assert str(EdpipeError(*lines)).splitlines() == lines


@pytest.mark.parametrize("num_lines", [11, 12, 5000])
def test_of_more_lines_the_first_ten_and_a_count(num_lines):
    error = ParamsError(*(f"place {number}: wrong" for number in range(num_lines)))
    shown = [f"place {number}: wrong" for number in range(10)]
    assert str(error).splitlines() == [*shown, f"and {num_lines - 10:,} more like these"]
    assert len(error.lines) == num_lines


def test_a_line_of_thousands_of_names_keeps_its_beginning_and_its_remedy():
    line = f"params.yaml: tracked: {', '.join(f'name_{number}' for number in range(10_000))}; give each once"
    found = str(EdpipeError(line))
    assert len(found) == LONGEST_LINE
    assert found.startswith("params.yaml: tracked: name_0, name_1, ")
    assert found.endswith("name_9999; give each once")
    assert f" … ({len(line):,} characters) … " in found
    assert shortened(found) == found


def test_of_many_known_names_the_first_are_listed():
    known = [f"n{number:04}" for number in range(2000)]
    assert nearest("zzz", known[:2]) == "; known: n0000, n0001"
    assert nearest("zzz", known).startswith("; known: n0000, n0001, ")
    assert nearest("zzz", known).endswith("n0029, … (2,000 in all)")
    assert nearest("n001", known).endswith("?")


def test_a_thousand_mistakes_in_params_are_ten_lines_and_a_count(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("".join(f"wrong_{number}: 1\n" for number in range(1000)))
    assert main(["check"]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 11
    assert all(line.startswith("edpipe: ") for line in shown)
    assert shown[-1] == "edpipe: and 998 more like these"
