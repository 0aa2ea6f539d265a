"""All definitions that some entries can reach by names."""

import ast
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

from edpipe.storage.code.modules import BODY, TEMPLATE, Module, SourceTree
from edpipe.storage.code.normal_form import ERRORS, normal_form
from edpipe.storage.code.references import Names, Place, Use, references
from edpipe.storage.digests import digest_json


@dataclass(frozen=True)
class Closure:
    """What some entries reach."""

    meaning: frozenset[Place]
    """What can change a result."""
    texts: frozenset[Place]
    """What only makes texts of errors and of lines for people."""
    cut: frozenset[Place]
    """Entries of others that are named here; their own units stand for them."""


def closure(tree: SourceTree, entries: Iterable[Place], cut: Collection[Place] = ()) -> Closure:
    """What the entries reach, over-approximated: a name that may stand for a definition does.

    Args:
        cut: definitions that are not followed unless they are entries.

    Raises:
        KeyError: an entry is no definition of the package.
    """
    waiting = [(place, Use.MEANING) for place in entries]
    start = {place for place, _ in waiting}
    seen: dict[Place, set[Use]] = {}
    stopped: set[Place] = set()
    while waiting:
        place, use = waiting.pop()
        if place in cut and place not in start:
            stopped.add(place)
            continue
        if use in seen.setdefault(place, set()) or Use.MEANING in seen[place]:
            continue
        seen[place].add(use)
        found = [(other, _passed_on(tree, place, use, its_use)) for other, its_use in _references(tree, place)]
        waiting += [(other, Use.TEXT if _makes_texts(tree, other) else its_use) for other, its_use in found]
    meaning = {place for place, uses in seen.items() if _counts(tree, place, uses)}
    texts = {place for place, uses in seen.items() if uses == {Use.TEXT}}
    return Closure(frozenset(meaning), frozenset(texts), frozenset(stopped))


def _passed_on(tree: SourceTree, place: Place, use: Use, inner: Use) -> Use:
    """What a definition is used for that is named in `place`, which is itself used for something.

    A class that an annotation names may be used by its methods, so that from there on everything counts. Another name
    in an annotation, such as an alias of a type, computes nothing.
    """
    if Use.TEXT in (use, inner):
        return Use.TEXT
    return Use.ANNOTATION if use is Use.ANNOTATION and not _is_class(tree, place) else inner


def _counts(tree: SourceTree, place: Place, uses: set[Use]) -> bool:
    """Whether a definition can change a result; of what only annotations name, classes alone have methods."""
    if Use.MEANING in uses:
        return True
    return Use.ANNOTATION in uses and _is_class(tree, place)


def _makes_texts(tree: SourceTree, place: Place) -> bool:
    """Whether a definition only makes texts of errors: all of `errors` but the classes."""
    return place.module == ERRORS and not _is_class(tree, place)


def _is_class(tree: SourceTree, place: Place) -> bool:
    return any(isinstance(statement, ast.ClassDef) for statement in statements_of(tree, place))


def statements_of(tree: SourceTree, place: Place) -> tuple[ast.stmt, ...]:
    """The statements that make a definition.

    Raises:
        KeyError: there is no such definition.
    """
    module = tree.module(place.module)
    return () if place.name == TEMPLATE else module.definitions[place.name]


@cache
def _references(tree: SourceTree, place: Place) -> tuple[tuple[Place, Use], ...]:
    module = tree.module(place.module)
    found = {
        pair
        for statement in statements_of(tree, place)
        for part, use in _parts(module, statement)
        for pair in references(Names.within(tree, module, statement), part, use)
    }
    # Whatever a module does when it is imported happens before anything of it is used.
    found |= {(Place(place.module, name), Use.MEANING) for name in _always(module)}
    return tuple(sorted(found))


def _parts(module: Module, statement: ast.stmt) -> list[tuple[ast.AST, Use]]:
    """The parts of a definition and what they are for: of a class of errors, all but the bases makes texts."""
    if module.name == ERRORS and isinstance(statement, ast.ClassDef):
        return [(ast.Tuple(statement.bases), Use.MEANING), *((part, Use.TEXT) for part in statement.body)]
    return [(statement, Use.MEANING)]


def _always(module: Module) -> list[str]:
    return [BODY] * (BODY in module.definitions) + [TEMPLATE] * bool(module.templates)


@cache
def form_of(tree: SourceTree, place: Place) -> str:
    """The normal form of one definition; of templates their texts."""
    module = tree.module(place.module)
    if place.name == TEMPLATE:
        return "\n".join(module.templates)
    statements = statements_of(tree, place)
    return "\n".join(normal_form(Names.within(tree, module, statement), statement) for statement in statements)


def digest_of_meaning(tree: SourceTree, places: Iterable[Place]) -> str:
    """One digest of the normal forms of these definitions, each under its name."""
    return digest_json({str(place): form_of(tree, place) for place in places})
