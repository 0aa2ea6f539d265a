"""workflow/code.yaml: the digest of each step's code, for DVC, which cannot compute it.

Snakemake takes the digests from the source files themselves. A file that does not fit them is never used in silence:
every step that DVC runs, and DVC's own stage check_params, stop with one line.
"""

from typing import Any

import yaml

from edpipe.errors import MismatchError
from edpipe.pipeline.jobs import paths
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.records import code_digest
from edpipe.storage.source_files import step_names

_HEADER = "# Written by `edpipe code` from the source files of each step; do not edit.\n"


def code_text() -> str:
    """What workflow/code.yaml must hold: for each step, the digest of its code."""
    # In quotes: a digest of decimal digits would be read as a number.
    return _HEADER + "code:\n" + "".join(f'  {step}: "{digest}"\n' for step, digest in code_digests().items())


def code_digests() -> dict[str, str]:
    """For each step, the digest of its source files as they are now."""
    return {step: code_digest(step) for step in step_names()}


def write_code() -> None:
    """Writes the file if it differs from the one on disk."""
    text = code_text()
    if not paths.CODE.is_file() or paths.CODE.read_bytes() != text.encode():
        write_text_atomically(paths.CODE, text)


def check_code() -> None:
    """That the file on disk fits the source files.

    Raises:
        MismatchError: it does not.
    """
    changed = changed_steps()
    if changed:
        raise MismatchError(
            f"{paths.CODE}: does not fit the source files of {', '.join(changed)} any more; "
            "run `edpipe code`, then call dvc again"
        )


def changed_steps() -> list[str]:
    """Steps whose digest in the file, if any, is not that of their source files; sorted."""
    on_disk = _on_disk()
    return [step for step, digest in code_digests().items() if on_disk.get(step) != digest]


def _on_disk() -> dict[str, Any]:
    """The digests in the file; none where it is absent, or is no such file, as in the middle of a merge."""
    try:
        contents = yaml.safe_load(paths.CODE.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    found = contents.get("code") if isinstance(contents, dict) else None
    return found if isinstance(found, dict) else {}
