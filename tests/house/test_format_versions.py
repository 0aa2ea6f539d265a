"""docs/formats.md names every format and its version as the code has them; an edpipe reads that version alone."""

import re
from pathlib import Path

import pytest

import edpipe
from edpipe.datasets import dataset_file, partition_file
from edpipe.export import description
from edpipe.pipeline.project import note
from edpipe.pipeline.state import checked_artifacts, cost_ledger
from edpipe.results import result_file
from edpipe.results.comparison import comparison, search_table, study_table
from edpipe.results.measures import teacher_evaluation
from edpipe.soft_labels.file import format as soft_label_format

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/formats.md").read_text(encoding="utf-8").split("## Versions of formats\n")[1]
NAMED = re.compile(r'(?:FORMAT = |"format": |JsonFormat\(|Literal\[)"(edpipe-[a-z-]+)"')
WITHOUT_VERSION = {"edpipe-weights"}
"""Plain safetensors."""
IN_CODE = {
    dataset_file.FORMAT: dataset_file.FORMAT_VERSION,
    partition_file.FORMAT.name: partition_file.FORMAT.version,
    soft_label_format.FORMAT: soft_label_format.FORMAT_VERSION,
    teacher_evaluation.FORMAT.name: teacher_evaluation.FORMAT.version,
    result_file.RESULT_FORMAT: result_file.RESULT_FORMAT_VERSION,
    study_table.STUDY_FORMAT: study_table.STUDY_FORMAT_VERSION,
    search_table.SEARCH_FORMAT: search_table.SEARCH_FORMAT_VERSION,
    comparison.COMPARISON_FORMAT: comparison.COMPARISON_FORMAT_VERSION,
    description.MODEL_FORMAT: description.MODEL_FORMAT_VERSION,
    note.FORMAT.name: note.FORMAT.version,
    "edpipe-ledger": cost_ledger.CostEntry.model_fields["format_version"].default,
    "edpipe-checked": checked_artifacts.FORMAT_VERSION,
}
PRINTED = {"edpipe-cache", "edpipe-cluster", "edpipe-doctor", "edpipe-explanation"}
"""What `--json` prints; the number stands beside the name."""


def documented():
    rows = re.findall(r"^\| (`edpipe-.+?`) \| (\d+) \|", PAGE, re.MULTILINE)
    return {name: int(version) for names, version in rows for name in re.findall(r"`([^`]+)`", names)}


def test_the_table_has_the_versions_of_the_code():
    found = documented()
    assert {name: found[name] for name in IN_CODE} == IN_CODE
    assert set(found) == set(IN_CODE) | PRINTED


def test_no_format_of_the_code_is_left_out():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "edpipe").rglob("*.py")]
    named = {name for text in texts for name in NAMED.findall(text)}
    assert named - WITHOUT_VERSION == set(documented())
    for name in PRINTED:
        (text,) = [text for text in texts if f'"{name}"' in text]
        assert re.search(rf'"{name}",\s+"format_version": {documented()[name]}\b', text)


@pytest.mark.parametrize(
    ("page", "format_"),
    [
        ("result.md", "edpipe-comparison"),
        ("result.md", "edpipe-search"),
        ("soft_label_format.md", "edpipe-soft-labels"),
        ("formats.md", "edpipe-ledger"),
        ("formats.md", "edpipe-teacher-evaluation"),
    ],
)
def test_other_pages_have_the_same_numbers(page, format_):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (version,) = re.findall(rf'\| `"?{format_}"?`, (\d+) \|', text)
    assert int(version) == IN_CODE[format_]


def test_the_page_on_upgrades_has_the_present_version():
    text = (ROOT / "docs/upgrade.md").read_text(encoding="utf-8")
    assert f"Present is {edpipe.__version__}" in text
