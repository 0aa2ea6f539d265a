"""Evidence for a trajectory: its teacher's first iterations are trained again, and give the rows that are stored."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int64

from edpipe.cli.adoption.claim import Claim, Evidence, UnshownError
from edpipe.cli.adoption.students import HINT, first_losses
from edpipe.datasets.dataset_file import open_dataset
from edpipe.runtime.device import prepare_device
from edpipe.soft_labels.file.reader import SoftLabels, open_soft_labels
from edpipe.soft_labels.verification import compare_outputs
from edpipe.steps.record_trajectory import describe
from edpipe.training.loop import FIRST_LOSSES, Training
from edpipe.training.scratch_recording import recording_header, scratch_start
from edpipe.training.scratch_teacher import ScratchTeacherTask, SharedBatches


@dataclass
class _Rows:
    """Takes what the teacher says, in the order of training."""

    epochs: list[np.ndarray] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)

    def record(
        self,
        epochs: Int64[np.ndarray, " row"],
        sample_ids: Int64[np.ndarray, " row"],
        logits: Float32[np.ndarray, "row class"],
    ) -> None:
        self.epochs.append(epochs)
        self.ids.append(sample_ids)
        self.logits.append(logits)


def show_trajectory(claim: Claim) -> Evidence:
    """From the same start, on the same samples and views, the teacher says the same.

    Raises:
        UnshownError: it does not, or a recording would begin otherwise now.
        EdpipeError: the file is damaged.
    """
    knobs, seed = claim.job.knobs, int(claim.job.arguments["seed"])
    dataset = open_dataset(claim.job.input("dataset"))
    labels = open_soft_labels(claim.path)
    shared = SharedBatches(seed, knobs.views, dataset, prepare_device())
    header = recording_header(str(claim.job.arguments["teacher"]), knobs, shared)
    if header.facts() != labels.header.facts():
        raise UnshownError(
            f"{claim.path}: a recording would begin with another header now: other views, order of samples, epochs, "
            "classes or precision"
        )
    record = claim.compare(describe(seed, knobs, dataset, claim.path))
    training, rows = Training(*scratch_start(seed, knobs, shared)), _Rows()
    iterations = min(FIRST_LOSSES, training.num_iterations)
    first_losses(training, ScratchTeacherTask(shared, knobs.recipe, rows), iterations)
    return _compared(claim, labels, rows, iterations, record)


def _compared(claim: Claim, labels: SoftLabels, rows: _Rows, iterations: int, record: dict) -> Evidence:
    # On a GPU a few iterations more were trained until their losses were looked at.
    ids, epochs, exact = (np.concatenate(part[:iterations]) for part in (rows.ids, rows.epochs, rows.logits))
    fidelity, is_bad = compare_outputs(labels, exact, {}, ids, epochs)
    try:
        is_other = _differ(labels, exact, ids, epochs)
    except ValueError as error:
        raise UnshownError(f"{claim.path}: what the teacher says when it is trained again: {error}") from error
    wrong = is_other if claim.needs_equality else is_bad
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise UnshownError(
            f"{claim.path}: epoch {epochs[first]}, sample {ids[first]}: what the teacher says when it is trained again "
            f"is not what is stored ({int(wrong.sum())} of {len(wrong)} rows; {fidelity.say()})"
            f"{HINT.partition(', which')[0] if claim.needs_equality and not is_bad.any() else ''}"
        )
    shown = {
        "evidence": "first iterations trained again",
        "compared_iterations": iterations,
        "compared_rows": len(ids),
        "rows_of_other_bits": int(is_other.sum()),
        "max_difference": fidelity.max_difference,
        "max_kl": fidelity.max_kl,
    }
    told = "equal bit for bit" if not is_other.any() else f"equal but for noise ({fidelity.say()})"
    return Evidence(f"{iterations} iterations trained again: {len(ids)} rows are {told}", shown, record)


def _differ(
    labels: SoftLabels,
    exact: Float32[np.ndarray, "row class"],
    ids: Int64[np.ndarray, " row"],
    epochs: Int64[np.ndarray, " row"],
) -> Bool[np.ndarray, " row"]:
    """Which rows would be stored otherwise now."""
    stored, differ = labels.gather(ids, epochs), np.zeros(len(ids), bool)
    for epoch in np.unique(epochs):
        rows = np.flatnonzero(epochs == epoch)
        for name, values in labels.precision.encode(exact[rows], ids[rows], int(epoch)).items():
            differ[rows] |= (values != stored[name][rows]).reshape(len(rows), -1).any(axis=1)
    return differ
