"""Small packages named edpipe in a folder, whose code is read and not run."""

import shutil
from pathlib import Path

from edpipe.storage.code.closure import closure, digest_of_meaning
from edpipe.storage.code.modules import PACKAGE, SourceTree
from edpipe.storage.code.references import Place
from edpipe.storage.code.versions import HERE


def write_tree(folder, **modules):
    """A package of these modules; a double underscore in a name stands for a folder."""
    root = Path(folder) / PACKAGE
    shutil.rmtree(root, ignore_errors=True)
    for name, text in modules.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return SourceTree(root)


def reached(tree, entry, cut=()):
    """Names of the definitions that `entry` reaches, as module.name within the package."""
    module, _, name = entry.rpartition(".")
    found = closure(tree, [Place(f"{PACKAGE}.{module}", name)], [place(c) for c in cut])
    return {f"{p.module.removeprefix(f'{PACKAGE}.')}.{p.name}" for p in found.meaning}


def place(dotted):
    module, _, name = dotted.rpartition(".")
    return Place(f"{PACKAGE}.{module}", name)


def meaning(tree, entry):
    """Digest of what `entry` reaches."""
    return digest_of_meaning(tree, closure(tree, [place(entry)]).meaning)


def copy_of_package(folder):
    """The package itself, to be edited."""
    root = Path(folder) / PACKAGE
    shutil.copytree(HERE.root, root, ignore=shutil.ignore_patterns("__pycache__"))
    return SourceTree(root)
