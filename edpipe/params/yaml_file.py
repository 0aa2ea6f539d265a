"""The text of params.yaml as plain values: YAML 1.2, read by ruamel.yaml with the settings of DVC."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode

from edpipe.errors import ParamsError

PARAMS_PATH = Path("params.yaml")
DEEPEST = 50
"""Levels of nesting; the library that reads YAML crashes on very many."""


LARGEST_BYTES = 4_000_000
"""The class names of ImageNet-21k, in a partition, take 0.7 MB; reading takes a second a megabyte."""


class _Constructor(SafeConstructor):
    """Plain values; keys are texts, and each is given once."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise _shared(key_node.start_mark.line, "the merge key '<<'")
            key = str(self.construct_object(key_node, deep=True))
            if key in mapping:
                raise ParamsError(f"line {key_node.start_mark.line + 1}: key '{key}' is given twice; keep one")
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def load_raw(path: Path = PARAMS_PATH) -> dict[str, Any]:
    """params.yaml as plain values.

    Raises:
        ParamsError: missing, a pipe, larger than `LARGEST_BYTES`, or see `parse_text`.
    """
    try:
        text = _read_text(path)
    except FileNotFoundError as error:
        raise ParamsError(
            f"{path}: not found; run edpipe in the folder that holds params.yaml, or make one with `edpipe init FOLDER`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read: {error}") from error
    return parse_text(text, path)


def _read_text(path: Path) -> str:
    """No more of the file is read than may be in it: it may be a device without end."""
    if path.is_fifo():  # nobody may ever write to it
        raise ParamsError(f"{path}: is a pipe; it must be a file")
    with path.open("rb") as stream:
        data = stream.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise ParamsError(f"{path}: is larger than {LARGEST_BYTES:,} bytes; remove what is no knob from it")
    return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def parse_text(text: str, path: Path = PARAMS_PATH) -> dict[str, Any]:
    """The text of params.yaml as plain values.

    Raises:
        ParamsError: not YAML, not a mapping, a key given twice, or an anchor, alias, merge key or tag; it names `path`.
    """
    # Not pure=True: DVC does not use it, and it takes five times as long.
    yaml = YAML(typ="safe")
    yaml.Constructor = _Constructor
    try:
        _check_events(text)
        raw = yaml.load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ParamsError(f"{where}: not valid YAML: {what}") from error
    except (ValueError, RecursionError) as error:
        raise ParamsError(f"{path}: a value cannot be read: {' '.join(str(error).split())[:200]}") from error
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from error
    if not isinstance(raw, dict):
        raise ParamsError(f"{path}: must be a mapping of sections, got {type(raw).__name__}")
    return raw


def _check_events(text: str) -> None:
    """That every value is written where it is used, without a tag, and not too deep."""
    depth = 0
    for event in YAML(typ="safe").parse(text):
        line, anchor, tag = event.start_mark.line, getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            is_alias = isinstance(event, AliasEvent)
            raise _shared(line, f"the alias '*{anchor}'" if is_alias else f"the anchor '&{anchor}'")
        if tag is not None:
            name = tag.replace("tag:yaml.org,2002:", "!!")
            raise ParamsError(f"line {line + 1}: the tag '{name}' is not allowed; write the value without it")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEEPEST:
            raise ParamsError(f"line {line + 1}: more than {DEEPEST} levels of nesting; write it with fewer")


def _shared(line: int, what: str) -> ParamsError:
    return ParamsError(
        f"line {line + 1}: {what} is not allowed: `dvc exp run -S` would change every place that shares the value; "
        "write the value out at each place"
    )
