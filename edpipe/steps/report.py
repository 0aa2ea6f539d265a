"""Draws the page of one experiment: one HTML file that needs no network and runs no script."""

from pathlib import Path

from edpipe.results.page.curves import Curves
from edpipe.results.page.files import PageFiles
from edpipe.results.page.page import drawn
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.job import Job, NoKnobs


def run(job: Job[NoKnobs], curves: Curves) -> None:
    """Runs a job of this step; `curves` are those of its trainings that are at hand."""
    report(PageFiles.of_job(job), job.outputs[0], curves)


def report(files: PageFiles, out_path: Path, curves: Curves | None = None) -> None:
    """Writes the page; with images, and what is counted over them, if the dataset is given.

    Raises:
        CorruptFileError: a file is damaged, foreign, or of another version.
        MismatchError: the images or evaluations are not those that the result was made from.
    """
    write_text_atomically(out_path, drawn(files, curves))
