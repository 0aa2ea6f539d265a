"""What a name in params.yaml may stand for when plugins can add to it: methods, losses, networks and readers.

The classes themselves are found by `edpipe.params.plans.plugins`; here is how pydantic chooses among them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

Kind = Literal["methods", "losses", "stage_losses"]
Found = dict[str, Any]
"""By name: a class of knobs, or a function."""


@dataclass
class Registry:
    """All that is known by name."""

    methods: dict[str, type[BaseModel]] = field(default_factory=dict)
    losses: dict[str, type[BaseModel]] = field(default_factory=dict)
    """Losses against a teacher."""
    stage_losses: dict[str, type[BaseModel]] = field(default_factory=dict)
    """Losses of whole stages."""
    networks: dict[str, Callable[..., Any]] = field(default_factory=dict)
    """Of plugins alone; those of the package are in `edpipe.models.zoo`."""
    readers: dict[str, Callable[..., Any]] = field(default_factory=dict)
    """Of plugins alone; those of the package are in `edpipe.datasets.readers`."""
    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By unit of code, such as "losses.my_loss": module and name of what a plugin defines."""
    sources: dict[str, Path] = field(default_factory=dict)
    """By top-level module of plugins, and of those beside them: the folder in which it lies."""


REGISTRY = Registry()
"""Filled by `edpipe.params.plans.plugins`."""


def tag_values(model: type[BaseModel], tag: str) -> tuple[str, ...]:
    """The names that a class of knobs answers to: the values of the literal at its tag."""
    annotation = model.model_fields[tag].annotation if tag in model.model_fields else None
    return get_args(annotation) if get_origin(annotation) is Literal else ()


@dataclass(frozen=True)
class Registered:
    """Marks a field that holds one of the registered classes, chosen by the value of its tag."""

    kind: Kind
    tag: str
    only: str = ""
    """Name of a class variable that must be true for a class to be allowed here."""
    unknown: type[BaseModel] | None = None
    """Stands for names that are not registered, in files that other programs may have written."""

    def members(self) -> tuple[type[BaseModel], ...]:
        """The classes that may stand here, in order of their names."""
        from edpipe.params.plans.plugins import load_built_in

        load_built_in()
        found = getattr(REGISTRY, self.kind)
        allowed = [found[name] for name in sorted(found) if not self.only or getattr(found[name], self.only)]
        return tuple(dict.fromkeys(allowed))

    def _adapter(self) -> TypeAdapter:
        return _adapter(self.members(), self.tag)

    def _validate(self, value: object) -> object:
        adapter = self._adapter()
        if self.unknown is not None:
            name = value.get(self.tag) if isinstance(value, dict) else None
            is_unknown = isinstance(name, str) and name not in getattr(REGISTRY, self.kind)
            if is_unknown or isinstance(value, self.unknown):
                return self.unknown.model_validate(value)
        return adapter.validate_python(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(_plain, when_used="always"),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(self._adapter().core_schema)


def _plain(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json")


_ADAPTERS: dict[tuple[type[BaseModel], ...], TypeAdapter] = {}


def _adapter(members: tuple[type[BaseModel], ...], tag: str) -> TypeAdapter:
    if members not in _ADAPTERS:
        union: Any = Union[members]  # noqa: UP007  (made from a tuple)
        chosen: Any = union if len(members) == 1 else Annotated[union, Field(discriminator=tag)]
        _ADAPTERS[members] = TypeAdapter(chosen)
    return _ADAPTERS[members]
