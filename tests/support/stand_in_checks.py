"""Stands in for edpipe/pipeline/state/artifact_checks.py in the folders of test_dvc_scenarios.py.

Tells of what stand_in_command_line.py writes what the real one tells of real artifacts. That one lies beside it.
"""

from pathlib import Path

from edpipe.pipeline.state.real_artifact_checks import *  # noqa: F403

from edpipe.errors import CorruptFileError
from edpipe.pipeline.state.recorded import Records
from edpipe.results.page.page_code import generator
from edpipe.storage.code.versions import token
from edpipe.storage.digests import digest_file, digest_json
from edpipe.storage.job import Job
from edpipe.storage.records import record_path


def check_artifact(job: Job, records: Records) -> None:
    """That the bytes of an artifact are those that its record tells of; a record itself was compared when read."""
    path = job.outputs[0]
    if path != record_path(path) and digest_file(path) != records.digest(path):
        raise CorruptFileError(f"{path}: content and record do not belong together")


def page_text(result_path: Path, dataset_path: Path, partition_path: Path) -> str:
    """The page of these files."""
    digest = digest_json([digest_file(path) for path in (result_path, dataset_path, partition_path)])
    return f'<meta name="generator" content="{generator(token("steps.report"))}">\n{digest}\n'


def is_page_of(job: Job) -> bool:
    """Whether the page is what would be drawn now."""
    wanted = page_text(*(job.input(role) for role in ("result", "dataset", "partition")))
    return job.outputs[0].read_text(encoding="utf-8") == wanted
