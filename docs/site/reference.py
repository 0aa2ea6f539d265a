"""Writes the pages that follow from the code: `python docs/site/reference.py`. A test compares them with the code."""

from pathlib import Path

from api_page import api_page
from builtin_page import builtin_page
from commands_page import commands_page

DOCS = Path(__file__).resolve().parents[1]
PAGES = {"commands.md": commands_page, "builtin.md": builtin_page, "api_reference.md": api_page}
"""Page → what gives its text."""


def main() -> None:
    """Writes every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
