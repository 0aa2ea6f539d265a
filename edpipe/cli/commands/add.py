"""`edpipe add`: experiments and studies of the examples into params.yaml, with every entry that they need."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edpipe
from edpipe.cli.commands.needed_entries import SECTIONS, needed_entries
from edpipe.cli.commands.params_edit import alone, checked, read_text, write_text
from edpipe.errors import MissingFileError, ParamsError, UsageError, nearest
from edpipe.params.load import parse_params
from edpipe.params.schema import Params
from edpipe.params.text.insert import entry_texts, insert_entries
from edpipe.params.yaml_file import PARAMS_PATH, load_raw, parse_text
from edpipe.pipeline.jobs.paths import STUDY_PREFIX

EXAMPLES = Path(edpipe.__file__).resolve().parent / "pipeline" / "project" / "examples"
OWN_PLACES = ("root", "mirror", "download")
"""Knobs of a data set that say where raw files come from; everybody has their own."""
KINDS = ("name", "kind", "reader")
"""Keys that choose what the other keys of an entry may be; a difference there is the first to tell."""
MOST_SHOWN = 60
"""Characters of a value in an error line."""


def add_add(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("names", nargs="*", help="of experiments in the examples, and study_NAME for a study there")
    command.add_argument(
        "--list", action="store_true", dest="is_list", help="print what can be added, and change nothing"
    )
    command.set_defaults(run=add)


@dataclass(frozen=True)
class Example:
    """One file of the examples: a complete params.yaml."""

    name: str
    """Folder and file, for people."""
    params: Params
    texts: dict[str, dict[str, str]]
    """For each section, the lines of each entry."""

    def names(self) -> list[str]:
        """What can be added: experiments, and studies as their results are called."""
        return [*self.params.experiments, *(f"{STUDY_PREFIX}{study}" for study in self.params.studies)]

    def needed(self, name: str) -> dict[str, list[str]]:
        """For each section the entries that this experiment or study needs."""
        if name in self.params.experiments:
            return needed_entries(self.params, [name])
        return needed_entries(self.params, [], [name.removeprefix(STUDY_PREFIX)])


def add(names: Sequence[str], is_list: bool = False) -> None:
    """Adds what these experiments and studies need to params.yaml, or changes nothing; or lists what there is.

    Raises:
        MissingFileError: there is no folder of examples.
        UsageError: there is no name, or an unknown one.
        ParamsError: an entry of a needed name has other contents, or params.yaml is wrong.
    """
    examples = read_examples()
    if is_list:
        print("\n".join(line for example in examples for line in _lines(example)))
        return
    if not names:
        raise UsageError("add: no name is given; `edpipe add --list` lists what can be added")
    with alone():
        there = parse_params(load_raw())
        new = _new_entries(there, examples, list(dict.fromkeys(names)))
        if new:
            text = insert_entries(read_text(), {section: "".join(entries.values()) for section, entries in new.items()})
            checked(text, new.get("experiments", {}))
            write_text(text)
    _say(names, new)


def read_examples() -> list[Example]:
    """Every file of the examples, checked.

    Raises:
        MissingFileError: there is no such folder, or nothing in it.
        ParamsError: a file is wrong.
    """
    files = sorted(EXAMPLES.glob("*.yaml"))
    if not files:
        raise MissingFileError(
            f"{EXAMPLES}: not found, or without .yaml files; `edpipe add` takes entries from there: install "
            "edpipe again"
        )
    return [_read(path) for path in files]


def _read(path: Path) -> Example:
    text = path.read_text(encoding="utf-8")
    return Example(f"{path.parent.name}/{path.name}", parse_params(parse_text(text, path)), entry_texts(text))


def _new_entries(there: Params, examples: Sequence[Example], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """For each section the lines of the entries that are needed and not there; no section is empty."""
    by_name = {name: example for example in reversed(examples) for name in example.names()}
    present = {section: dict(getattr(there, section)) for section in SECTIONS}
    new: dict[str, dict[str, str]] = {}
    for name in names:
        if name not in by_name:
            if name in there.experiments or name.removeprefix(STUDY_PREFIX) in there.studies:
                continue
            raise UsageError(f"add: no example is named '{name}'{_hint(name, by_name)}")
        example = by_name[name]
        for section, entry in [(s, entry) for s, entries in example.needed(name).items() for entry in entries]:
            model = getattr(example.params, section)[entry]
            if entry in present[section]:
                _check_same(section, entry, present[section][entry], model, example.name)
            else:
                present[section][entry] = model
                new.setdefault(section, {})[entry] = example.texts[section][entry]
    return new


def _hint(name: str, known: dict[str, Example]) -> str:
    hint = nearest(name, known)
    return hint if hint.endswith("?") else "; `edpipe add --list` lists what can be added"


def _check_same(section: str, entry: str, here: Any, wanted: Any, example: str) -> None:
    left_out = set(OWN_PLACES) if section == "datasets" else None
    contents = [knobs.model_dump(mode="json", exclude=left_out) for knobs in (here, wanted)]
    if contents[0] != contents[1]:
        place, found, other = _difference(f"{section}.{entry}", *contents)
        raise ParamsError(
            f"{PARAMS_PATH}: {place}: is {_shown(found)}, but {_shown(other)} in {example}; make the two equal, or "
            f"give your {section}.{entry} another name"
        )


def _difference(place: str, here: Any, wanted: Any) -> tuple[str, Any, Any]:
    """The first place where two values differ, and what stands there."""
    if isinstance(here, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*KINDS, *here, *wanted]):
            if here.get(key) != wanted.get(key):
                return _difference(f"{place}.{key}", here.get(key), wanted.get(key))
    return place, here, wanted


def _shown(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"


def _lines(example: Example) -> list[str]:
    """One for each name: what it is."""
    lines = [f"{example.name}"]
    for name, knobs in example.params.experiments.items():
        lines.append(
            f"  {name:28} {knobs.method.name} on {knobs.dataset}, student {knobs.student}, {len(knobs.seeds)} seeds"
        )
    for name, study in example.params.studies.items():
        what = f"{len(study.experiments)} experiments against {study.base} at equal {study.equal}"
        lines.append(f"  {STUDY_PREFIX + name:28} {what}")
    return lines


def _say(names: Sequence[str], new: dict[str, dict[str, str]]) -> None:
    if new:
        print(f"{PARAMS_PATH}: added")
        for section, entries in new.items():
            print(f"  {section}: {', '.join(entries)}")
    else:
        print(f"{PARAMS_PATH}: nothing is added, all that is needed for {', '.join(names)} is there already")
    print(f"now run: snakemake --cores 2 {' '.join(f'results/{name}.json' for name in dict.fromkeys(names))}")
