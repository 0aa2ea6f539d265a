"""What README and docs/architecture.md name exists: files, packages, modules and what is defined in them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "edpipe"
PAGES = ("README.md", "docs/architecture.md")
QUOTED = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FILES = (".json", ".yaml", ".py", ".md", ".h5", ".safetensors", ".html")
ROOMS = tuple(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__")


def quoted(page):
    return QUOTED.findall((ROOT / page).read_text(encoding="utf-8"))


def is_place(text):
    """Whether it is written as package.module or package.module.name; params.yaml and such are files."""
    return bool(re.fullmatch(rf"({'|'.join(ROOMS)})(\.\w+)+", text)) and not text.endswith(FILES)


def names_of(path):
    """What a module defines at its top level."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def exists(place):
    """Whether a package, a module, or a name in a module is there.

    >>> exists("losses.kd.kd_loss"), exists("losses.kd"), exists("losses.kd.no_loss"), exists("losses.gone.kd_loss")
    (True, True, False, False)
    """
    path = PACKAGE.joinpath(*place.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module = path.parent.with_suffix(".py")
    return module.is_file() and path.name in names_of(module)


@pytest.mark.parametrize("page", PAGES)
def test_paths_of_the_package_exist(page):
    named = {
        text
        for text in quoted(page)
        if text.startswith(("edpipe/", "tests/", "workflow/", "docs/", "examples/", "benchmarks/"))
    }
    assert named
    assert not [text for text in named if not (ROOT / text).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_places_in_the_package_exist(page):
    assert not [text for text in quoted(page) if is_place(text) and not exists(text)]


def test_the_walks_name_places():
    assert sum(map(is_place, quoted("docs/architecture.md"))) > 40


def test_what_is_not_there_is_found():
    assert is_place("losses.logits.dkd_los")
    assert not exists("losses.logits.dkd_los")
    assert not exists("training.stages.loss.batch_loss")


def test_every_package_has_a_row():
    for page in PAGES:
        assert not [room for room in ROOMS if f"edpipe/{room}" not in (ROOT / page).read_text(encoding="utf-8")], page


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_between_pages_lead_somewhere(page):
    path = ROOT / page
    links = [link for link in LINK.findall(path.read_text(encoding="utf-8")) if "://" not in link]
    assert not [link for link in links if not (path.parent / link).exists()]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110
