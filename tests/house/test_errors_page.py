"""docs/errors.md quotes messages as the code has them."""

import ast
import errno
import os
import re
from functools import cache
from pathlib import Path

import pytest
import snakemake

from edpipe.runtime.os_errors import line_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
GAP = "\0"
"""Stands for what a message is filled with."""
LEAST_FIXED = 10
"""Characters between the gaps of a quoted message, so that it can be found."""
SNAKEMAKES = "(Snakemake's own)"


def first_cells(page):
    """The first column of the tables whose heading is `message`."""
    for table in re.findall(r"^\| message \|.*\n\|[-| ]+\n((?:\|.*\n)+)", page, re.MULTILINE):
        yield from (re.split(r"(?<!\\) \| ", line.strip("|\n "))[0] for line in table.splitlines())


def quoted(cell):
    """The message of a cell: its whole text in backticks, which may have backticks inside."""
    found = re.fullmatch(rf"`(.+)`(?: {re.escape(SNAKEMAKES)})?", cell)
    return found[1] if found else None


CELLS = list(first_cells(PAGE))
MESSAGES = [(quoted(cell), cell.endswith(SNAKEMAKES)) for cell in CELLS if quoted(cell)]


def text_of(node):
    """A text as it stands in the code, with gaps; None where the node is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) or GAP for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [text_of(node.left), text_of(node.right)]
        return None if parts == [None, None] else "".join(part or GAP for part in parts)
    return None


@cache
def texts(folder):
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py")))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    found = {text_of(node) for node in nodes if id(node) not in docstrings}
    full_disk = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), GAP)
    return [*sorted(text for text in found if text), line_of(full_disk).replace("\\u0000", GAP)]


def is_said_by(message, folder):
    """Whether a text of these modules has the fixed parts of the message, in this order."""
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("…")), re.DOTALL)
    return any(pattern.search(text) for text in texts(folder))


def fixed(message):
    return "".join(message.split("…"))


def test_the_page_has_many_messages_of_each_kind():
    assert len(MESSAGES) > 60
    assert [cell for cell in CELLS if not quoted(cell)] == [
        "the same, with `pixel canary`",
        "none; the job's exit code is 137",
    ]
    assert len({message for message, _ in MESSAGES}) == len(MESSAGES)


@pytest.mark.slow
@pytest.mark.parametrize(("message", "is_snakemakes"), MESSAGES, ids=[message[:60] for message, _ in MESSAGES])
def test_a_quoted_message_is_in_the_code(message, is_snakemakes):
    assert len(fixed(message)) >= LEAST_FIXED
    folder = Path(snakemake.__file__).parent if is_snakemakes else ROOT / "edpipe"
    assert is_said_by(message, folder)


@pytest.mark.slow
def test_what_is_not_said_is_found():
    assert is_said_by("…: no such file; get it with `dvc pull`, or …", ROOT / "edpipe")
    assert not is_said_by("…: no such file; get it with `dvc fetch`, or …", ROOT / "edpipe")
    assert not is_said_by("…: get it with `dvc pull`; no such file, or …", ROOT / "edpipe")


def test_the_line_that_is_shown_whole_is_what_check_says(tmp_path, monkeypatch, capsys):
    from edpipe.cli.main import main
    from edpipe.pipeline.project.files import write_first_params

    monkeypatch.chdir(tmp_path)
    write_first_params()
    path = tmp_path / "params.yaml"
    wrong = "{name: kd, teacher: digits_teacher, temprature: 2}"
    path.write_text(path.read_text("utf-8").replace("{name: kd, teacher: digits_teacher}", wrong), "utf-8")
    assert main(["check"]) == 2
    assert f"```text\n{capsys.readouterr().err}```" in PAGE
