"""Exit codes of steps, told to whoever started the program that started them: Snakemake itself ends with 1."""

import os
from contextlib import suppress
from pathlib import Path

EXIT_CODES = "EDPIPE_EXIT_CODES"
"""The variable that names the file; a cluster's job sets it."""


def tell_exit_code(code: int) -> None:
    """Adds an exit code to the file, if one is named."""
    path = os.environ.get(EXIT_CODES)
    if path and code:
        with suppress(OSError), open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{code}\n")


def told_exit_codes(path: Path) -> list[int]:
    """The codes in a file, in the order in which they came; none without a file."""
    with suppress(OSError):
        return [int(line) for line in path.read_text(encoding="utf-8").split() if line.isdecimal()]
    return []
