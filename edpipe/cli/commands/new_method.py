"""`edpipe new-method NAME`: a file with a loss of one's own, its test, and an experiment that trains with it."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import yaml

from edpipe.cli.commands.method_template import method_text, text_of_test
from edpipe.cli.commands.params_edit import alone, checked, read_text, write_text
from edpipe.errors import ParamsError, nearest
from edpipe.params.load import load_params
from edpipe.params.plans.plugins import check_name
from edpipe.params.plans.registered import REGISTRY
from edpipe.params.schema import Params
from edpipe.params.text.dvc_form import in_dvc_form
from edpipe.params.text.insert import add_to_list, insert_entries
from edpipe.params.yaml_file import parse_text
from edpipe.storage.atomic import write_text_atomically


def add_new_method(command: ArgumentParser) -> None:
    """The command's arguments."""
    command.add_argument("name", metavar="NAME", help="of the method: lower-case letters, digits and _")
    command.add_argument(
        "--like",
        metavar="EXPERIMENT",
        help="an experiment with one teacher, which is copied with the new method; by default the first of method kd",
    )
    command.set_defaults(run=new_method)


def new_method(name: str, like: str | None) -> None:
    """Writes NAME.py and test_NAME.py, and names them in params.yaml.

    Raises:
        ParamsError: a name that is taken or cannot be, a file that is there already, or no experiment to be like.
    """
    check_name("new-method", name)
    with alone():
        params, text = load_params(), read_text()
        if name in REGISTRY.methods:
            raise ParamsError(f"new-method: there is a method named '{name}' already; choose another name")
        example = _example(params, like)
        experiment = f"{params.experiments[example].dataset}_{name}"
        if experiment in params.experiments:
            raise ParamsError(f"new-method: params.yaml has an experiment named '{experiment}' already; rename it")
        files = {Path(f"{name}.py"): method_text(name), Path(f"test_{name}.py"): text_of_test(name)}
        _write(files, _edited(text, name, example, experiment), experiment)
    print(f"{name}.py: the method; change its loss and its knobs")
    print(f"test_{name}.py: its test; `python -m pytest test_{name}.py`")
    print(f"params.yaml: plugins, and experiments.{experiment}, which is like {example}")
    print(f"Next: `snakemake --cores 2 results/{experiment}.json`, then `edpipe compare results/*.json`")


def _example(params: Params, like: str | None) -> str:
    """The experiment to be copied.

    Raises:
        ParamsError: there is none, or it has several teachers or none.
    """
    if like is None:
        found = next((name for name, knobs in params.experiments.items() if knobs.method.name == "kd"), None)
        if found is None:
            raise ParamsError("new-method: params.yaml has no experiment of method kd; name one by --like EXPERIMENT")
        return found
    if like not in params.experiments:
        raise ParamsError(f"new-method: --like {like}: no such experiment{nearest(like, params.experiments)}")
    if not hasattr(params.experiments[like].method, "teacher"):
        raise ParamsError(f"new-method: --like {like}: has not one teacher; name an experiment of method kd or dkd")
    return like


def _edited(text: str, name: str, example: str, experiment: str) -> str:
    entry: dict[str, Any] = parse_text(text)["experiments"][example]
    entry |= {"method": {"name": name, "teacher": entry["method"]["teacher"]}}
    block = in_dvc_form(yaml.safe_dump({experiment: entry}, sort_keys=False, default_flow_style=None, width=1000))
    return add_to_list(insert_entries(text, {"experiments": block}), "plugins", f"{name}.py")


def _write(files: dict[Path, str], text: str, experiment: str) -> None:
    """All of it, or nothing."""
    taken = [path for path in files if path.exists()]
    if taken:
        raise ParamsError(f"new-method: {taken[0]} is there already; rename or remove it, or choose another name")
    try:
        for path, content in files.items():
            write_text_atomically(path, content)
        checked(text, [experiment])
        write_text(text)
    except BaseException:
        for path in files:
            path.unlink(missing_ok=True)
        raise
