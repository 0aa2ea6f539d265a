"""Whether an artifact is whole: each step's artifact is read to its end by its reader and compared with its record.

What is a function of other files is computed again from them: tables and figures from the JSON beside them, a
result from its evaluations, a study from its results.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from edpipe.errors import CorruptFileError, MismatchError, remake
from edpipe.pipeline.jobs.step_table import STEP, Artifact
from edpipe.pipeline.state.recorded import Records
from edpipe.storage.digests import digest_file
from edpipe.storage.job import Job
from edpipe.storage.records import read_json_object, record_path, to_json


def check_artifact(job: Job, records: Records) -> None:
    """Reads the artifact of a job to its end; digests that its record does not hold are noted in `records`.

    Raises:
        CorruptFileError: its reader refuses it, or its content is not that of its record.
        MismatchError: the same, of a reader that says so.
    """
    path, check = job.outputs[0], _CHECKS.get(STEP[job.step].artifact)
    _check_layout(record_path(path))
    if check is None:
        return
    digest = check(job, records)
    if digest is None:
        return
    # Before it is refused: what was made from another content than the present one is to be named as well.
    records.note_digest(path, digest)
    recorded = records.recorded_digest(record_path(path))
    if recorded is not None and recorded != digest:
        raise CorruptFileError(
            f"{path}: content has digest {digest}, its record says {recorded}; they do not belong together; "
            f"{remake(path, act='make both again')}"
        )


def _check_layout(path: Path) -> None:
    """That a record is byte for byte as it was written; its readers go by its content."""
    try:
        is_same = path.read_bytes() == to_json(read_json_object(path)).encode()
    except OSError as error:
        raise CorruptFileError(f"{path}: cannot be read: {error.strerror}; {remake(path)}") from error
    if not is_same:
        raise CorruptFileError(f"{path}: altered since written, in spaces, breaks or the order of keys; {remake(path)}")


def _dataset(job: Job, records: Records) -> str:
    from edpipe.datasets.dataset_file import open_dataset

    path = job.outputs[0]
    dataset = open_dataset(path)
    # Its digest is made of the digests of the stored images: with these compared, it is that of the bytes at hand.
    dataset.check_stored(np.arange(dataset.num_samples))
    found, recorded = dataset.frame_digest(), records.read(record_path(path)).get("frame_digest")
    if found != recorded:
        raise CorruptFileError(
            f"{path}: bytes outside the images have digest {found}, its record says {recorded}; {remake(path)}"
        )
    return dataset.digest


def _partition(job: Job, _records: Records) -> str | None:
    from edpipe.datasets.dataset_file import open_dataset
    from edpipe.datasets.partition_file import read_partition

    try:
        dataset = open_dataset(job.inputs["dataset"][0])
    except CorruptFileError:
        return None  # absent, or found damaged by itself; the file's own digest was compared when its record was read
    try:
        return read_partition(job.outputs[0], dataset).digest
    except MismatchError:
        return None  # of another dataset: stale, not damaged


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
        kept = {name: contents[name] for name in SeedOutcome.model_fields if name in contents}
        SeedOutcome.model_validate_json(json.dumps(kept))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise CorruptFileError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; the file was altered or made by another "
            f"edpipe; {remake(path)}"
        ) from error


def _result(job: Job, records: Records) -> None:
    from edpipe.results.gathering import gathered
    from edpipe.results.measures.seeds import curve_csv, metrics_json
    from edpipe.results.recomputed import check_equal
    from edpipe.results.result_file import read_result

    path, curve_path, metrics_path = job.outputs
    read_result(path)
    contents = records.read(path)
    _check_text(curve_path, curve_csv(contents), path)
    _check_text(metrics_path, metrics_json(contents), path)
    if _are_those_of_record(job, "evaluations", records):
        inputs, facts = gathered(contents["experiment"], contents["method"], job.inputs["evaluations"])
        again = {"inputs": inputs, **facts}
        check_equal(path, {name: contents[name] for name in again}, again, "its evaluations")


def _study(job: Job, records: Records) -> None:
    from edpipe.results.comparison.study_contents import study_contents
    from edpipe.results.comparison.study_figure import study_figure
    from edpipe.results.comparison.study_table import STUDY_FORMAT, STUDY_FORMAT_VERSION, study_table
    from edpipe.results.recomputed import check_equal

    path, table_path, figure_path = job.outputs
    contents = records.read(path)
    if (contents.get("format"), contents.get("format_version")) != (STUDY_FORMAT, STUDY_FORMAT_VERSION):
        raise CorruptFileError(f"{path}: not a study of version {STUDY_FORMAT_VERSION}; {remake(path)}")
    try:
        table, figure = study_table(contents), study_figure(contents)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFileError(f"{path}: not a whole study ({error!r}); {remake(path)}") from error
    _check_text(table_path, table, path)
    _check_text(figure_path, figure, path)
    has_same_knobs = json.loads(job.knobs_text) == contents["knobs"]
    if has_same_knobs and _are_those_of_record(job, "results", records):
        inputs, facts = study_contents(str(job.arguments["study"]), job.knobs.study, job.inputs["results"])
        again = {"inputs": inputs, **facts}
        check_equal(path, {name: contents.get(name) for name in again}, again, "its results")


def _search(job: Job, records: Records) -> None:
    from edpipe.results.comparison.search_table import (
        SEARCH_FORMAT,
        SEARCH_FORMAT_VERSION,
        rows_of,
        search_facts,
        search_table,
    )
    from edpipe.results.recomputed import check_equal

    path, table_path = job.outputs
    contents = records.read(path)
    if (contents.get("format"), contents.get("format_version")) != (SEARCH_FORMAT, SEARCH_FORMAT_VERSION):
        raise CorruptFileError(f"{path}: not a search of version {SEARCH_FORMAT_VERSION}; {remake(path)}")
    try:
        table, rows = search_table(contents), rows_of(contents)
        has_same_knobs = json.loads(job.knobs_text) == contents["knobs"]
        again = search_facts(str(job.arguments["search"]), job.knobs, rows) if has_same_knobs else {}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptFileError(f"{path}: not a whole search ({error!r}); {remake(path)}") from error
    check_equal(path, {name: contents.get(name) for name in again}, again, "its students")
    _check_text(table_path, table, path)


def _are_those_of_record(job: Job, role: str, records: Records) -> bool:
    """Whether the inputs of this role are there and those that the artifact names; if not, it is stale or alone."""
    present = [records.digest(path) for path in job.inputs[role]]
    return present == records.read(record_path(job.outputs[0]))["inputs"].get(role)


def _check_text(path: Path, wanted: str, source: Path) -> None:
    """That a file is, byte for byte, the text that is made from another file."""
    try:
        is_same = path.read_bytes() == wanted.encode()
    except OSError as error:
        raise CorruptFileError(f"{path}: cannot be read: {error.strerror}; {remake(source)}") from error
    if not is_same:
        raise CorruptFileError(f"{path}: is not what is made from {source}; {remake(source)}")


_CHECKS: dict[Artifact, Callable[[Job, Records], str | None]] = {
    Artifact.DATASET: _dataset,
    Artifact.PARTITION: _partition,
    Artifact.WEIGHTS: _weights,
    Artifact.SOFT_LABELS: _soft_labels,
    Artifact.TEACHER_EVALUATION: _teacher_evaluation,
    Artifact.EVALUATION: _evaluation,
    Artifact.RESULT: _result,
    Artifact.STUDY: _study,
    Artifact.SEARCH: _search,
}


def is_page_of(job: Job) -> bool:
    """Whether the page is what would be drawn now, with the curves that it carries: those are no artifacts.

    Raises:
        CorruptFileError: the page cannot be read.
        MismatchError: no page can be drawn now: what it is drawn from is damaged, or does not belong together.
    """
    from edpipe.results.page.curves import curves_in
    from edpipe.results.page.files import PageFiles
    from edpipe.results.page.page import drawn

    path = job.outputs[0]
    try:
        present = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{path}: cannot be read ({error}); {remake(path)}") from error
    try:
        return present == drawn(PageFiles.of_job(job), curves_in(present))
    except CorruptFileError as error:  # of another file, which is found damaged by itself
        raise MismatchError(str(error)) from error
