"""New entries in the text of params.yaml: everything that stands there stays as it is, byte for byte."""

from collections.abc import Mapping

import yaml

from edpipe.errors import ParamsError


def insert_entries(text: str, entries: Mapping[str, str]) -> str:
    r"""The text with a block of lines added at the end of each named section.

    Args:
        text: of params.yaml, which must be sound.
        entries: for each section, lines without indentation of their own.

    >>> insert_entries("a:\n  x: 1\n# of b\nb:\n  y: 2\n", {"a": "z: 3\n"})
    'a:\n  x: 1\n  z: 3\n# of b\nb:\n  y: 2\n'

    Raises:
        ParamsError: a section is absent, or its entries do not stand on lines of their own.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(newline):
        lines[-1] += newline
    places = _places(text, lines)
    for section in entries:
        _check(section, places)
    for section in sorted(entries, key=lambda name: places[name][0], reverse=True):
        at, indentation = places[section]
        lines[at:at] = [" " * indentation + line + newline for line in entries[section].splitlines()]
    return "".join(lines)


def _places(text: str, lines: list[str]) -> dict[str, tuple[int, int]]:
    """For each section the line after its last one, and the indentation of its entries; -1: on the section's own line.

    Blank lines and comments before the next section belong to that.
    """
    pairs = yaml.compose(text, Loader=yaml.SafeLoader).value
    starts = [key.start_mark.line for key, _ in pairs] + [len(lines)]
    places = {}
    for (key, value), end in zip(pairs, starts[1:], strict=True):
        while end > key.start_mark.line + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
            end -= 1
        is_block = isinstance(value, yaml.MappingNode) and not value.flow_style and value.value
        places[key.value] = (end, value.value[0][0].start_mark.column if is_block else -1)
    return places


def _check(section: str, places: Mapping[str, tuple[int, int]]) -> None:
    if section not in places:
        raise ParamsError(f"{section}: params.yaml has no such section; add it")
    if places[section][1] < 0:
        raise ParamsError(f"{section}: its entries must stand on lines of their own to be added to; write them so")
