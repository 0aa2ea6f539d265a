"""What pydantic found wrong with params.yaml, one line each: the path, the value, what is allowed."""

import re
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel

from edpipe.errors import MOST_LINES, nearest
from edpipe.params.plans.registered import Registered
from edpipe.params.schema import Params


def error_lines(raw: dict[str, Any], items: list[Any]) -> list[str]:
    """One line for each place; of a place that may hold values of several kinds, what each kind asks for.

    Beyond those that an error shows, a line is the place alone: looking for near names takes a while.
    """
    places: dict[tuple[Any, ...], list[Any]] = {}
    for item in items:
        places.setdefault(_real_location(raw, item["loc"], item["type"]), []).append(item)
    # Elements that are wrong are not counted: a list that is too short only for that reason is passed over.
    inner = {place[:depth] for place in places for depth in range(len(place))}
    short = {place for place, found in places.items() if place in inner and found[0]["type"] == "too_short"}
    wrong = [(place, found) for place, found in places.items() if place not in short]
    return [_one_line(raw, *each) for each in wrong[:MOST_LINES]] + [_path(place) for place, _ in wrong[MOST_LINES:]]


def _path(location: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in location) or "params.yaml"


def _one_line(raw: dict[str, Any], location: tuple[Any, ...], items: list[Any]) -> str:
    path = _path(location)
    item = items[0]
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{path}: {_unknown_key(str(location[-1]), _known_keys(raw, location[:-1]))}"
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
            f"{path}.{_discriminator(context)}: {context['tag']!r} is not allowed{_near_tag(context)}; "
            f"allowed: {context['expected_tags']}"
        )
    if len(items) == 1 and kind == "literal_error":
        return f"{path}: {item['input']!r} is not allowed; allowed: {context['expected']}"
    return f"{path}: got {_shown(item['input'])}; input should be {', or '.join(_wish(i['msg']) for i in items)}"


RENAMED = {
    "lessons": "classes",
    "panel": "teacher_weighting",
    "mixing": "subset_order",
    "learning_rate": "rate_schedule",
    "level": "feature_stage",
}
"""Old names of knobs; where the new name is known, the old one is pointed to it."""


def _unknown_key(key: str, known: Collection[str]) -> str:
    """
    >>> _unknown_key("lessons", ["classes", "replay"]), _unknown_key("replai", ["classes", "replay"])
    ("has a new name; write 'classes' instead", "unknown key; did you mean 'replay'?")
    """
    if RENAMED.get(key) in known:
        return f"has a new name; write '{RENAMED[key]}' instead"
    return f"unknown key{nearest(key, known)}"


def _near_tag(context: dict[str, Any]) -> str:
    """The nearest allowed name, if one is near; all of them follow in the line."""
    found = nearest(str(context["tag"]), re.findall(r"'([^']*)'", context["expected_tags"]))
    return found.removesuffix("?") if "did you mean" in found else ""


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
    r"^Dictionary should have (.*) after validation, not .*": r"a mapping with \1",
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
    if _is_model(model):
        field = model.model_fields[part]
        annotation, marks = field.annotation, field.metadata
    else:
        annotation = model.__args__[-1]
        marks = getattr(annotation, "__metadata__", ())
    registered = [member for mark in marks if isinstance(mark, Registered) for member in mark.members()]
    return registered or [m for m in _flatten(annotation) if _is_model(m)] or [annotation]


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
