"""New entries in the text of params.yaml: everything that stands there stays as it is, byte for byte."""

import itertools
import textwrap
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode

from edpipe.errors import ParamsError

USUAL_INDENTATION = 2


def insert_entries(text: str, entries: Mapping[str, str]) -> str:
    r"""The text with a block of lines added at the end of each named section; a section that is absent is begun.

    Args:
        text: of params.yaml, which must be sound.
        entries: for each section, lines without indentation of their own.

    >>> insert_entries("a:\n  x: 1\n# of b\nb:\n  y: 2\n", {"a": "z: 3\n", "c": "w: 4\n"})
    'a:\n  x: 1\n  z: 3\n# of b\nb:\n  y: 2\n\nc:\n  w: 4\n'

    Raises:
        ParamsError: a section's entries do not stand on lines of their own.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(newline):
        lines[-1] += newline
    places = _places(text, lines)
    new = {section: block for section, block in entries.items() if section not in places}
    for section in sorted(entries.keys() - new.keys(), key=lambda name: places[name][0], reverse=True):
        at, indentation = places[section]
        if indentation < 0:
            raise ParamsError(f"{section}: its entries must stand on lines of their own to be added to; write them so")
        lines[at:at] = _indented(entries[section], indentation, newline)
    for section, block in new.items():
        lines += [newline, f"{section}:{newline}", *_indented(block, USUAL_INDENTATION, newline)]
    return "".join(lines)


def add_to_list(text: str, key: str, value: str) -> str:
    r"""The text with one more value in the list under a key at the top; a list that is absent is begun.

    >>> add_to_list("b: [x] # why\n", "b", "y.py"), add_to_list("b:\n- x\n", "b", "y.py")
    ('b: [x, y.py] # why\n', 'b:\n- x\n- y.py\n')
    >>> add_to_list("a: 1\n", "b", "y.py")
    'a: 1\n\nb:\n- y.py\n'
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    found = next((node for name, node in _pairs(text) if name.value == key), None)
    if found is None:
        return text + ("" if text.endswith("\n") else newline) + f"{newline}{key}:{newline}- {value}{newline}"
    if found.flow_style or not found.value:
        values = ", ".join([*(one.value for one in found.value), value])
        return f"{text[: found.start_mark.index]}[{values}]{text[found.end_mark.index :]}"
    end = found.value[-1].end_mark.index
    return f"{text[:end]}{newline}{' ' * found.start_mark.column}- {value}{text[end:]}"


def entry_texts(text: str) -> dict[str, dict[str, str]]:
    r"""For each section the lines of each entry, without the indentation of the section.

    Comments right above an entry belong to it.

    >>> entry_texts("a:\n  x: 1 # one\n  # of y\n  y:\n    z: 2\nb: 3\n")
    {'a': {'x': 'x: 1 # one\n', 'y': '# of y\ny:\n  z: 2\n'}}
    """
    lines = text.splitlines(keepends=True)
    ends = {section: end for section, (end, indentation) in _places(text, lines).items() if indentation >= 0}
    texts = {}
    for key, value in _pairs(text):
        if key.value in ends:
            names = [name.value for name, _ in value.value]
            starts = [_start(lines, name.start_mark.line) for name, _ in value.value] + [ends[key.value]]
            blocks = ["".join(lines[start:end]) for start, end in itertools.pairwise(starts)]
            texts[key.value] = dict(zip(names, map(textwrap.dedent, blocks), strict=True))
    return texts


def _indented(block: str, indentation: int, newline: str) -> list[str]:
    return [" " * indentation + line + newline for line in block.splitlines()]


def _pairs(text: str) -> list[tuple[Any, Any]]:
    """Each section's name and value, with the lines where they stand."""
    return YAML(typ="safe").compose(text).value


def _start(lines: list[str], key_line: int) -> int:
    while lines[key_line - 1].lstrip().startswith("#"):
        key_line -= 1
    return key_line


def _places(text: str, lines: list[str]) -> dict[str, tuple[int, int]]:
    """For each section the line after its last one, and the indentation of its entries; -1: on the section's own line.

    Blank lines and comments before the next section belong to that.
    """
    pairs = _pairs(text)
    starts = [key.start_mark.line for key, _ in pairs] + [len(lines)]
    places = {}
    for (key, value), end in zip(pairs, starts[1:], strict=True):
        while end > key.start_mark.line + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
            end -= 1
        is_block = isinstance(value, MappingNode) and not value.flow_style and value.value
        places[key.value] = (end, value.value[0][0].start_mark.column if is_block else -1)
    return places
