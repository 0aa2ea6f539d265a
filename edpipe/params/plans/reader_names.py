"""Names of readers: those of the package, and those of plugins."""

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from edpipe.errors import nearest
from edpipe.params.plans.registered import REGISTRY

READERS = (
    "caltech101",
    "caltech256",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "folder",
    "food101",
    "huggingface",
    "imagenet",
    "svhn",
    "tiny_imagenet",
)
"""Readers of the package."""


class KnownReader:
    """Marks a text that names a reader of the package or of a plugin."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_known_reader, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": list(reader_names())}


def reader_names() -> tuple[str, ...]:
    """All readers that are known, sorted."""
    return tuple(sorted((*READERS, *REGISTRY.readers)))


def _known_reader(name: str) -> str:
    if name not in reader_names():
        raise ValueError(f"{name!r} is not allowed{nearest(name, reader_names())}")
    return name
