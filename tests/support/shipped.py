"""All experiments that are shipped: those of params.yaml and those of examples/, as one set of plain values."""

from functools import cache
from pathlib import Path

from edpipe.params.yaml_file import load_raw

ROOT = Path(__file__).resolve().parents[2]
PARAMS_PATH = ROOT / "params.yaml"
EXAMPLE_PATHS = tuple(sorted((ROOT / "edpipe" / "pipeline" / "project" / "examples").glob("*.yaml")))


@cache
def shipped_and_examples():
    """For each section every entry; not to be changed. An entry that stands in two files must be the same in both."""
    together = {"tracked": load_raw(PARAMS_PATH)["tracked"]}
    for path in (PARAMS_PATH, *EXAMPLE_PATHS):
        for section, entries in load_raw(path).items():
            if section == "tracked":
                continue
            for name, entry in entries.items():
                there = together.setdefault(section, {}).setdefault(name, entry)
                assert there == entry, f"{section}.{name} in {path} is not that of another file"
    return together
