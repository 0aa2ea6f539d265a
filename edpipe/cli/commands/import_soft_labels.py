"""`edpipe import-soft-labels`: another program's stored teacher outputs as soft labels of a teacher of this project.

They are taken only where they can be checked: the teacher itself must be here, and is asked about rows drawn from them.
"""

from argparse import ArgumentParser
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from edpipe.cli.arguments import whole_from
from edpipe.errors import DataError, ParamsError, UsageError, VerificationError
from edpipe.params.load import load_params
from edpipe.params.schema import Params, entry
from edpipe.params.soft_labels import DumpKnobs, PadCrop, SoftLabelKnobs
from edpipe.pipeline.jobs import teachers
from edpipe.storage.job import Job
from edpipe.views.spec import count_views

REFUSED = {
    "tinyvit": "its rows are the largest probabilities on views that follow from seeds of NumPy's generator",
    "fkd": "its rows are the largest probabilities on boxes that were drawn and rounded",
}
"""Why rows of these programs belong to no view of edpipe."""
PLAIN = "{augment: {kind: pad_crop, padding: 0, flip: false}, exhaustive: true}"
"""The space of views whose only view is the image as it is."""
PROGRAMS = ("torchdistill", *REFUSED)


def add_import_soft_labels(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("program", choices=PROGRAMS, help="that stored the outputs")
    command.add_argument("folder", type=Path, help="of its files")
    command.add_argument("--dataset", required=True, help="a name in params.yaml")
    command.add_argument("--teacher", required=True, help="whose outputs they are, a name in params.yaml")
    command.add_argument("--subset", default="all", help="of a teacher of some classes (default all)")
    command.add_argument("--samples", type=Path, help="torchdistill: a text file, a line an index: the image's name")
    command.add_argument("--classes", type=Path, help="torchdistill: a text file, a line an output: the class's name")
    command.add_argument(
        "--rows", type=whole_from(1), default=1000, help="about which the teacher is asked (default 1000)"
    )
    command.set_defaults(run=run)


@dataclass(frozen=True)
class _Wanted:
    """What is to be imported."""

    folder: Path
    samples: list[str]
    classes: list[str]
    num_rows: int


def run(
    program: str,
    folder: Path,
    dataset: str,
    teacher: str,
    subset: str,
    samples: Path | None,
    classes: Path | None,
    rows: int,
) -> None:
    """Writes the soft-label file and its record, or refuses.

    Raises:
        UsageError: a program whose rows belong to no view of edpipe, or a list is not given.
        ParamsError: the views of the dataset are augmented, or more is stored than logits.
        DataError: a file or a list is wrong.
        VerificationError: a row is not what the teacher says of the image.
    """
    if program in REFUSED:
        raise UsageError(
            f"import-soft-labels: {program}: {REFUSED[program]}; no view of edpipe is the same, and a student would "
            "see other pixels than the teacher did; call `snakemake` to store the teacher's logits anew"
        )
    if samples is None or classes is None:
        raise UsageError(
            "import-soft-labels: torchdistill's files do not say what their indexes and outputs are; give --samples "
            "and --classes"
        )
    params = load_params()
    job = _plain_job(params, dataset, teacher, subset)
    _import(job, _Wanted(folder, _lines(samples), _lines(classes), rows))


def _plain_job(params: Params, dataset: str, teacher: str, subset: str) -> Job[DumpKnobs]:
    """The job whose artifact the rows become: of the only file of the only view, the image as it is."""
    knobs: SoftLabelKnobs = entry(params, "soft_labels", dataset)
    augment = knobs.space.augment
    plain = PadCrop.model_validate({"kind": "pad_crop", "padding": 0, "flip": False})
    if augment != plain or knobs.space.mixing is not None or count_views(knobs.student_views) != 1:
        raise ParamsError(
            f"soft_labels.{dataset}.space: its views are augmented, but torchdistill's outputs count as those of the "
            f"images as they are; use space {PLAIN} for a data set of this kind"
        )
    if knobs.storage.attention or knobs.storage.hint is not None:
        raise ParamsError(
            f"soft_labels.{dataset}.storage: asks for attention maps or a hint, which are not imported; remove them, "
            "or call `snakemake` to store the teacher's outputs"
        )
    return teachers.dump_soft_labels(params, dataset, teacher, subset, "0-0")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a text file with a name on each line") from error


def _import(job: Job[DumpKnobs], wanted: _Wanted) -> None:
    from edpipe.datasets.dataset_file import open_dataset
    from edpipe.runtime.progress import announce
    from edpipe.soft_labels.dumping import dump_batches, dump_header
    from edpipe.soft_labels.file.writer import create_soft_labels
    from edpipe.soft_labels.teacher_outputs import TeacherFiles, load_teacher, teacher_forward
    from edpipe.soft_labels.torchdistill_cache import open_cache
    from edpipe.storage.records import made_by
    from edpipe.views.spec import ViewRange

    files, views, path = TeacherFiles.of_job(job.arguments, job.inputs), ViewRange(0, 1), job.outputs[0]
    dataset = open_dataset(files.dataset_path)
    teacher = load_teacher(files, dataset)
    cache = open_cache(wanted.folder, wanted.samples, wanted.classes, dataset, teacher.class_ids)
    batches = dump_batches(dataset, teacher, job.knobs.space, views)
    with teacher_forward(teacher, batches) as forward_pass:
        header = dump_header(dataset, teacher, batches, job.knobs.storage, views, forward_pass)
    # A key of its own: nothing that an earlier call read, perhaps by other lists, is kept.
    key = f"imported {uuid4()}"
    with made_by(job.units), create_soft_labels(path, header, key, partial(_described, job, wanted)) as writer:
        for block in writer.missing:
            writer.write(block, cache.logits(header.sample_ids[block.start : block.stop]))
    announce(
        f"{path}: {len(header.sample_ids):,} rows imported; `snakemake` verifies them once more before a student trains"
    )


def _described(job: Job[DumpKnobs], wanted: _Wanted, path: Path) -> dict[str, Any]:
    """The record of the file, which says where its rows are from; the file gets its name only if they are right."""
    from edpipe.datasets.dataset_file import open_dataset
    from edpipe.soft_labels.file.reader import open_soft_labels
    from edpipe.soft_labels.teacher_outputs import TeacherFiles, load_teacher
    from edpipe.soft_labels.verification import compare_with_teacher
    from edpipe.steps.dump_soft_labels import describe

    files = TeacherFiles.of_job(job.arguments, job.inputs)
    dataset = open_dataset(files.dataset_path)
    teacher = load_teacher(files, dataset)
    try:
        found = compare_with_teacher(open_soft_labels(path), dataset, teacher, wanted.num_rows, seed=0)
    except VerificationError as error:
        reason = str(error).partition(": ")[2].partition("; ")[0]
        raise VerificationError(
            f"{wanted.folder}: these are not outputs of teacher {files.teacher} for the images as they are: {reason}; "
            "check --samples and --classes, and how torchdistill prepared the images, or call `snakemake` to store "
            "them anew"
        ) from error
    imported = {"program": "torchdistill", "compared_rows": found.num_rows, "max_difference": found.max_difference}
    return describe(job.knobs, teacher, path) | {"imported": imported}
