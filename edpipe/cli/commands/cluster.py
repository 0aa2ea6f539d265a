"""Shows the jobs that this folder has submitted to a cluster."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edpipe.errors import EdpipeError, printable
from edpipe.pipeline.cluster.overview import TryRow, rows
from edpipe.pipeline.cluster.submitted_job import FOLDER

LINE_LENGTH = 160
"""Where the output is no terminal."""


def add_cluster(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("--json", action="store_true", dest="is_json", help="as JSON")
    command.set_defaults(run=cluster)


def cluster(is_json: bool) -> None:
    """A row for each try of each job: its id, how it ended or stands, where, how long it waited and ran.

    Raises:
        EdpipeError: nothing was submitted from here.
    """
    if not FOLDER.is_dir():
        raise EdpipeError(
            f"cluster: no folder {FOLDER} here: nothing was submitted yet; docs/clusters.md says how it is done"
        )
    found = list(rows())
    if is_json:
        contents = {"format": "edpipe-cluster", "format_version": 1, "tries": [asdict(row) for row in found]}
        print(json.dumps(contents))
        return
    Console(highlight=False, width=None if sys.stdout.isatty() else LINE_LENGTH).print(table_of(found))


def table_of(found: Iterable[TryRow]) -> Table:
    """The rows as a table; times in seconds."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("job", "try", "id", "state", "node", "waited s", "ran s"):
        table.add_column(column, justify="right" if column in ("try", "waited s", "ran s") else "left")
    for row in found:
        times = ["" if seconds is None else f"{seconds:.0f}" for seconds in (row.waited_s, row.ran_s)]
        cells = row.job, str(row.number), row.id, row.state, row.node, *times
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table
