"""Which definitions of the package a piece of code names, and for what: to compute, to annotate, to say something."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from edpipe.params.plans.registered import REGISTRY
from edpipe.storage.code.modules import PACKAGE, Module, SourceTree, imports_in

SAYING = ("announce", "print")
"""Functions whose texts are for people."""
ERROR_NAMES = ("Error", "Exception", "Warning")
RECORDED = ("UnreadableImageError",)
"""Errors whose texts a record may hold."""


class Place(NamedTuple):
    """One definition: dotted name of its module, and its name there."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Use(StrEnum):
    """What a name is used for."""

    MEANING = "meaning"
    ANNOTATION = "annotation"
    """Of a parameter, a result or a variable: whose methods may be called."""
    TEXT = "text"
    """In the text of an error or of a line for people."""


@dataclass
class Names:
    """Resolves the names in one definition."""

    tree: SourceTree
    module: Module
    local_imports: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def within(cls, tree: SourceTree, module: Module, node: ast.AST) -> "Names":
        """Those of a definition, with the imports inside it."""
        return cls(tree, module, imports_in(ast.walk(node)))

    def dotted(self, node: ast.expr) -> str | None:
        """The full dotted name that a name or a chain of attributes stands for; None for anything else.

        A name of a builtin or of a local variable stands for itself.
        """
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return None if base is None else f"{base}.{node.attr}"
        if not isinstance(node, ast.Name):
            return None
        if node.id in self.local_imports:
            return self.local_imports[node.id]
        if node.id in self.module.definitions:
            return f"{self.module.name}.{node.id}"
        return self.module.imports.get(node.id, node.id)

    def places(self, dotted: str) -> tuple[Place, ...]:
        """The definitions that a dotted name stands for; a module alone stands for all of its own."""
        return _places(self.tree, dotted)


def _places(tree: SourceTree, dotted: str) -> tuple[Place, ...]:
    parts = dotted.split(".")
    if parts[0] != PACKAGE and parts[0] not in REGISTRY.sources:
        return ()
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if tree.file_of(name) is None:
            continue
        module = tree.module(name)
        if length == len(parts):
            return tuple(Place(name, definition) for definition in module.definitions)
        inner = parts[length]
        if inner in module.definitions:
            return (Place(name, inner),)
        return _places(tree, module.imports[inner]) if inner in module.imports else ()
    return ()


def references(names: Names, node: ast.AST, use: Use = Use.MEANING) -> Iterator[tuple[Place, Use]]:
    """Every definition that the code below `node` names."""
    for child, its_use in _children(names, node, use):
        if isinstance(child, ast.expr) and (dotted := names.dotted(child)) is not None:
            yield from ((place, its_use) for place in names.places(dotted))
        else:
            yield from references(names, child, its_use)


def _children(names: Names, node: ast.AST, use: Use) -> Iterator[tuple[ast.AST, Use]]:
    annotations = {id(child) for child in annotations_of(node)}
    saying = is_saying(node)
    for child in ast.iter_child_nodes(node):
        if id(child) in annotations:
            its_use = Use.ANNOTATION if use is Use.MEANING else use
        elif (saying and is_text(child)) or (isinstance(node, ast.Assert) and child is node.msg):
            its_use = Use.TEXT
        else:
            its_use = use
        if isinstance(child, ast.Constant) and isinstance(child.value, str) and its_use is Use.ANNOTATION:
            yield from _quoted(child.value, its_use) if not _is_for_readers(names.module) else ()
        else:
            yield child, its_use


def _is_for_readers(module: Module) -> bool:
    """Whether annotations in quotes only inform: `params` names in them what it cannot import, and never runs it."""
    return module.name.startswith(f"{PACKAGE}.params.")


def _quoted(annotation: str, use: Use) -> Iterator[tuple[ast.AST, Use]]:
    """The expression in an annotation in quotes; jaxtyping's axes are no expressions."""
    try:
        yield ast.parse(annotation, mode="eval").body, use
    except SyntaxError:
        return


def annotations_of(node: ast.AST) -> list[ast.expr]:
    """The annotations that a node has itself."""
    match node:
        case ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns):
            return [] if returns is None else [returns]
        case ast.arg(annotation=annotation):
            return [] if annotation is None else [annotation]
        case ast.AnnAssign(annotation=annotation):
            return [annotation]
    return []


def is_saying(node: ast.AST) -> bool:
    """Whether a node is a call that makes an error or says something to people.

    >>> is_saying(ast.parse("ParamsError('no')", mode="eval").body), is_saying(ast.parse("f('no')", mode="eval").body)
    (True, False)
    """
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        is_warning = node.func.attr == "warn" and getattr(node.func.value, "id", "") == "warnings"
        return is_warning or node.func.attr.endswith(ERROR_NAMES)
    name = getattr(node.func, "id", "")
    return name in SAYING or (name.endswith(ERROR_NAMES) and name not in RECORDED)


def is_text(node: ast.AST) -> bool:
    """Whether an argument is a text that is written here: a constant, or one with values filled in."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return is_text(node.left) or is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
