"""results/index.html: every result of a project on one page, the results of each dataset beside each other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edpipe.errors import EdpipeError
from edpipe.results.comparison.study_figure import study_figure
from edpipe.results.comparison.study_table import STUDY_FORMAT
from edpipe.results.page.charts import top1_against_compute
from edpipe.results.page.page import environment
from edpipe.results.page.units import percent
from edpipe.results.page.vega import csv_link
from edpipe.results.result_file import RESULT_FORMAT, Result, format_seconds, read_result
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.records import check_seal, read_json_object

INDEX = "index.html"


@dataclass(frozen=True)
class Entry:
    """One result and the page beside it."""

    result: Result
    page: str
    """Name of its page; empty where there is none."""
    own_time: str


@dataclass(frozen=True)
class Group:
    """The results of one dataset, as its digest tells them apart; the best is first."""

    dataset: str
    entries: tuple[Entry, ...]
    picture: Markup | None
    """Top1 against compute; None of a single result."""
    data: Markup


@dataclass(frozen=True)
class Study:
    """One study, as its file tells it."""

    name: str
    figure: Markup
    contents: Mapping[str, Any]


@dataclass(frozen=True)
class Index:
    """What stands on the page."""

    groups: tuple[Group, ...]
    studies: tuple[Study, ...]
    left_out: tuple[str, ...]
    """Why a file is not shown, a line for each."""


def read_index(folder: Path) -> Index:
    """All results and studies of a folder; a damaged one is named and left out, since others are worth a look."""
    entries, studies, left_out = [], [], []
    for path in sorted(folder.glob("*.json")):
        try:
            contents = read_json_object(path)
            if contents.get("format") == RESULT_FORMAT:
                entries.append(_entry(path, read_result(path)))
            elif contents.get("format") == STUDY_FORMAT:
                check_seal(path, contents)
                studies.append(Study(str(contents["study"]), _figure(contents), contents))
        except EdpipeError as error:
            left_out.append(str(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            left_out.append(f"{path}: not a whole study ({error!r})")
    by_dataset: dict[str, list[Entry]] = {}
    for entry in entries:
        by_dataset.setdefault(entry.result.inputs.dataset, []).append(entry)
    return Index(tuple(map(_group, by_dataset.values())), tuple(studies), tuple(left_out))


def _entry(path: Path, result: Result) -> Entry:
    page = path.with_suffix(".html")
    return Entry(result, page.name if page.is_file() else "", format_seconds(result.cost, False))


def _figure(contents: Mapping[str, Any]) -> Markup:
    """As in the file beside it, but in the style of the page: a style inside it would be that of all charts."""
    alone = study_figure(contents).replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)
    return Markup(re.sub(r"<style>.*?</style>", "", alone, flags=re.DOTALL))


def _group(entries: Sequence[Entry]) -> Group:
    ranked = sorted(entries, key=lambda entry: (-entry.result.summary.top1.mean, entry.result.experiment))
    rows = [_row(entry.result) for entry in ranked]
    said = "; ".join(f"{row['name']} {percent(row['top1'])}" for row in rows)
    name = ranked[0].result.data.dataset
    picture = top1_against_compute(rows, f"Top1 against compute: {said}") if len(rows) > 1 else None
    return Group(name, tuple(ranked), picture, csv_link(f"results_{name}", rows))


def _row(result: Result) -> dict[str, Any]:
    top1 = result.summary.top1
    return {
        "name": result.experiment,
        "top1": top1.mean,
        "low": top1.mean if top1.low is None else max(top1.low, 0.0),
        "high": top1.mean if top1.high is None else min(top1.high, 1.0),
        "n": top1.n,
        "macs": result.budget.training_macs,
        "images": result.budget.images_seen,
    }


def index_page(index: Index) -> str:
    """The page as text; equal arguments and equal code give equal pages."""
    return environment().get_template("index.html.jinja").render(index=index)


def write_index(folder: Path) -> Index:
    """Draws the page of a folder of results into it; gives what stands on it.

    Raises:
        OverwriteError: it cannot be written.
    """
    found = read_index(folder)
    write_text_atomically(folder / INDEX, index_page(found))
    return found
