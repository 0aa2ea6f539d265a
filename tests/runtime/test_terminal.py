"""What comes from elsewhere cannot command the terminal: on standard output, in errors and in progress."""

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from edpipe.cli.commands.partition import lines_of
from edpipe.cli.main import main
from edpipe.errors import DataError, EdpipeError, printable, printable_lines
from edpipe.runtime.progress import announce
from edpipe.runtime.terminal import EscapingStream, escaped_output

NASTY = "cat\x1b[2J\x9b31m\rdog\n\u202eedpipe: all is well\x07\x7f"
SHOWN = r"cat\u001b[2J\u009b31m\rdog\n\u202eedpipe: all is well\u0007\u007f"
CONTROLS = [chr(code) for code in (*range(32), *range(127, 160))]


@given(st.text())
def test_a_printable_text_is_one_line_without_controls_and_stays_as_it_is(text):
    found = printable(text)
    assert not set(found) & set(CONTROLS)
    assert len(found.splitlines()) <= 1
    assert printable(found) == found
    if text.isprintable():
        assert found == text


@given(st.text())
def test_json_stays_the_same_json(text):
    document = json.dumps({"name": text}, ensure_ascii=False, indent=1)
    assert json.loads(printable_lines(document)) == {"name": text}


def test_an_error_is_one_line_for_each_that_is_wrong():
    assert printable(NASTY) == SHOWN
    assert str(DataError(f"{NASTY}: no image", "second")).splitlines() == [f"{SHOWN}: no image", "second"]
    assert str(EdpipeError(str(DataError(NASTY)))) == SHOWN


def test_a_line_of_progress_is_one_line(capsys):
    announce(NASTY)
    assert capsys.readouterr().err == SHOWN + "\n"


def test_standard_output_escapes_and_is_itself_again(capsys):
    before = sys.stdout
    with escaped_output():
        print("plain\ttext", NASTY)
        assert sys.stdout.isatty() == before.isatty()
    assert sys.stdout is before
    assert capsys.readouterr().out == "plain\ttext " + SHOWN.replace("\\n", "\n") + "\n"


def test_rich_keeps_its_own_colours():
    stream = io.StringIO()
    console = Console(file=EscapingStream(stream), force_terminal=True, color_system="standard")
    console.print(Text("bold", style="bold"))
    assert stream.getvalue() == "\x1b[1mbold\x1b[0m\n"


def test_class_names_in_the_table_of_a_partition():
    subset = {"name": "low", "class_names": [NASTY], "samples": {"train": 1, "val": 1, "test": 1}}
    assert lines_of("t", [subset])[2].endswith(f"  {SHOWN}")


@pytest.mark.parametrize("words", [["check\x1b[2J"], ["evaluate", "--\x1b]0;title\x07", "x"]])
def test_wrong_words_are_shown_escaped(words, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not set(out + err) & set(CONTROLS) - {"\n"}


def test_keys_values_and_names_of_params_are_shown_escaped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(r'"x\e[2J": {"\e[31m": "\a"}' + "\n")
    assert main(["check"]) == 2
    err = capsys.readouterr().err
    assert r"edpipe: x\u001b[2J: unknown key" in err
    assert not set(err) & set(CONTROLS) - {"\n"}
