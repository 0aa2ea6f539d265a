"""Which source files a step depends on: the import closure of its module, read from the text.

Both graphs know a step's code by one digest of these files, so that editing a module re-runs exactly the steps that
import it.
"""

import ast
from functools import cache
from pathlib import Path

PACKAGE = "edpipe"
ROOT = Path(__file__).resolve().parents[1]


def step_names() -> tuple[str, ...]:
    """Every step, sorted."""
    return tuple(sorted(path.stem for path in ROOT.glob("steps/*.py") if path.stem != "__init__"))


@cache
def source_files(step: str) -> tuple[str, ...]:
    """Files of the package that `edpipe.steps.<step>` imports, directly or not, as paths from the project folder.

    Imports inside functions count as well, and so does a template beside a module. Sorted; package `__init__` files are
    left out, they hold only docstrings.

    Raises:
        ValueError: no such step.

    >>> source_files("partition_dataset")[0]
    'edpipe/datasets/dataset_file.py'
    """
    start = f"{PACKAGE}.steps.{step}"
    if _file_of(start) is None:
        raise ValueError(f"no step named {step!r}")
    found: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in found or _file_of(module) is None:
            continue
        found.add(module)
        waiting.extend(_imports(module))
    paths = [path for module in found if (path := _file_of(module))]
    paths += [template for path in paths for template in path.parent.glob(f"{path.stem}.*.jinja")]
    files = [f"{PACKAGE}/{path.relative_to(ROOT).as_posix()}" for path in paths]
    return tuple(sorted(f for f in files if not f.endswith("__init__.py")))


def _file_of(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return None
    base = ROOT.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _imports(module: str) -> tuple[str, ...]:
    path = _file_of(module)
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path else ():
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # A name may be a submodule or something inside the module; the one that is no file is passed over.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.split(".")[0] == PACKAGE)
