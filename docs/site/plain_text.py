"""Texts of the code as Markdown."""

import re

CODE = re.compile(r"(`[^`]*`)")
MARKS = re.compile(r"[<|*]")


def escaped(text: str) -> str:
    """The text with `<` that opens no HTML tag, `|` that ends no cell of a table, and `*` as it is; code stays.

    >>> escaped("study_<study>, `a|<b>`, c|d")
    'study_\\\\<study>, `a|<b>`, c\\\\|d'
    """
    parts = CODE.split(text)
    return "".join(part if part.startswith("`") else MARKS.sub(r"\\\g<0>", part) for part in parts)
