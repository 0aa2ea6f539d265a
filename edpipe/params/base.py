"""What all knobs have in common: read-only, complete, unknown keys refused."""

import json
from dataclasses import fields, is_dataclass

from pydantic import BaseModel, ConfigDict


class Knobs(BaseModel):
    """A group of values from params.yaml; frozen, with unknown keys refused at any depth."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def canonical_json(value: object) -> str:
    """One text for equal values, whatever the order of their keys; knobs are written with all defaults.

    >>> canonical_json({"b": 1, "a": 0.05})
    '{"a":0.05,"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")
