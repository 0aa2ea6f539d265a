"""params.yaml as checked, typed knobs; one loader for every tool."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edpipe.errors import ParamsError
from edpipe.params.lineage import check_lineage
from edpipe.params.plans.plugins import load_files
from edpipe.params.problems import error_lines
from edpipe.params.references import check_references
from edpipe.params.schema import Params
from edpipe.params.searches.checks import check_searches
from edpipe.params.yaml_file import PARAMS_PATH, load_raw


def parse_params(raw: dict[str, Any]) -> Params:
    """Typed, checked knobs from plain values.

    Raises:
        ParamsError: one line for each thing that is wrong.
    """
    load_files(_plugins(raw))
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(*error_lines(raw, error.errors())) from None
    check_references(params)
    check_lineage(params)
    check_searches(params)
    return params


def _plugins(raw: dict[str, Any]) -> list[str]:
    """The files that `plugins` names; what is no list of texts is found by the schema."""
    found = raw.get("plugins") or []
    return [path for path in found if isinstance(path, str)] if isinstance(found, list) else []


def load_project_plugins(path: Path = PARAMS_PATH) -> None:
    """Registers the plugins that params.yaml names, if there is one; the rest of it is not read.

    Raises:
        ParamsError: it is not readable, or a plugin is wrong.
    """
    load_files(_plugins(load_raw(path)) if path.exists() else ())


def load_params(path: Path = PARAMS_PATH) -> Params:
    """Typed, checked knobs from params.yaml.

    Raises:
        ParamsError: one line for each thing that is wrong.
    """
    return parse_params(load_raw(path))
