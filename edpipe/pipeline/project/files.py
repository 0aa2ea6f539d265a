"""The files of a project: what the package would write into each.

Some are the user's to change (`OWN`): they are written once, and renewed only while they are as they were written.
Others follow from params.yaml and the package (`write_generated`): they are written whenever they differ.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from edpipe.params.load import load_params
from edpipe.params.schema import json_schema
from edpipe.params.yaml_file import PARAMS_PATH
from edpipe.pipeline.dvc import code_file, lists
from edpipe.pipeline.dvc.knob_files import are_as_wanted
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.code.versions import HERE
from edpipe.storage.digests import digest_bytes

TEMPLATES = Path(__file__).with_name("templates")
SCHEMA = Path("workflow/params.schema.json")
DVC_YAML = Path("dvc.yaml")
OWN = {
    Path("workflow/Snakefile"): "workflow/Snakefile",
    Path("workflow/profiles/default/config.yaml"): "workflow/profiles/default/config.yaml",
    Path("workflow/profiles/slurm/config.yaml"): "workflow/profiles/slurm/config.yaml",
    Path("workflow/profiles/slurm/cluster.yaml"): "workflow/profiles/slurm/cluster.yaml",
    Path("workflow/profiles/cluster/config.yaml"): "workflow/profiles/cluster/config.yaml",
    Path("workflow/profiles/cluster/cluster.yaml"): "workflow/profiles/cluster/cluster.yaml",
    DVC_YAML: "dvc_pipeline.yaml",
    Path(".gitignore"): "gitignore",
    paths.DVC_IGNORE: "dvcignore",
}
"""By path in a project: its template, below `TEMPLATES`; DVC would take a dvc.yaml there for one of this repository."""
GENERATED = (SCHEMA, paths.TRACKED_JOBS, paths.CODE)
"""And workflow/knobs, and the end of .dvcignore."""
PACKAGE_EDITED_HERE = "      # edpipe, if the package is edited in this folder\n"
PACKAGE = "      - edpipe\n"
"""A dependency of DVC's stage check_params, where edits of the package are seen by DVC."""


def template(path: Path) -> Path:
    """Where the package has a file of a project; for people who want to compare."""
    return TEMPLATES / OWN[path]


def wanted_text(path: Path) -> str:
    """What the package would write into one of `OWN` in this folder."""
    text = template(path).read_text(encoding="utf-8")
    is_edited_here = HERE.root.resolve().parent == Path.cwd().resolve()
    return text.replace(PACKAGE_EDITED_HERE, PACKAGE) if path == DVC_YAML and is_edited_here else text


def present_text(path: Path) -> str | None:
    """What one of `OWN` holds, without the part that is generated; None: it is not there, or no text.

    Raises:
        OSError: it cannot be read.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        text = path.read_bytes().decode(errors="replace")
        return lists.own_part(text) if path == paths.DVC_IGNORE else text
    return None


def digest_of(text: str) -> str:
    """The digest that a note holds of a file."""
    return digest_bytes(text.encode())


def wanted_digests() -> dict[str, str]:
    """The digest of what the package would write, by path."""
    return {str(path): digest_of(wanted_text(path)) for path in OWN}


def write_own(path: Path) -> None:
    """Writes one of `OWN`.

    Raises:
        OverwriteError: it cannot be written.
    """
    text = wanted_text(path)
    generated = ""
    if path == paths.DVC_IGNORE and path.is_file():
        whole = path.read_text(encoding="utf-8")
        generated = whole[len(lists.own_part(whole)) :]
    write_text_atomically(path, text + generated)


def write_first_params() -> None:
    """Writes params.yaml of a new project: three experiments on handwritten digits.

    Raises:
        OverwriteError: it cannot be written.
    """
    write_text_atomically(PARAMS_PATH, (TEMPLATES / "params.yaml").read_text(encoding="utf-8"))


def stale_generated() -> Iterator[Path]:
    """Files that follow from params.yaml and the package and hold something else; the lists before the others.

    Of workflow/knobs, the folder.

    Raises:
        ParamsError: params.yaml is wrong.
    """
    params = load_params()
    yield from lists.stale_files(params)
    if not are_as_wanted(jobs_of(params, params.tracked)):
        yield paths.KNOBS
    if _text_on_disk(SCHEMA) != json_schema():
        yield SCHEMA
    if _text_on_disk(paths.CODE) != code_file.code_text():
        yield paths.CODE


def write_generated() -> None:
    """Writes them.

    Raises:
        ParamsError: params.yaml is wrong.
        OverwriteError: one cannot be written.
    """
    lists.write_tracked_jobs(load_params())
    code_file.write_code()
    if _text_on_disk(SCHEMA) != json_schema():
        write_text_atomically(SCHEMA, json_schema())


def _text_on_disk(path: Path) -> str | None:
    return path.read_bytes().decode(errors="replace") if path.is_file() else None
