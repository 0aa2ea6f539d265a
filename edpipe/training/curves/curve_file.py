"""The file of a curve: JSON, a row on each line; whole at any time, so that it can be read while training runs."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edpipe.storage.atomic import remove_file, write_text_atomically

Row = dict[str, Any]
"""Every row has the same keys, which DVC demands of what it plots."""


def read_curve(path: Path) -> list[Row]:
    """The rows; none where the file is absent or no curve."""
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return contents if isinstance(contents, list) and all(map(_is_row, contents)) else []


def _is_row(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("iteration"), int) and "training" in value


def write_curve(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows, whole or not at all; without rows there is no file, since DVC cannot read an empty one.

    Raises:
        OverwriteError: the folder cannot be written to, or the disk is full.
    """
    if rows:
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
        write_text_atomically(path, f"[\n{lines}\n]\n")
    else:
        remove_file(path)


def finite(value: float | None) -> float | None:
    """The value, or None for what JSON has no number for."""
    return value if value is not None and math.isfinite(value) else None
