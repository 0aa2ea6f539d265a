"""Draws the page of one experiment: one HTML file that needs no network and runs no script."""

from pathlib import Path

from edpipe.results.page.page import SampleImages, drawn
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.job import Job, NoKnobs


def run(job: Job[NoKnobs]) -> None:
    """Runs a job of this step."""
    report(job.input("result"), job.outputs[0], SampleImages(job.input("dataset"), job.input("partition")))


def report(result_path: Path, out_path: Path, images: SampleImages | None = None) -> None:
    """Writes the page; with some images of each subset if they are given.

    Raises:
        CorruptFileError: the result, the dataset or the partition is damaged, foreign, or of another version.
        MismatchError: the images are not those that the result was measured on.
    """
    write_text_atomically(out_path, drawn(result_path, images))
