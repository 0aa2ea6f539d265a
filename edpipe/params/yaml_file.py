"""The text of params.yaml as plain values: YAML 1.2 as DVC reads it."""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from edpipe.errors import ParamsError

PARAMS_PATH = Path("params.yaml")


class Yaml12Loader(yaml.SafeLoader):
    """YAML 1.2 as DVC reads it: 5e-2 is a number, yes is a word, 010 is ten; a key given twice is an error."""

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in ("bool", "int", "float")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_WHOLE = re.compile(r"[-+]?([0-9][0-9_]*|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)$")


_DECIMAL = re.compile(
    r"[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


# The first that fits is taken: 5 is a whole number, 5. and 5e1 are not.
Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))


Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:float", _DECIMAL, list("-+0123456789."))


def _whole_number(loader: Yaml12Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 0 if text.lstrip("-+")[:2] in ("0o", "0x", "0b") else 10)


Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def _mapping(loader: Yaml12Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = str(loader.construct_object(key_node))
        if key in seen:
            raise ParamsError(f"line {key_node.start_mark.line + 1}: key '{key}' is given twice; keep one")
        seen.add(key)
    loader.flatten_mapping(node)
    return {str(loader.construct_object(k)): loader.construct_object(v, deep=True) for k, v in node.value}


Yaml12Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_raw(path: Path = PARAMS_PATH) -> dict[str, Any]:
    """params.yaml as plain values.

    Raises:
        ParamsError: missing, not YAML, not a mapping, or a key given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: not found; run edpipe in the folder that holds params.yaml") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read: {error}") from error
    return parse_text(text, path)


def parse_text(text: str, path: Path = PARAMS_PATH) -> dict[str, Any]:
    """The text of params.yaml as plain values.

    Raises:
        ParamsError: not YAML, not a mapping, or a key given twice; it names `path`.
    """
    try:
        raw = yaml.load(text, Loader=Yaml12Loader)
    except yaml.YAMLError as error:
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
