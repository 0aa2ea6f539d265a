"""Finds what params.yaml may name beside its sections: methods and losses of the package, and what plugins add.

A plugin is a Python file that `plugins:` names, or an installed package with an entry point in one of `GROUPS`. It adds
methods, losses, networks and readers by defining them; nothing else has to be edited.
"""

import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel

from edpipe.errors import ParamsError, nearest
from edpipe.params.plans.loss import StageLoss, TeacherLoss
from edpipe.params.plans.method import Method, method_of
from edpipe.params.plans.reader_names import READERS
from edpipe.params.plans.registered import REGISTRY, tag_values

METHODS = "edpipe.methods"
GROUPS = ("edpipe.methods", "edpipe.networks", "edpipe.readers")
"""Entry points of installed packages; each names a module, a class or a function."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MARK = "__edpipe_plugin__"
Function = TypeVar("Function", bound=Callable[..., Any])


def network(name: str) -> Callable[[Function], Function]:
    """Marks a function of a plugin as a network: `build(num_classes, channels)` gives a torch module."""
    return _marked("networks", name)


def reader(name: str) -> Callable[[Function], Function]:
    """Marks a function of a plugin as a reader: `read(root, knobs)` gives an `edpipe.datasets.raw.RawDataset`."""
    return _marked("readers", name)


def _marked(kind: str, name: str) -> Callable[[Function], Function]:
    def mark(function: Function) -> Function:
        setattr(function, _MARK, (kind, name))
        return function

    return mark


@cache
def load_built_in() -> None:
    """Registers the methods of the package, then those of installed packages; once a process.

    Raises:
        ParamsError: an installed package cannot be loaded.
    """
    folder = importlib.import_module(METHODS)
    for found in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{METHODS}.{found.name}")
        _register(vars(module), module.__name__, is_built_in=True)
    for group in GROUPS:
        for point in importlib.metadata.entry_points(group=group):
            _load_entry_point(group, point)


def _load_entry_point(group: str, point: importlib.metadata.EntryPoint) -> None:
    where = f"entry point '{point.name}' of {group}"
    try:
        found = point.load()
    except Exception as error:  # whatever another package raises
        raise ParamsError(
            f"{where}: {point.value} cannot be loaded: {_one_line(error)}; mend or uninstall the package that has it"
        ) from error
    module = found.__name__ if isinstance(found, ModuleType) else found.__module__
    top = module.split(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is not None and spec.origin is not None:
        origin = Path(spec.origin)
        REGISTRY.sources[top] = origin.parent.parent if origin.name == "__init__.py" else origin.parent
    names = vars(found) if isinstance(found, ModuleType) else {found.__name__: found}
    _register(names, module, is_built_in=False, where=where)


def load_files(paths: Iterable[str]) -> None:
    """Registers what the files of `plugins:` define; a file that was loaded is not read again.

    Args:
        paths: as in params.yaml: relative to the present folder.

    Raises:
        ParamsError: a file is missing, cannot be run, defines nothing, or uses a name that is taken.
    """
    load_built_in()
    stems: dict[str, str] = {}
    for text in paths:
        path, where = Path(text), f"plugins: {text}"
        if path.suffix != ".py" or not path.stem.isidentifier():
            raise ParamsError(
                f"{where}: must be a Python file with a name of letters, digits and _, such as my_loss.py"
            )
        if not path.is_file():
            raise ParamsError(f"{where}: there is no such file; correct the path, which is relative to params.yaml")
        if path.stem in stems:
            raise ParamsError(f"{where}: has the same name as {stems[path.stem]}; rename one of the two")
        stems[path.stem] = text
        _load_file(path.resolve(), where)


def _load_file(path: Path, where: str) -> None:
    present = sys.modules.get(path.stem)
    if present is not None and getattr(present, _MARK, None) == str(path):
        return
    if present is not None and not hasattr(present, _MARK):
        raise ParamsError(f"{where}: '{path.stem}' is the name of another Python module; rename the file")
    _forget(path.stem)
    module = _run(path, where)
    for neighbour in path.parent.glob("*.py"):  # which the file may import
        REGISTRY.sources[neighbour.stem] = path.parent
    try:
        if not _register(vars(module), path.stem, is_built_in=False, where=where):
            raise ParamsError(
                f"{where}: defines no method, loss, network or reader; see docs/plugins.md, or remove it from plugins"
            )
    except ParamsError:
        _forget(path.stem)
        raise


def _run(path: Path, where: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, "a Python file has a loader"
    assert spec.loader is not None, "a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    setattr(module, _MARK, str(path))
    sys.modules[path.stem] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        sys.modules.pop(path.stem, None)
        raise ParamsError(f"{where}: {_place(error, path)}{_one_line(error)}; correct the file") from error
    return module


def _place(error: BaseException, path: Path) -> str:
    """The line of the file in which an error came up, as a text; empty where it is not known."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}: "
    lines, step = [], error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(path):
            lines.append(step.tb_lineno)
        step = step.tb_next
    return f"line {lines[-1]}: " if lines else ""


