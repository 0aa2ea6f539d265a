"""params.yaml from disk: one loader for every tool, and errors in one line each."""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ValidationError

from edpipe.errors import ParamsError
from edpipe.params.lineage import check_lineage
from edpipe.params.nearest import nearest
from edpipe.params.schema import Params, check_references

PARAMS_PATH = Path("params.yaml")


class _Loader(yaml.SafeLoader):
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
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _DECIMAL, list("-+0123456789."))


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 0 if text.lstrip("-+")[:2] in ("0o", "0x", "0b") else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
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


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


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
        raw = yaml.load(text, Loader=_Loader)
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


def parse_params(raw: dict[str, Any]) -> Params:
    """Typed, checked knobs from plain values.

    Raises:
        ParamsError: one line for each thing that is wrong.
    """
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError("\n".join(_lines(raw, error.errors()))) from None
    check_references(params)
    check_lineage(params)
    return params


def load_params(path: Path = PARAMS_PATH) -> Params:
    """Typed, checked knobs from params.yaml.

    Raises:
        ParamsError: one line for each thing that is wrong.
    """
    return parse_params(load_raw(path))


def _lines(raw: dict[str, Any], items: list[Any]) -> list[str]:
    """One line for each place; of a place that may hold values of several kinds, what each kind asks for."""
    places: dict[tuple[Any, ...], list[Any]] = {}
    for item in items:
        places.setdefault(_real_location(raw, item["loc"], item["type"]), []).append(item)
    # Elements that are wrong are not counted: a list that is too short only for that reason is passed over.
    inner = {place[:-1] for place in places}
    short = {place for place, found in places.items() if place in inner and found[0]["type"] == "too_short"}
    return [_one_line(raw, place, found) for place, found in places.items() if place not in short]


def _one_line(raw: dict[str, Any], location: tuple[Any, ...], items: list[Any]) -> str:
    path = ".".join(str(part) for part in location) or "params.yaml"
    item = items[0]
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{path}: unknown key{nearest(str(location[-1]), _known_keys(raw, location[:-1]))}"
    if kind == "missing":
        return f"{path}: missing; it must be given"
    if kind == "union_tag_not_found":
        tag = _discriminator(context)
        return f"{path}.{tag}: missing; it must be given, one of {', '.join(_tags(raw, location, tag))}"
    if kind == "value_error":
        return f"{path}: {context['error']}"
    if kind == "string_pattern_mismatch" and item["loc"][-1] == "[key]":
        return f"{path}: names are lower-case letters, digits and _, beginning with a letter"
    if kind == "union_tag_invalid":
        return (
            f"{path}.{_discriminator(context)}: {context['tag']!r} is not allowed; allowed: {context['expected_tags']}"
        )
    if len(items) == 1 and kind == "literal_error":
        return f"{path}: {item['input']!r} is not allowed; allowed: {context['expected']}"
    return f"{path}: got {_shown(item['input'])}; input should be {', or '.join(_wish(i['msg']) for i in items)}"


def _discriminator(context: dict[str, Any]) -> str:
    return str(context["discriminator"]).strip("'")


def _wish(message: str) -> str:
    """What pydantic asks for, in the words of YAML.

    >>> _wish("Input should be a valid dictionary or instance of StageKnobs")
    'a mapping'
    """
    for pattern, words in _WISHES.items():
        message = re.sub(pattern, words, message)
    return message


_WISHES = {
    r"^Input should be ": "",
    r"^(Tuple|List) should have (.*) after validation, not .*": r"a list with \2",
    r"^String should match pattern": "a text that matches",
    r"valid dictionary.*": "mapping",
    r"valid tuple": "list",
    r"a valid string": "a text",
    r"a valid integer": "a whole number",
    r"a valid number": "a number",
    r"a valid boolean": "true or false",
}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _real_location(raw: object, location: tuple[Any, ...], kind: str) -> tuple[Any, ...]:
    """The location without the names of union members that pydantic puts in between, and after a group as a whole."""
    kept, value = [], raw
    for i, part in enumerate(location):
        if part == "[key]":
            continue
        inside = (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int))
        if inside:
            value = value[part]  # type: ignore[index]
            kept.append(part)
        elif i == len(location) - 1 and isinstance(value, dict) and kind != "value_error":
            kept.append(part)
    return tuple(kept)


def _known_keys(raw: object, location: tuple[Any, ...]) -> list[str]:
    """Keys that the model at this place has."""
    model: Any = Params
    value: Any = raw
    for part in location:
        value = value[part]
        model = _member(model, part, value)
    return list(model.model_fields) if _is_model(model) else []


def _tags(raw: object, location: tuple[Any, ...], tag: str) -> list[str]:
    """Names of the union members that may stand at this place."""
    model: Any = Params
    value: Any = raw
    for part in location[:-1]:
        value = value[part]
        model = _member(model, part, value)
    return [repr(name) for m in _members(model, location[-1]) for name in m.model_fields[tag].annotation.__args__]


def _members(model: Any, part: Any) -> list[Any]:
    """The models that may stand under `part` of `model`."""
    annotation = model.model_fields[part].annotation if _is_model(model) else model.__args__[-1]
    return [m for m in _flatten(annotation) if _is_model(m)] or [annotation]


def _member(model: Any, part: Any, value: Any) -> Any:
    """Which type stands under `part` of `model`; of a union, the one that its tag names."""
    members = _members(model, part)
    tags = [value.get(tag) for tag in ("name", "kind")] if isinstance(value, dict) else []
    for member in members if len(members) > 1 else ():
        fields = [member.model_fields[tag] for tag in ("name", "kind") if tag in member.model_fields]
        if any(tag in getattr(field.annotation, "__args__", ()) for field in fields for tag in tags):
            return member
    return members[0]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _flatten(annotation: Any) -> list[Any]:
    if hasattr(annotation, "__metadata__"):
        return _flatten(annotation.__origin__)
    if getattr(annotation, "__origin__", None) is dict:
        return [annotation]
    arguments = getattr(annotation, "__args__", None)
    return [m for a in arguments for m in _flatten(a)] if arguments else [annotation]
