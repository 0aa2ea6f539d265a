"""The docs site: its contents name every page, and links of pages lead somewhere. `make docs` builds it, strictly."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def pages_of(nav):
    for entry in nav:
        (value,) = entry.values()
        yield from [value] if isinstance(value, str) else pages_of(value)


def taken():
    """The dictionary of docs/site/hooks.py, which imports mkdocs."""
    text = (ROOT / "docs/site/hooks.py").read_text(encoding="utf-8")
    return dict(re.findall(r'^    "(\S+\.md)": "(\S+\.md)",$', text, re.MULTILINE))


def test_the_contents_name_every_page_once():
    named = list(pages_of(SITE["nav"]))
    assert sorted(named) == sorted([path.name for path in PAGES] + list(taken().values()))


def test_what_is_taken_from_the_root_is_there():
    assert taken()
    assert [name for name in taken() if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_to_files(path):
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    links = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_version_of_mkdocs_is_one():
    bound = re.search(r'"(mkdocs-material[^"]+)"', (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert bound
    assert f'"{bound[1]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
