"""A definition as a text that keeps what can change a result, and leaves out what cannot.

Left out: comments, formatting and docstrings; annotations of parameters, results and variables; texts of errors and of
lines for people; descriptions of knobs. Names stand as full dotted names, so that the same word for something else is
another text. Annotations of a class's own fields stay, for dataclasses and pydantic read them.

Of classes of knobs, fields and validators are left out as well: a job's knobs are compared by their values. Of
`errors`, which only makes texts, the names and bases of classes stay.
"""

import ast
from collections.abc import Iterator

from edpipe.storage.code.modules import PACKAGE
from edpipe.storage.code.references import Names, annotations_of, is_saying, is_text

IGNORED_FIELDS = ("ctx", "kind", "type_comment", "type_ignores", "returns")
NEWER_FIELDS = ("type_params",)
"""That an older Python does not have; empty in code that it reads."""
FIELD = "pydantic.Field"
VALIDATORS = ("model_validator", "field_validator")
ERRORS = f"{PACKAGE}.errors"
KNOB_BASES = ("Knobs", "TeacherLoss", "StageLoss", "Method", "DistillMethod", "SingleTeacherMethod")
"""Classes of knobs from which losses and methods derive."""
PLANNED = ("summary", "method_defaults", "default_weight", "for_levels")
"""Class variables of a loss that say nothing of what it computes."""
TEXT_HOOKS = ("text", "page_text")
"""Functions of losses and methods that make texts for the report page."""


def normal_form(names: Names, node: ast.AST) -> str:
    """The text of one definition; equal texts compute the same.

    >>> from edpipe.storage.code.modules import Module, SourceTree
    >>> from pathlib import Path
    >>> names = Names(SourceTree(Path()), Module("edpipe.m", {}, {"np": "numpy"}, ()))
    >>> normal_form(names, ast.parse("x: int = np.sum( a )  # why").body[0])
    "Assign([Name('x')],Call(Name('numpy.sum'),[Name('a')],[]))"
    """
    return _form(names, node, in_class=False)


def _form(names: Names, value: object, in_class: bool) -> str:
    if isinstance(value, list):
        parts = [_form(names, part, in_class) for part in value if not _is_left_out(part)]
        return f"[{','.join(parts)}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    if isinstance(value, ast.expr) and (dotted := names.dotted(value)) is not None:
        return f"Name({dotted!r})"
    if isinstance(value, ast.ClassDef):
        return _class_form(names, value)
    if isinstance(value, ast.AnnAssign) and not in_class:
        return f"Assign([{_form(names, value.target, False)}],{_form(names, value.value, False)})"
    parts = [_form(names, part, False) for part in _parts(names, value)]
    return f"{type(value).__name__}({','.join(parts)})"


def _class_form(names: Names, node: ast.ClassDef) -> str:
    body = [part for part in node.body if not (_is_knobs(names, node) and _is_field_or_validator(part))]
    body = [] if names.module.name == ERRORS else body
    heads = [_form(names, part, False) for part in (node.bases, node.keywords, node.decorator_list)]
    return f"ClassDef({node.name!r},{','.join(heads)},{_form(names, body, in_class=True)})"


def _is_knobs(names: Names, node: ast.ClassDef) -> bool:
    """Whether a class holds knobs of jobs; those of other files that derive from `Knobs` are formats of artifacts."""
    in_methods = names.module.name.startswith(f"{PACKAGE}.methods.") or not names.module.name.startswith(f"{PACKAGE}.")
    bases = [names.dotted(base) or "" for base in node.bases]
    return names.module.name.startswith(f"{PACKAGE}.params.") or (
        in_methods and any(base.rpartition(".")[2] in KNOB_BASES for base in bases)
    )


def _is_field_or_validator(part: ast.stmt) -> bool:
    """Fields, but not class variables that the code reads: those of planning and of texts are values of the plan."""
    if isinstance(part, ast.AnnAssign):
        is_variable = any(getattr(node, "id", "") == "ClassVar" for node in ast.walk(part.annotation))
        return not is_variable or getattr(part.target, "id", "") in PLANNED
    return _is_validator(part) or getattr(part, "name", "") in TEXT_HOOKS


def _is_validator(part: ast.stmt) -> bool:
    called = [d.func if isinstance(d, ast.Call) else d for d in getattr(part, "decorator_list", ())]
    return any(getattr(d, "id", "") in VALIDATORS for d in called)


def _is_left_out(part: object) -> bool:
    """Docstrings, and imports from this package, whose names are resolved."""
    if isinstance(part, ast.Expr):
        return isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)
    return isinstance(part, ast.ImportFrom) and (part.module or "").split(".")[0] == PACKAGE


def _parts(names: Names, node: ast.AST) -> Iterator[object]:
    """The fields of a node that count, absent ones as well: `x[1:]` and `x[:1]` differ in nothing else."""
    annotations = {id(part) for part in annotations_of(node)} if not isinstance(node, ast.AnnAssign) else set()
    saying = is_saying(node)
    is_field = isinstance(node, ast.Call) and names.dotted(node.func) == FIELD
    for name in node._fields:
        value = getattr(node, name, None)
        if name in IGNORED_FIELDS or (name in NEWER_FIELDS and not value):
            continue
        if id(value) in annotations or (isinstance(node, ast.Assert) and name == "msg"):
            yield None
        elif isinstance(value, list) and saying and name == "args":
            yield [part for part in value if not is_text(part)]
        elif isinstance(value, list) and is_field and name == "keywords":
            yield [part for part in value if part.arg != "description"]
        else:
            yield value
