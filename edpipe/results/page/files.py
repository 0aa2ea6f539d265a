"""What a page is drawn from."""

from dataclasses import dataclass
from pathlib import Path

from edpipe.storage.job import Job


@dataclass(frozen=True)
class PageFiles:
    """The files of one experiment's page."""

    result: Path
    dataset: Path | None = None
    """With it the page has images, and what is counted over them; its partition and evaluations are there as well."""
    partition: Path | None = None
    evaluations: tuple[Path, ...] = ()
    teacher_evaluations: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    """Other results, which the main number is held against."""

    @classmethod
    def of_job(cls, job: Job) -> "PageFiles":
        """Those that a job of the step `report` reads."""
        return cls(
            job.input("result"),
            job.input("dataset"),
            job.input("partition"),
            job.inputs["evaluations"],
            job.inputs["teacher_evaluations"],
            job.inputs["beside"],
        )
