"""workflow/code.yaml: the version of each unit of the code, for DVC, which cannot compute it.

Snakemake takes the versions from the package itself. A file that does not fit them is never used in silence: every step
that DVC runs, and DVC's own stage check_params, stop with one line.
"""

from typing import Any

import yaml

from edpipe.errors import MismatchError
from edpipe.pipeline.jobs import paths
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.code.units import unit_names
from edpipe.storage.code.versions import HERE, tokens

_HEADER = (
    "# Written by `edpipe code`; do not edit. For each unit of the code its version; where it was edited and not\n"
    "# confirmed since, also the digest of what it means now.\n"
)


def code_text() -> str:
    """What workflow/code.yaml must hold: for each unit, its version."""
    lines = [_HEADER, "code:\n"]
    kind = ""
    for unit, version in code_versions().items():
        if unit.split(".")[0] != kind:
            kind = unit.split(".")[0]
            lines.append(f"  {kind}:\n")
        # In quotes: a version is no number.
        lines.append(f'    {unit.split(".")[1]}: "{version}"\n')
    return "".join(lines)


def code_versions() -> dict[str, str]:
    """For each unit, its version as records hold it."""
    return tokens(unit_names(HERE))


def write_code() -> None:
    """Writes the file if it differs from the one on disk."""
    text = code_text()
    if not paths.CODE.is_file() or paths.CODE.read_bytes() != text.encode():
        write_text_atomically(paths.CODE, text)


def check_code() -> None:
    """That the file on disk fits the package.

    Raises:
        MismatchError: it does not.
    """
    changed = changed_units()
    if changed:
        raise MismatchError(
            f"{paths.CODE}: does not fit the code of {', '.join(changed)} any more; "
            "run `edpipe code`, then call dvc again"
        )


def changed_units() -> list[str]:
    """Units whose version in the file, if any, is not that of the package; sorted."""
    on_disk = _on_disk()
    return [unit for unit, version in code_versions().items() if on_disk.get(unit) != version]


def _on_disk() -> dict[str, Any]:
    """The versions in the file; none where it is absent, or is no such file, as in the middle of a merge."""
    try:
        contents = yaml.safe_load(paths.CODE.read_text(encoding="utf-8"))
        found = contents["code"]
        return {f"{kind}.{name}": version for kind, names in found.items() for name, version in names.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}
