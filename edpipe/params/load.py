"""params.yaml from disk: one loader for every tool, and errors in one line each."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from edpipe.errors import ParamsError
from edpipe.params.schema import Params, check_references, nearest

PARAMS_PATH = Path("params.yaml")


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: 5e-2 is a number (YAML 1.2), and a key given twice is an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)
# PyYAML's own resolver for integers stands before ours in the list, so 5 stays an integer.


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = str(loader.construct_object(key_node))
        if key in seen and key != "<<":
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
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ParamsError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
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
        raise ParamsError("\n".join(dict.fromkeys(_one_line(raw, item) for item in error.errors()))) from None
    check_references(params)
    return params


def load_params(path: Path = PARAMS_PATH) -> Params:
    """Typed, checked knobs from params.yaml.

    Raises:
        ParamsError: one line for each thing that is wrong.
    """
    return parse_params(load_raw(path))


def _one_line(raw: dict[str, Any], item: Any) -> str:
    location = _real_location(raw, item["loc"])
    path = ".".join(str(part) for part in location) or "params.yaml"
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{path}: unknown key{nearest(str(location[-1]), _known_keys(raw, location[:-1]))}"
    if kind == "missing":
        return f"{path}: missing; it must be given"
    if kind == "value_error":
        return f"{path}: {context['error']}"
    if kind == "string_pattern_mismatch" and item["loc"][-1] == "[key]":
        return f"{path}: names are lower-case letters, digits and _, beginning with a letter"
    if kind in ("union_tag_invalid", "literal_error"):
        expected = context.get("expected_tags") or context["expected"]
        return f"{path}: {context.get('tag', item['input'])!r} is not allowed; allowed: {expected}"
    return f"{path}: got {_shown(item['input'])}; {item['msg'][0].lower()}{item['msg'][1:]}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _real_location(raw: object, location: tuple[Any, ...]) -> tuple[Any, ...]:
    """The location without the names of union members that pydantic puts in between."""
    kept, value = [], raw
    for i, part in enumerate(location):
        if part == "[key]":
            continue
        inside = (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int))
        if inside:
            value = value[part]  # type: ignore[index]
            kept.append(part)
        elif i == len(location) - 1 and isinstance(value, dict):
            kept.append(part)
    return tuple(kept)


def _known_keys(raw: object, location: tuple[Any, ...]) -> list[str]:
    """Keys that the model at this place has."""
    model: Any = Params
    value: Any = raw
    for part in location:
        value = value[part]
        model = _member(model, part, value)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _member(model: Any, part: Any, value: Any) -> Any:
    """Which type stands under `part` of `model`; of a union, the one that its tag names."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        annotation = model.model_fields[part].annotation
    else:
        annotation = model.__args__[-1]
    members = [m for m in _flatten(annotation) if isinstance(m, type) and issubclass(m, BaseModel)]
    if not members:
        return annotation
    tags = [value.get(tag) for tag in ("name", "kind")] if isinstance(value, dict) else []
    for member in members:
        if any(getattr(member.model_fields.get(t), "annotation", None) is not None for t in ("name", "kind")) and any(
            tag in getattr(member.model_fields[t].annotation, "__args__", ())
            for t in ("name", "kind")
            if t in member.model_fields
            for tag in tags
        ):
            return member
    return members[0]


def _flatten(annotation: Any) -> list[Any]:
    if hasattr(annotation, "__metadata__"):
        return _flatten(annotation.__origin__)
    if getattr(annotation, "__origin__", None) is dict:
        return [annotation]
    arguments = getattr(annotation, "__args__", None)
    return [m for a in arguments for m in _flatten(a)] if arguments else [annotation]
