"""Evidence for a file of soft labels: a dump would begin with its header, and rows drawn from it are the teacher's."""

from edpipe.cli.adoption.claim import SEED, Claim, Evidence, UnshownError
from edpipe.datasets.dataset_file import open_dataset
from edpipe.soft_labels.dumping import dump_batches, dump_header
from edpipe.soft_labels.file.reader import SoftLabels, open_soft_labels
from edpipe.soft_labels.teacher_outputs import Teacher, TeacherFiles, load_teacher, teacher_forward
from edpipe.soft_labels.verification import compare_with_teacher
from edpipe.steps.dump_soft_labels import describe
from edpipe.views.spec import ViewRange

ROWS = 256
"""Drawn from each file."""


def show_soft_labels(claim: Claim) -> Evidence:
    """The teacher is asked again about rows drawn from the file.

    Raises:
        UnshownError: the file is not the one that a dump would begin now.
        VerificationError: a row is not what the teacher says.
        EdpipeError: the file was made from something else, or is damaged.
    """
    files = TeacherFiles.of_job(claim.job.arguments, claim.job.inputs)
    dataset = open_dataset(files.dataset_path)
    teacher = load_teacher(files, dataset)
    labels = open_soft_labels(claim.path)
    fidelity = compare_with_teacher(labels, dataset, teacher, ROWS, SEED)
    _compare_header(claim, labels, teacher)
    record = claim.compare(describe(claim.job.knobs, teacher, claim.path))
    shown = {
        "evidence": "teacher asked again",
        "compared_rows": fidelity.num_rows,
        "bad_rows": fidelity.num_bad_rows,
        "argmax_flips": fidelity.num_argmax_flips,
        "max_difference": fidelity.max_difference,
        "mean_kl": fidelity.mean_kl,
        "max_kl": fidelity.max_kl,
    }
    return Evidence(f"teacher asked again: {fidelity.say()}", shown, record)


def _compare_header(claim: Claim, labels: SoftLabels, teacher: Teacher) -> None:
    knobs, dataset = claim.job.knobs, open_dataset(teacher.files.dataset_path)
    views = ViewRange.parse(str(claim.job.arguments["views"]))
    batches = dump_batches(dataset, teacher, knobs.space, views)
    with teacher_forward(teacher, batches, knobs.storage.attention, knobs.storage.hint) as forward_pass:
        header = dump_header(dataset, teacher, batches, knobs.storage, views, forward_pass)
    if header.facts() != labels.header.facts():
        raise UnshownError(
            f"{claim.path}: a dump would begin with another header now: other views, samples, classes, precision or "
            "columns beside the logits"
        )
