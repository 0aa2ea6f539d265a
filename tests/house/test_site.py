"""The docs site: its contents name every page, and links of pages lead somewhere. `make docs` builds it, strictly."""

import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
ANCHOR = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
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


def plain(heading):
    """A heading as it is read: without marks of code, stress and links."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "").replace("\\", "").strip()


def anchors_of(path):
    """Where links into a page may lead: to headings whose name is the same on the site and where the code is hosted.

    Hosts of code make a hyphen of each space, the site one of all that stand together; the site drops letters with
    accents and other scripts.
    """
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in map(plain, HEADING.findall(text)):
        kept = re.sub(r"[^\w\s-]", "", heading.lower())
        ascii_only = unicodedata.normalize("NFKD", kept).encode("ascii", "ignore").decode("ascii").strip()
        if (name := kept.replace(" ", "-")) == re.sub(r"[-\s]+", "-", ascii_only):
            found.add(name)
    return found


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_anchors_of_links_are_headings(path):
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    inside = [(link, anchor) for link, anchor in ANCHOR.findall(text) if "://" not in link and not link.endswith(".py")]
    assert [
        f"{link}#{anchor}" for link, anchor in inside if anchor not in anchors_of(path.parent / link if link else path)
    ] == []


def test_an_anchor_is_what_a_heading_becomes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Two `words`\n\n```sh\n# no heading\n```\n## 3. Weights: a [link](b.md)\n## One - two\n## Größe\n"
    )
    assert anchors_of(page) == {"two-words", "3-weights-a-link"}


def test_the_version_of_mkdocs_is_one():
    bound = re.search(r'"(mkdocs-material[^"]+)"', (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert bound
    assert f'"{bound[1]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


FIGURES = sorted((ROOT / "docs/figures").glob("*.svg"))


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.name)
def test_a_figure_can_be_read_in_light_and_dark_and_has_a_title(path):
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.find("{http://www.w3.org/2000/svg}title").text
    assert "prefers-color-scheme" in text
    assert f"(figures/{path.name})" in "".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_picture_is_described_in_words(path):
    assert [link for words, link in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", path.read_text("utf-8")) if not words] == []
