"""Every knob of params.yaml as a page for people: docs/params.md, written from the same schema that checks the file."""

from collections.abc import Iterator
from typing import Any

from edpipe.params.schema import Params

_HEADER = """# Every knob of params.yaml

Written by `edpipe knobs > docs/params.md`; do not edit. `<name>` is a name of your own: lower-case letters, digits and
_. An unknown key is an error at any depth, and so is a key given twice. Numbers are YAML 1.2: `5e-2` is a number.
"""
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
_RANGES = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minItems": "{} or more",
    "pattern": "matches `{}`",
}
_NAME_PATTERN = "^[a-z][a-z0-9_]*$"
Schema = dict[str, Any]


def reference_page() -> str:
    """The page, in Markdown: one section for each of params.yaml, one row for each knob."""
    schema = Params.model_json_schema()
    parts = [_HEADER]
    for name, section in schema["properties"].items():
        parts.append(f"\n## {name}\n\n{section['description']}\n\n| knob | type | default | range | meaning |")
        parts.append("\n|---|---|---|---|---|\n")
        parts += [_row(*cells) for cells in _knobs(name, section, schema["$defs"], name in schema["required"])]
    return "".join(parts)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _knobs(path: str, schema: Schema, kinds: Schema, required: bool) -> Iterator[tuple[str, str, str, str, str]]:
    """Cells of the rows of one knob and all below it."""
    entries, models = _entries(schema), _models(schema, kinds)
    if entries is not None and _models(entries, kinds):
        yield from _knobs(f"{path}.<name>", entries, kinds, required)
        return
    if not models or _may_be_null(schema):
        default = "required" if required else f"`{_shown(schema.get('default'))}`"
        type_ = "group" if models else _type(schema)
        yield f"`{path}`", type_, default, _range(schema), schema["description"].replace("<", "\\<")
    for model in _models(_items(schema), kinds):
        yield from _knobs_of_model(f"{path}[]", model, kinds)
    for model in models:
        yield from _knobs_of_model(path, model, kinds)


def _knobs_of_model(path: str, model: Schema, kinds: Schema) -> Iterator[tuple[str, str, str, str, str]]:
    # The tag of a union comes first: it says of which member the rows below are.
    for name, schema in sorted(model["properties"].items(), key=lambda item: "const" not in item[1]):
        described = {"description": model["description"], **schema} if "const" in schema else schema
        yield from _knobs(f"{path}.{name}", described, kinds, name in model.get("required", ()))


def _models(schema: Schema, kinds: Schema) -> list[Schema]:
    """The groups of knobs that may stand here."""
    members = schema.get("oneOf") or schema.get("anyOf") or [schema]
    return [kinds[m["$ref"].rpartition("/")[2]] for m in members if "$ref" in m]


def _may_be_null(schema: Schema) -> bool:
    return any(member.get("type") == "null" for member in schema.get("anyOf", ()))


def _entries(schema: Schema) -> Schema | None:
    """What stands under the names of a mapping."""
    return next(iter(schema.get("patternProperties", {}).values()), None)


def _items(schema: Schema) -> Schema:
    """What a list holds; nothing where there is no list."""
    lists = [member for member in (schema, *schema.get("anyOf", ())) if member.get("type") == "array"]
    return lists[0]["items"] if lists else {}


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return "groups"
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{_shown(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        types = [_type(member) for member in schema["anyOf"] if member.get("type") != "null"]
        # What is null by default is left out instead; else null has a meaning of its own.
        is_word = _may_be_null(schema) and schema.get("default", "none") is not None
        return " or ".join([*types, "`null`"] if is_word else types)
    entries = _entries(schema)
    if entries is not None:
        return f"mapping of names to {_type(entries)}"
    if "type" not in schema:
        return "value"
    if schema["type"] == "object":
        return f"mapping of texts to {_type(schema['additionalProperties'])}"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    return "name" if schema.get("pattern") == _NAME_PATTERN else _TYPES[schema["type"]]


def _range(schema: Schema) -> str:
    stated = {key: schema[key] for key in _RANGES if key in schema and schema[key] != _NAME_PATTERN}
    inner = [_range(member) for member in (*schema.get("anyOf", ()), schema.get("items", {})) if member]
    return ", ".join([*(_RANGES[key].format(value) for key, value in stated.items()), *filter(None, inner)])


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "absent"}[value]
    if isinstance(value, dict) and not value:
        return "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
