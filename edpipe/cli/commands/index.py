"""Draws the page of all results of a project."""

import sys
from argparse import ArgumentParser

from edpipe.errors import EdpipeError
from edpipe.pipeline.jobs.paths import RESULTS


def add_index(command: ArgumentParser) -> None:
    """The command's words; there are none."""
    command.set_defaults(run=index)


def index() -> None:
    """Writes results/index.html from all results and studies in results/; a damaged one is named and left out.

    Raises:
        EdpipeError: there is no folder results.
        OverwriteError: the page cannot be written.
    """
    from edpipe.results.page.index import INDEX, write_index  # here, since they import half of edpipe

    if not RESULTS.is_dir():
        raise EdpipeError(
            f"index: no folder {RESULTS} here; make a result first, such as `snakemake results/digits_ed.html`"
        )
    found = write_index(RESULTS)
    for line in found.left_out:
        print(f"edpipe: left out: {line}", file=sys.stderr)
    count = sum(len(group.entries) for group in found.groups)
    print(f"{RESULTS / INDEX}: {count} results, {len(found.studies)} studies")
