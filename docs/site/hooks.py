"""What the site takes from outside of docs/: README.md as its first page, pages of the root folder, and recipes."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "examples" / "recipes"
TAKEN = {
    "README.md": "index.md",
    "LOG.md": "log.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
"""File of the project → page."""


def on_files(files: Files, config: Any) -> Files:
    """Adds these files as pages."""
    recipes = {path.relative_to(ROOT).as_posix(): path.relative_to(ROOT).as_posix() for path in RECIPES.glob("*.py")}
    for name, page in (TAKEN | recipes).items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Makes links fit the places that pages have on the site."""
    if page.file.src_uri in TAKEN.values():
        markdown = markdown.replace("](docs/", "](")
    markdown = markdown.replace("](../examples/", "](examples/")
    for name, target in TAKEN.items():
        markdown = markdown.replace(f"](../{name}", f"]({target}").replace(f"]({name}", f"]({target}")
    return markdown
