"""Education Distillation as a cached, resumable, shareable pipeline.

The names in `__all__` are for other programs: they stay as they are within a major version. Importing `edpipe` imports
no torch; a name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edpipe.api.student import load_student

__version__ = "0.1.0"
__all__ = ["load_student"]
_PUBLIC = {"load_student": "edpipe.api.student"}
"""For each name, the module that has it."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edpipe' has no attribute '{name}'; public are {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
