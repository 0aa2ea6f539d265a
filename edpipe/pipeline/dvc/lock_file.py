"""dvc.lock, read and written as a whole: once for many stages.

DVC itself writes it stage by stage, through a parser in pure Python that keeps comments, which a file that nobody edits
has none of. The parser here is the one with which DVC reads it, so that both take every scalar for the same.
"""

import io
from collections.abc import Collection, Iterable
from typing import Any

from edpipe.errors import CorruptFileError
from edpipe.pipeline.dvc.repo import LOCK
from edpipe.storage.atomic import write_text_atomically

STAGES = "stages"


def stages_in_lock() -> set[str]:
    """Names of the stages in dvc.lock; none where there is no such file.

    Raises:
        CorruptFileError: it cannot be read.
    """
    return set(_read().get(STAGES) or {})


def put_stages(stages: Iterable[Any]) -> None:
    """Writes what stages were saved with; the others stay as they are.

    Raises:
        CorruptFileError: dvc.lock cannot be read.
        OverwriteError: it cannot be written.
    """
    from dvc.stage.serialize import to_lockfile

    entries = {name: _plain(entry) for stage in stages for name, entry in to_lockfile(stage).items()}
    contents: dict[str, Any] = {"schema": "2.0", **_read()}
    _write(contents | {STAGES: {**(contents.get(STAGES) or {}), **entries}})


def remove_stages(names: Collection[str]) -> None:
    """Takes stages out; the file goes with the last of them.

    Raises:
        CorruptFileError: dvc.lock cannot be read.
        OverwriteError: it cannot be written.
    """
    contents = _read()
    kept = {name: entry for name, entry in (contents.get(STAGES) or {}).items() if name not in names}
    if kept:
        _write(contents | {STAGES: kept})
    else:
        LOCK.unlink(missing_ok=True)


def _read() -> dict[str, Any]:
    try:
        text = LOCK.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(error) from error
    return _parsed(text)


def _parsed(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML, YAMLError

    try:
        contents = YAML(typ="safe").load(text) or {}
    except YAMLError as error:
        raise _unreadable(error) from error
    if not isinstance(contents, dict) or not isinstance(contents.get(STAGES) or {}, dict):
        raise _unreadable("it holds no stages")
    return contents


def _unreadable(why: object) -> CorruptFileError:
    line = " ".join(str(why).split())
    return CorruptFileError(f"{LOCK}: cannot be read ({line}); mend it, or leave DVC out with EDPIPE_DVC=0")


def _write(contents: dict[str, Any]) -> None:
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    stream = io.StringIO()
    yaml.dump(contents, stream)
    write_text_atomically(LOCK, stream.getvalue())


def _plain(value: Any) -> Any:
    """The same in types that YAML knows: DVC has ordered dicts in its entries."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
