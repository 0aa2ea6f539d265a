"""Fetches one teacher's weights and, where asked, fine-tunes them to the classes of its subset."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from edpipe.errors import CorruptFileError, MismatchError, TeacherError, remake
from edpipe.models.pretrained.fetch import WEIGHTS_FOLDER, Fetched, Normalisation, Wanted, fetch_weights, take_over
from edpipe.params.teacher import NetworkKnobs, TeacherJobKnobs
from edpipe.runtime.progress import announce
from edpipe.storage.given_files import given_path
from edpipe.storage.job import Job
from edpipe.storage.records import record_path
from edpipe.storage.weights import read_weights
from edpipe.training.teacher import TeacherSetup, setup_of_job, train_and_save


def run(job: Job[TeacherJobKnobs]) -> None:
    """Runs a job of this step."""
    student = job.input_or_none("student")
    fetch_teacher(setup_of_job(job), job.knobs.network, job.outputs[0], given_path(WEIGHTS_FOLDER), student)


def fetch_teacher(
    setup: TeacherSetup, network: NetworkKnobs, out_path: Path, folder: Path, student_path: Path | None = None
) -> None:
    """Writes the teacher's weights and their record, with its top1 on its own classes.

    Args:
        setup: what it learns, if it is fine-tuned.
        network: which, and from where.
        out_path: of its weights.
        folder: where weights from addresses are kept, for all teachers that are made of them.
        student_path: source student alone: the weights that a last stage has left.

    Raises:
        TeacherError: the weights cannot be had, are not those declared, or have other classes and are not fine-tuned.
        CorruptFileError: the student's weights or their record are damaged.
        MismatchError: the student is another one than the knobs ask for.
    """
    if student_path is not None:
        network_taken, is_fresh, setup = _student(setup, network, student_path)
        fetched = Fetched(network_taken, is_fresh, None)
    else:
        fetched = fetch_weights(network, _wanted(setup, folder))
    if fetched.fresh_classifier and setup.fitting.epochs == 0:
        raise TeacherError(
            f"{setup.title}: the fetched '{network.model}' does not have {len(setup.class_ids)} classes, so its "
            f"classifier is untrained; set fitting.epochs above 0 to fine-tune it, or name its classes in class_names"
        )
    if fetched.trained_at is not None:
        side = network.image_size or setup.dataset.image_size
        announce(f"{setup.title}: was trained at {fetched.trained_at}, sees {side} pixels")
    own = fetched.normalisation or Normalisation(setup.dataset.mean, setup.dataset.std)
    facts = {"fresh_classifier": fetched.fresh_classifier, "trained_at": fetched.trained_at}
    train_and_save("fetch_teacher", fetched.network, setup.normalised(own.mean, own.std), network, out_path, **facts)


def _wanted(setup: TeacherSetup, folder: Path) -> Wanted:
    known = setup.dataset.class_names
    names = [known[class_id] for class_id in setup.class_ids]
    return Wanted(setup.title, names, known, setup.dataset.channels, setup.fitting.seed, folder)


def _student(setup: TeacherSetup, network: NetworkKnobs, path: Path) -> tuple[nn.Module, bool, TeacherSetup]:
    """The network as its last stage has left it, whether its classifier is fresh, and the course that notes it."""
    weights, record = read_weights(path)
    _check_student(path, record, setup, network)
    sizes = len(setup.class_ids), setup.dataset.channels
    fetched, is_fresh = take_over(network.model, weights, str(path), *sizes, setup.fitting.seed)
    return fetched, is_fresh, replace(setup, student_digest=record["weights_digest"])


def _check_student(path: Path, record: Mapping[str, Any], setup: TeacherSetup, network: NetworkKnobs) -> None:
    """That the weights are those of the last stage of such a student, of this seed and dataset."""
    try:
        knobs = record["knobs"]
        found = {
            "step": record["step"],
            "dataset": record["inputs"]["dataset"],
            "model": knobs["student"]["model"],
            "seed": record["seed"],
            "number of later stages": knobs["plan"]["num_stages"] - knobs["plan"]["number"],
        }
    except (KeyError, TypeError) as error:
        raise CorruptFileError(f"{record_path(path)}: not the record of a stage ({error!r}); {remake(path)}") from error
    wanted = {
        "step": "run_stage",
        "dataset": setup.dataset.digest,
        "model": network.model,
        "seed": setup.fitting.seed,
        "number of later stages": 0,
    }
    wrong = [name for name, value in wanted.items() if found[name] != value]
    if wrong:
        raise MismatchError(
            f"{path}: its {wrong[0]} is {found[wrong[0]]!r}, {setup.title} needs {wanted[wrong[0]]!r}; "
            f"{remake(path, act='make the student again')}"
        )