def _one_line(error: BaseException) -> str:
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(str(said).split())[:200]}"


def _forget(stem: str) -> None:
    """Removes what a file of another folder with the same name had registered."""
    sys.modules.pop(stem, None)
    gone = {unit for unit, (module, _) in REGISTRY.places.items() if module == stem}
    for unit in gone:
        REGISTRY.places.pop(unit)
    for known in (REGISTRY.methods, REGISTRY.losses, REGISTRY.stage_losses, REGISTRY.networks, REGISTRY.readers):
        for name in [name for name, one in known.items() if getattr(one, "__module__", "") == stem]:
            known.pop(name)  # type: ignore[attr-defined]


def _register(names: Mapping[str, object], module: str, is_built_in: bool, where: str = "") -> int:
    """Registers all that a module defines itself; gives their number."""
    own = [one for one in names.values() if getattr(one, "__module__", None) == module]
    count = 0
    for one in own:
        for kind, name in _kinds_of(one):
            _add(kind, name, one, is_built_in, where)
            count += 1
    return count


def _kinds_of(one: object) -> list[tuple[str, str]]:
    """What a definition is registered as: kind and name."""
    if inspect.isfunction(one):
        return [getattr(one, _MARK)] if hasattr(one, _MARK) else []
    if not isinstance(one, type) or not issubclass(one, BaseModel):
        return []
    for base, kind, tag in (
        (Method, "methods", "name"),
        (TeacherLoss, "losses", "kind"),
        (StageLoss, "stage_losses", "kind"),
    ):
        if issubclass(one, base):
            return [(kind, name) for name in tag_values(one, tag)]
    return []


UNIT_KINDS = {"losses": "losses", "stage_losses": "methods", "networks": "networks", "readers": "readers"}
"""How the unit of code of what is registered is called; the stages of a method are compared by their values."""


def _add(kind: str, name: str, one: Any, is_built_in: bool, where: str) -> None:
    check_name(where, name)
    _check_free(kind, name, one, where)
    _check_whole(kind, name, one, where)
    getattr(REGISTRY, kind)[name] = one
    if kind == "losses":
        method = method_of(one, name)
        method.__module__ = one.__module__
        _check_free("methods", name, method, where)
        REGISTRY.methods[name] = method
    if not is_built_in and kind in UNIT_KINDS:
        REGISTRY.places[f"{UNIT_KINDS[kind]}.{name}"] = (one.__module__, one.__name__)


NEEDED = {"methods": (Method, "stages"), "losses": (TeacherLoss, "losses"), "stage_losses": (StageLoss, "losses")}
"""By kind: the base class, and the function that each subclass must define."""


def _check_whole(kind: str, name: str, one: Any, where: str) -> None:
    """That a class can do what it is there for: else it would fail after all teachers were trained."""
    base, function = NEEDED.get(kind, (None, ""))
    if base is not None and getattr(one, function) is getattr(base, function):
        raise ParamsError(
            f"{where}: '{name}' ({one.__name__}) defines no {function}(self, …); add it, see docs/plugins.md"
        )


def check_name(where: str, name: str) -> None:
    """That a name can stand in params.yaml.

    Raises:
        ParamsError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ParamsError(f"{where}: '{name}' must be lower-case letters, digits and _, beginning with a letter")


def _check_free(kind: str, name: str, one: Any, where: str) -> None:
    taken = getattr(REGISTRY, kind).get(name)
    if taken is not None and taken is not one:
        what = {"methods": "method", "losses": "loss", "stage_losses": "loss"}.get(kind, kind.rstrip("s"))
        raise ParamsError(f"{where}: there is a {what} named '{name}' already, in {taken.__module__}; rename this one")
    if kind == "readers" and name in READERS:
        raise ParamsError(f"{where}: the package has a reader named '{name}' already; rename this one")


def loss_class(kind: str) -> type[TeacherLoss]:
    """The loss against a teacher of this name.

    Raises:
        ParamsError: there is none.
    """
    load_built_in()
    if kind not in REGISTRY.losses:
        raise ParamsError(f"there is no loss named '{kind}'{nearest(kind, REGISTRY.losses)}")
    return REGISTRY.losses[kind]  # type: ignore[return-value]


def method_class(name: str) -> type[Method] | None:
    """The method of this name; None: there is none, as when the plugin of a result is not loaded."""
    load_built_in()
    return REGISTRY.methods.get(name)  # type: ignore[return-value]
