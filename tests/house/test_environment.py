"""docs/environment.md names every environment variable that edpipe reads, and no other; its values are the code's."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from torch import nn

from edpipe.errors import EdpipeError
from edpipe.runtime.device import callable_network, prepare_device
from edpipe.runtime.loggers import LOGGERS, chosen_logger
from edpipe.runtime.nodes import rendezvous
from edpipe.runtime.threads import MOST_THREADS, num_nodes, num_processes, num_threads
from edpipe.training.resumable import CHECKPOINT_EVERY_S, checkpoint_seconds

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "edpipe").rglob("*.py"))
OWN_NAME = re.compile(r"\bEDPIPE_[A-Z_]*[A-Z]\b")
LOCAL_NAMES = {
    ("edpipe/runtime/threads.py", "variable"): {
        *("EDPIPE_THREADS", "OMP_NUM_THREADS", "EDPIPE_PROCESSES", "EDPIPE_NODES", "WORLD_SIZE")
    },
    ("edpipe/runtime/torchrun.py", "variable"): {"EDPIPE_THREADS", "OMP_NUM_THREADS"},
}
"""What the names of loops and of arguments stand for."""


def documented(heading):
    """The names in the first column of the tables below a heading."""
    part = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def is_environment(node):
    return isinstance(node, ast.Attribute) and node.attr == "environ"


def keys_in(tree):
    """Expressions that stand for a variable's name wherever the environment is looked at."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environment(node.value):
            yield node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_environment(node.func.value):
            yield from node.args[: node.func.attr in ("get", "pop", "setdefault")]
        elif isinstance(node, ast.Compare) and is_environment(node.comparators[0]):
            yield node.left
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "getenv":
            yield node.args[0]


def names_of(key, path):
    """The variables that an expression may name."""
    if isinstance(key, ast.Constant):
        return {key.value}
    module = path.relative_to(ROOT).with_suffix("").as_posix()
    known = LOCAL_NAMES.get((f"{module}.py", ast.unparse(key)))
    return known or {eval(ast.unparse(key), vars(import_module(module.replace("/", "."))))}


def read_by_edpipe():
    found = set()
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if "environ" in text or "getenv" in text:
            found |= {name for key in keys_in(ast.parse(text)) for name in names_of(key, path)}
    return found


def test_the_page_names_what_the_code_reads():
    named = documented("Set by you") + documented("Set by programs")
    assert len(named) == len(set(named))
    assert set(named) == read_by_edpipe()


def test_a_read_is_found_in_each_form():
    forms = "os.environ['A'], os.environ.get('B', ''), 'C' in os.environ, os.getenv('D'), os.environ.pop('E')"
    assert {key.value for key in keys_in(ast.parse(forms))} == set("ABCDE")


def test_names_that_only_appear_in_rules_or_texts_are_on_the_page_too():
    texts = [
        path.read_text(encoding="utf-8") for path in (ROOT / "edpipe").rglob("*") if path.suffix in (".py", ".smk")
    ]
    named = {name for text in texts for name in OWN_NAME.findall(text)}
    assert named == {name for name in documented("Set by you") + documented("Set by programs") if "EDPIPE" in name}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_no_page_names_a_variable_that_is_not_there(page):
    named = set(OWN_NAME.findall(page.read_text(encoding="utf-8")))
    assert named <= set(documented("Set by you") + documented("Set by programs"))


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("EDPIPE_DEVICE", "gpu", prepare_device),
        ("EDPIPE_THREADS", "0", num_threads),
        ("OMP_NUM_THREADS", "1025", num_threads),
        ("EDPIPE_PROCESSES", "two", num_processes),
        ("EDPIPE_NODES", "two", num_nodes),
        ("EDPIPE_RENDEZVOUS", "node1", rendezvous),
        ("EDPIPE_COMPILE", "", lambda: callable_network(nn.Identity())),
        ("EDPIPE_CHECKPOINT_SECONDS", "-1", checkpoint_seconds),
        ("EDPIPE_LOGGER", "tensorbord", lambda: chosen_logger(None)),
    ],
)
def test_values_that_are_not_allowed_are_refused(name, value, read, monkeypatch):
    monkeypatch.delenv("EDPIPE_THREADS", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(EdpipeError, match=rf"^{name}='{value}': "):
        read()


def row(name):
    return next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")).split("|")


@pytest.mark.parametrize("name", ["EDPIPE_THREADS", "OMP_NUM_THREADS", "EDPIPE_PROCESSES", "EDPIPE_NODES"])
def test_the_allowed_numbers_are_those_of_the_code(name):
    assert row(name)[2].strip() == f"1 to {MOST_THREADS}"


def test_defaults_are_those_of_the_code(monkeypatch):
    for name in documented("Set by you"):
        monkeypatch.delenv(name, raising=False)
    assert float(row("EDPIPE_CHECKPOINT_SECONDS")[3]) == CHECKPOINT_EVERY_S == checkpoint_seconds()
    assert int(row("EDPIPE_PROCESSES")[3]) == num_processes()
    assert int(row("EDPIPE_NODES")[3]) == num_nodes()
    assert row("EDPIPE_COMPILE")[3].strip() == "`0`"
    assert callable_network(network := nn.Identity()) is network
    assert re.findall(r"`(\w+)`", row("EDPIPE_LOGGER")[2]) == [*LOGGERS, "none"]
