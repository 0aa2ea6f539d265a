"""Pages that follow from the code are those that the code gives now, and nothing of it is left out."""

import runpy
import sys
from pathlib import Path

import pytest

import edpipe
from edpipe.cli.overview import command_names
from edpipe.cli.run_step import STEP_COMMANDS
from edpipe.datasets.readers.by_name import READERS
from edpipe.params.plans.registered import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "docs/site"
PAGES = ("commands.md", "builtin.md", "api_reference.md")


@pytest.fixture(scope="module")
def reference():
    """What docs/site/reference.py defines, as if it was called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SITE)
        yield runpy.run_path(str(SITE / "reference.py"))
        for name in [name for name, module in sys.modules.items() if str(SITE) in str(getattr(module, "__file__", ""))]:
            del sys.modules[name]


def text_of(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_gives_now(name, reference):
    assert tuple(reference["PAGES"]) == PAGES
    assert text_of(name) == reference["PAGES"][name](), "call `python docs/site/reference.py`"


def test_every_command_has_a_section():
    headings = [line for line in text_of("commands.md").splitlines() if line.startswith("### ")]
    assert headings == [f"### edpipe {name}" for name in (*command_names(), *STEP_COMMANDS)]


def test_every_name_of_params_yaml_has_a_row():
    names = (*REGISTRY.methods, *READERS, *(name for name, loss in REGISTRY.losses.items() if loss.for_levels))
    assert [name for name in names if f"| `{name}` |" not in text_of("builtin.md")] == []


def test_every_public_name_has_a_section():
    for name in set(edpipe.__all__) - {"__version__"}:
        assert f"\n### edpipe.{name}\n" in text_of("api_reference.md")


def test_no_place_of_this_machine_is_on_a_page():
    for name in PAGES:
        assert str(ROOT) not in text_of(name)
        assert " object at 0x" not in text_of(name)
