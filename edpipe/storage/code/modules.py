"""One module of the package as definitions by name, read from its text and not run."""

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from edpipe.params.plans.registered import REGISTRY

PACKAGE = "edpipe"
BODY = "<body>"
"""Name of the statements of a module that define nothing, such as a call."""
TEMPLATE = "<template>"
"""Name of the templates that lie beside a module."""
SOURCES = (".py", ".jinja")
CONTAINERS = (ast.If, ast.Try, ast.With)


@dataclass(frozen=True)
class Module:
    """What one module defines and imports."""

    name: str
    definitions: dict[str, tuple[ast.stmt, ...]]
    """By name: a function, a class, or every statement that assigns it."""
    imports: dict[str, str]
    """By local name: the dotted name of a module, or of something in one."""
    templates: tuple[str, ...]
    """Texts of the templates beside it."""


@dataclass(frozen=True)
class SourceTree:
    """The package as it lies in one folder; of this one, or of another commit."""

    root: Path
    """Folder of the package itself."""

    @property
    def texts(self) -> Mapping[str, str]:
        """Of each module and template, by its path in the folder, its text when this process first looked."""
        return _texts(self.root)

    def file_of(self, module: str) -> Path | None:
        """Where a module lies; None for what is no module of the package or of a plugin."""
        first, *parts = module.split(".")
        if first in REGISTRY.sources:
            base = REGISTRY.sources[first].joinpath(first, *parts)
            return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
        name = _file_name(self.root, module)
        return None if name is None else self.root / name

    def module(self, name: str) -> Module:
        """A module by its dotted name.

        Raises:
            KeyError: the package has none of this name.
        """
        path = self.file_of(name)
        if path is None:
            raise KeyError(name)
        if name.split(".")[0] in REGISTRY.sources:
            return _parsed(name, _text_of_plugin(path), ())
        file = path.relative_to(self.root).as_posix()
        return _parsed(name, self.texts[file], _templates(self.root, file))

    def stems(self, folder: str) -> tuple[str, ...]:
        """Names of the modules in a folder of the package, sorted."""
        paths = [path for path in map(PurePosixPath, self.texts) if path.suffix == ".py" and str(path.parent) == folder]
        return tuple(sorted(path.stem for path in paths if path.stem != "__init__"))


@cache
def _texts(root: Path) -> Mapping[str, str]:
    found = {}
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names if name.endswith(SOURCES)):
            with suppress(OSError):  # an editor's dangling link
                text = path.read_text(encoding="utf-8", errors="surrogateescape")  # what is not UTF-8 cannot be parsed
                found[path.relative_to(root).as_posix()] = text
    return dict(sorted(found.items()))


@cache
def _text_of_plugin(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _file_name(root: Path, module: str) -> str | None:
    first, *parts = module.split(".")
    if first != PACKAGE:
        return None
    names = ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"]))
    return next((name for name in names if name in _texts(root)), None)


@cache
def _templates(root: Path, file: str) -> tuple[str, ...]:
    """Texts of the templates beside a module that begin with its name, and of those that they include."""
    own = PurePosixPath(file)
    there = (path for path in map(PurePosixPath, _texts(root)) if path.parent == own.parent)
    texts = {path.name: _texts(root)[str(path)] for path in there if path.suffix == ".jinja"}
    found = {name for name in texts if PurePosixPath(name).match(f"{own.stem}.*.jinja")}
    while added := {name for reached in found for name in _included(texts[reached])} & set(texts) - found:
        found |= added
    return tuple(texts[name] for name in sorted(found))


@cache
def _included(template: str) -> frozenset[str]:
    """Names of the templates that a template imports and includes."""
    from jinja2 import Environment, TemplateSyntaxError, meta  # a tenth of a second, for pages alone

    with suppress(TemplateSyntaxError):  # the job itself says what is wrong
        return frozenset(name for name in meta.find_referenced_templates(Environment().parse(template)) if name)
    return frozenset()


@cache
def _parsed(name: str, text: str, templates: tuple[str, ...]) -> Module:
    tree = ast.parse(text)
    definitions: dict[str, tuple[ast.stmt, ...]] = {}
    for statement in tree.body:
        for defined in _defined_names(statement):
            definitions[defined] = (*definitions.get(defined, ()), statement)
    return Module(name, definitions, imports_in(_outside_definitions(tree.body)), templates)


def _defined_names(statement: ast.stmt) -> tuple[str, ...]:
    """What a statement of a module defines; `BODY` for one that runs without defining anything."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.Assign(targets=targets):
            return _assigned_names(targets) or (BODY,)
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            return (name,)
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return ()
        case ast.If() | ast.Try() | ast.With():
            inner = [name for node in statement_bodies(statement) for name in _defined_names(node)]
            return tuple(dict.fromkeys(inner))
    return (BODY,)


def _assigned_names(targets: list[ast.expr]) -> tuple[str, ...]:
    nodes = (node for target in targets for node in ast.walk(target))
    return tuple(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))


def statement_bodies(statement: ast.stmt) -> list[ast.stmt]:
    """The statements inside an `if`, `try` or `with` of a module."""
    found: list[ast.stmt] = []
    for part in ("body", "orelse", "finalbody"):
        found += getattr(statement, part, [])
    for handler in getattr(statement, "handlers", []):
        found += handler.body
    return found


def _outside_definitions(body: Iterable[ast.stmt]) -> list[ast.stmt]:
    """The statements of a module that run when it is imported, those inside an `if`, `try` or `with` included."""
    found: list[ast.stmt] = []
    for statement in body:
        found += _outside_definitions(statement_bodies(statement)) if isinstance(statement, CONTAINERS) else [statement]
    return found


def imports_in(statements: Iterable[ast.AST]) -> dict[str, str]:
    """What import statements among these bring in: local name → dotted name.

    Raises:
        ValueError: `from … import *`, a relative import, or one name for two things, which cannot be followed.
    """
    found: dict[str, str] = {}
    for node in statements:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for name, target in _imported(node):
            if found.setdefault(name, target) != target:
                raise ValueError(f"line {node.lineno}: {name!r} is imported as {found[name]} and as {target}")
    return found


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Local name and dotted name of each thing that one statement imports."""
    for alias in node.names:
        if isinstance(node, ast.Import):
            # `import a.b` brings in `a`; its attributes are followed from there.
            first = alias.name.split(".")[0]
            yield alias.asname or first, alias.name if alias.asname else first
        elif node.level or alias.name == "*":
            raise ValueError(f"line {node.lineno}: a relative import, or one of everything, cannot be followed")
        else:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"
