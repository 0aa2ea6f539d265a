"""docs/api_reference.md: signatures and docstrings of all public names, from the code."""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from typing import Any

from plain_text import escaped

import edpipe

HEADER = """# Public Python API

Written by `python docs/site/reference.py`; do not edit. These are the names of `edpipe.__all__`.
[python_api.md](python_api.md) shows how they are used, and says what semantic versioning promises;
[plugins.md](plugins.md) shows those for plugins.
"""
GROUPS = {
    "Training loops": ("SoftLabelDataset", "SoftLabelWriter", "load_student", "EdpipeError"),
    "Methods and losses of your own": ("Method", "SingleTeacherMethod", "TeacherLoss", "StageLoss", "Stored"),
    "What a loss is given": ("TeacherPair", "StageOutputs"),
    "Networks and readers of your own": ("network", "reader", "RawDataset", "RawSample"),
}
"""Headings, and the public names below them."""
SECTION = re.compile(r"^(Args|Attributes|Raises|Yields|Returns):$")
ITEM = re.compile(r"^(\*{0,2}[\w.]+(?:, [\w.]+)*): (.*)$")
SHORTER = (
    (re.compile(r"(: |-> )'([^']*)'"), r"\1\2"),
    (re.compile(r"\b(?:edpipe|torch|typing|collections|pathlib|jaxtyping|numpy|PIL|os)(?:\.\w+)*\.(\w+)"), r"\1"),
    (re.compile(r"~(\w+)"), r"\1"),
)
"""Long names of types, and what is read instead."""


def api_page() -> str:
    """The page, in Markdown: a section for each group, one for each name in it."""
    named = sorted(name for names in GROUPS.values() for name in names)
    if named != sorted(set(edpipe.__all__) - {"__version__"}):
        raise AssertionError(f"public names without a heading, or headings without a name: {edpipe.__all__}")
    parts = [HEADER]
    for title, names in GROUPS.items():
        parts.append(f"\n## {title}\n")
        for name in names:
            parts += _described(name, getattr(edpipe, name))
    return "".join(parts)


def _described(name: str, value: Any) -> Iterator[str]:
    yield f"\n### edpipe.{name}\n"
    if not inspect.isclass(value):
        yield _code(f"edpipe.{name}{_signature(value)}")
        yield _docstring(value.__doc__)
        return
    if not issubclass(value, Enum | Exception) and _takes_arguments(value):
        yield _code(f"edpipe.{name}{_signature(value)}")
    yield _docstring(value.__doc__)
    yield from _attributes(value)
    for method, function in _methods(value):
        yield f"\n**`{method}{_shown(function)}`** {_docstring(_doc_of(function)).strip()}\n"


def _takes_arguments(value: type) -> bool:
    """Whether people make objects of it themselves; knobs come from params.yaml."""
    return dataclasses.is_dataclass(value) or "__init__" in vars(value)


def _signature(function: Any) -> str:
    try:
        return _short(str(inspect.signature(function)))
    except ValueError:
        return "(…)"


def _shown(function: Any) -> str:
    return "" if isinstance(function, property) else re.sub(r"^\((?:self|cls)(?:, )?", "(", _signature(function))


def _doc_of(function: Any) -> str | None:
    return (function.fget if isinstance(function, property) else function).__doc__


def _methods(value: type) -> Iterator[tuple[str, Any]]:
    """Its own public functions and properties, in the order of its text."""
    for name, found in vars(value).items():
        function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        is_public = not name.startswith("_") and (inspect.isfunction(function) or isinstance(function, property))
        if is_public and _doc_of(function):
            yield name, function


def _attributes(value: type) -> list[str]:
    """A list of what its body describes by a text below an assignment."""
    body = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0].body  # type: ignore[attr-defined]
    found = []
    for node, after in pairwise(body):
        name = _assigned(node)
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if name and is_text and not name.startswith("_"):
            found.append(f"- `{name}`: {escaped(_one_line(after.value.value))}\n")
    return ["\n", *found] if found else []


def _assigned(node: ast.stmt) -> str | None:
    """The name that a statement gives a value or a type."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return targets[0].id if isinstance(targets[0], ast.Name) else None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _short(text: str) -> str:
    for pattern, shorter in SHORTER:
        text = pattern.sub(shorter, text)
    return text


def _code(text: str) -> str:
    return f"\n```text\n{text}\n```\n"


def _docstring(text: str | None) -> str:
    """A docstring in Markdown: sections become headings in bold, their entries lists, examples code."""
    lines: list[str] = []
    section = False
    for line in inspect.cleandoc(text or "").splitlines():
        if SECTION.match(line):
            section = True
            lines += ["", f"**{line}**", ""]
        elif section and line.startswith("    ") and not line.startswith("     "):
            lines.append(_entry(line.strip()))
        elif section and line.strip():
            lines.append(f"  {escaped(line.strip())}")
        else:
            section = section and not line.strip()
            lines.append(line if line.startswith("    ") else escaped(line))
    return "\n" + re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip()) + "\n"


def _entry(line: str) -> str:
    found = ITEM.match(line)
    return f"- `{found[1]}`: {escaped(found[2])}" if found else f"  {escaped(line)}"
