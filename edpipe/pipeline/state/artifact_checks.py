"""Whether an artifact is whole: each step's artifact is opened with its own reader and compared with its record."""

import json
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from edpipe.errors import CorruptFileError, MismatchError, remake
from edpipe.pipeline.jobs.step_table import STEP, Artifact
from edpipe.pipeline.state.recorded import SEED_KEYS, Records
from edpipe.storage.digests import digest_file
from edpipe.storage.job import Job
from edpipe.storage.records import record_path


def check_artifact(job: Job, records: Records) -> None:
    """Reads the artifact of a job to its end; digests that its record does not hold are noted in `records`.

    Raises:
        CorruptFileError: its reader refuses it, or its content is not that of its record.
        MismatchError: the same, of a reader that says so.
    """
    path, check = job.outputs[0], _CHECKS.get(STEP[job.step].artifact)
    if check is None:
        return
    digest = check(job, records)
    if digest is None:
        return
    recorded = records.digest(path)
    if recorded is not None and recorded != digest:
        raise CorruptFileError(
            f"{path}: content has digest {digest}, its record says {recorded}; they do not belong together; "
            f"{remake(path, act='make both again')}"
        )
    records.note_digest(path, digest)


def _dataset(job: Job, _records: Records) -> str:
    from edpipe.datasets.dataset_file import open_dataset

    return open_dataset(job.outputs[0]).digest


def _partition(job: Job, _records: Records) -> None:
    from edpipe.datasets.dataset_file import open_dataset
    from edpipe.datasets.partition_file import read_partition

    try:
        dataset = open_dataset(job.inputs["dataset"][0])
    except CorruptFileError:
        return  # absent, or found damaged by itself; the file's own digest was compared when its record was read
    try:
        read_partition(job.outputs[0], dataset)
    except MismatchError:
        return  # of another dataset: stale, not damaged


def _weights(job: Job, _records: Records) -> str:
    # Bytes with the recorded digest are those that were written: no need to import torch and load them.
    return digest_file(job.outputs[0])


def _soft_labels(job: Job, _records: Records) -> str | None:
    from edpipe.soft_labels.file.reader import open_soft_labels

    return open_soft_labels(job.outputs[0]).digest


def _teacher_evaluation(job: Job, _records: Records) -> str:
    from edpipe.results.measures.teacher_evaluation import read_teacher_evaluation

    return read_teacher_evaluation(job.outputs[0]).digest


def _evaluation(job: Job, records: Records) -> None:
    from edpipe.results.result_file import SeedOutcome

    path = job.outputs[0]
    contents = records.read(record_path(path))
    try:
        SeedOutcome.model_validate_json(json.dumps({name: contents[name] for name in SEED_KEYS if name in contents}))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise CorruptFileError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; the file was altered or made by another "
            f"edpipe; {remake(path)}"
        ) from error


def _result(job: Job, _records: Records) -> None:
    from edpipe.results.result_file import read_result

    read_result(job.outputs[0])


_CHECKS: dict[Artifact, Callable[[Job, Records], str | None]] = {
    Artifact.DATASET: _dataset,
    Artifact.PARTITION: _partition,
    Artifact.WEIGHTS: _weights,
    Artifact.SOFT_LABELS: _soft_labels,
    Artifact.TEACHER_EVALUATION: _teacher_evaluation,
    Artifact.EVALUATION: _evaluation,
    Artifact.RESULT: _result,
}


def is_page_of(result_path: Path, dataset_path: Path, partition_path: Path, page_path: Path) -> bool:
    """Whether the page is what would be drawn from the result and these images now.

    Raises:
        CorruptFileError: one of the files cannot be read.
        MismatchError: the images are not those of the result.
    """
    from edpipe.results.page.page import SampleImages, drawn

    wanted = drawn(result_path, SampleImages(dataset_path, partition_path))
    try:
        return page_path.read_text(encoding="utf-8") == wanted
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{page_path}: cannot be read ({error}); {remake(page_path)}") from error
