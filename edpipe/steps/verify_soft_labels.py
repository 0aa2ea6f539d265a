"""Holds sampled rows of stored soft labels against the teacher, and writes the index that students need."""

from pathlib import Path

from edpipe.datasets.dataset_file import open_dataset
from edpipe.params.soft_labels import VerifyKnobs, ViewUse
from edpipe.runtime.progress import announce
from edpipe.soft_labels.file.store import open_store
from edpipe.soft_labels.teacher_outputs import TeacherFiles, load_teacher
from edpipe.soft_labels.verification import compare_with_teacher
from edpipe.storage.atomic import remove_file
from edpipe.storage.job import Job
from edpipe.storage.records import make_record, write_record

ROWS = 1000
SEED = 0


def run(job: Job[VerifyKnobs]) -> None:
    """Runs a job of this step."""
    files = TeacherFiles.of_job(job.arguments, job.inputs)
    labels = tuple(path for path in job.inputs["soft_labels"] if path.suffix == ".h5")
    verify_soft_labels(files, labels, job.knobs.views, job.outputs[0])


def verify_soft_labels(files: TeacherFiles, label_paths: tuple[Path, ...], views: ViewUse, out_path: Path) -> None:
    """Writes the index of the files at `label_paths`, if they are one store and their sampled rows are the teacher's.

    The index holds nothing that a machine's rounding could change, so that it is the same wherever it is made.

    Raises:
        CorruptFileError: a file is damaged.
        MismatchError: a file was made from something else than what is at hand, or a view is missing.
        VerificationError: a sampled row is not what the teacher says.
    """
    remove_file(out_path)
    store = open_store(label_paths)
    dataset = open_dataset(files.dataset_path)
    teacher = load_teacher(files, dataset)
    share = -(-ROWS // len(store.files))
    found = [compare_with_teacher(labels, dataset, teacher, share, SEED) for labels in store.files]
    for labels, fidelity in zip(store.files, found, strict=True):
        announce(f"{labels.path}: {fidelity.say()}")
    record = make_record(
        "verify_soft_labels",
        {"views": views},
        {
            "dataset": dataset.digest,
            "partition": teacher.partition_digest,
            "teacher": teacher.digest,
            "soft_labels": store.digests,
        },
        teacher=files.teacher,
        subset=files.subset,
        files=[labels.path.name for labels in store.files],
        num_views=store.num_views,
        teacher_forwards=store.num_forwards,
        verified_rows=sum(fidelity.num_rows for fidelity in found),
        seed=SEED,
    )
    write_record(out_path, record)
