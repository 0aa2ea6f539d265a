"""The package keeps to what the analysis of its code (edpipe/storage/code) can follow: names, nothing behind them."""

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from edpipe.storage.code.units import closure_of, unit_names
from edpipe.storage.code.versions import HERE

PACKAGE = Path(__file__).resolve().parents[2] / "edpipe"
MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path for path in PACKAGE.rglob("*.py")
}
DECORATORS = {
    "cache", "cached_property", "classmethod", "contextmanager", "dataclass", "field_validator", "lru_cache",
    "model_serializer", "model_validator", "property", "runtime_checkable", "staticmethod",
}  # fmt: skip
"""None of them puts what it decorates into a table where it is found by another name."""
VALIDATORS = {"AfterValidator", "BeforeValidator", "PlainValidator", "WrapValidator"}
WITH_KNOBS = ("params.", "methods.", "pipeline.jobs.", "cli.")
"""Where knobs are made from params.yaml; elsewhere a default that is left out would be seen by no digest."""


@cache
def tree(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def last_name(node):
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "?")


def nodes(kind):
    return [(name, node) for name in MODULES for node in ast.walk(tree(name)) if isinstance(node, kind)]


def test_decorators_are_known():
    decorated = nodes((ast.FunctionDef, ast.ClassDef))
    found = {(last_name(d), name) for name, node in decorated for d in node.decorator_list}
    assert {pair for pair in found if pair[0] not in DECORATORS} == set()
    assert not [name for name, node in decorated for d in node.decorator_list if last_name(d) == "register"]


def test_nothing_is_imported_for_its_effect():
    for name, path in MODULES.items():
        assert "noqa: F401" not in path.read_text(encoding="utf-8"), name


def test_no_annotation_computes():
    used = {node.id for _, node in nodes(ast.Name)} | {node.attr for _, node in nodes(ast.Attribute)}
    assert not used & VALIDATORS


def test_classes_of_knobs_hold_fields_and_no_constants():
    for name, node in nodes(ast.ClassDef):
        is_enum = any("Enum" in ast.unparse(base) for base in node.bases)
        if name.startswith("params.") and not is_enum:
            for part in node.body:
                constants = [t.id for t in part.targets] if isinstance(part, ast.Assign) else []
                assert constants in ([], ["model_config"]), f"{name}.{node.name}"
                # Class variables of losses and methods count, see storage.code.normal_form.
                is_variable = isinstance(part, ast.AnnAssign) and "ClassVar" in ast.unparse(part.annotation)
                assert not is_variable or name.startswith("params.plans."), node.name


def knobs_made(name):
    """Calls that make knobs by name in a module: the class, and the fields that are given."""
    module = importlib.import_module(f"edpipe.{name}")
    for node in ast.walk(tree(name)):
        if not isinstance(node, ast.Call):
            continue
        func, fields = node.func, {k.arg for k in node.keywords}
        if isinstance(func, ast.Attribute) and func.attr == "model_validate" and isinstance(func.value, ast.Name):
            given = node.args[0]
            func, fields = func.value, {k.value for k in given.keys if k} if isinstance(given, ast.Dict) else None
        made = getattr(module, func.id, None) if isinstance(func, ast.Name) else None
        if isinstance(made, type) and issubclass(made, BaseModel) and made.__module__.startswith("edpipe.params."):
            yield made, fields


@pytest.mark.slow
def test_knobs_that_are_made_by_steps_leave_no_field_to_its_default():
    made = 0
    reached = {
        place.module.removeprefix("edpipe.") for unit in unit_names(HERE) for place in closure_of(HERE, unit).meaning
    }
    for name in reached:
        if not name.startswith(WITH_KNOBS):
            for knobs, fields in knobs_made(name):
                made += 1
                assert fields is None or None in fields or fields >= set(knobs.model_fields), (
                    f"{name}: {knobs.__name__}"
                )
    assert made >= 3


def test_texts_of_people_are_left_out_only_where_they_are_for_people():
    """A function of the package that is named as one for people, or as an error, must be one."""
    for name, node in nodes(ast.FunctionDef):
        assert node.name not in ("print", "warn"), name
        assert node.name != "announce" or name == "runtime.progress"
        assert not node.name.endswith(("Error", "Exception", "Warning")), name
    for name, node in nodes(ast.Call):
        if last_name(node) == "print" and isinstance(node.func, ast.Name):
            files = [ast.unparse(k.value) for k in node.keywords if k.arg == "file"]
            assert files in ([], ["sys.stderr"], ["self._stream"]), name
