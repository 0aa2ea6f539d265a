"""Fetches one teacher's weights and, where asked, fine-tunes them to the classes of its subset."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from edpipe.errors import CorruptFileError, MismatchError, TeacherError
from edpipe.models.fetch import Fetched, Normalisation, Wanted, fetch_weights, take_over
from edpipe.params.teacher import NetworkKnobs
from edpipe.progress import announce
from edpipe.steps.teaching import Course, fit_and_save
from edpipe.storage.records import record_path
from edpipe.storage.weights import read_weights


def fetch_teacher(
    course: Course, network: NetworkKnobs, out_path: Path, folder: Path, student_path: Path | None = None
) -> None:
    """Writes the teacher's weights and their record, with its top1 on its own classes.

    Args:
        course: what it learns, if it is fine-tuned.
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
        network_taken, is_fresh, course = _student(course, network, student_path)
        fetched = Fetched(network_taken, is_fresh, None)
    else:
        fetched = fetch_weights(network, _wanted(course, folder))
    if fetched.fresh_classifier and course.fitting.epochs == 0:
        raise TeacherError(
            f"{course.title}: the fetched '{network.model}' does not have {len(course.class_ids)} classes, so its "
            f"classifier is untrained; set fitting.epochs above 0 to fine-tune it, or name its classes in class_names"
        )
    if fetched.trained_at is not None:
        side = network.image_size or course.dataset.image_size
        announce(f"{course.title}: was trained at {fetched.trained_at}, sees {side} pixels")
    own = fetched.normalisation or Normalisation(course.dataset.mean, course.dataset.std)
    facts = {"fresh_classifier": fetched.fresh_classifier, "trained_at": fetched.trained_at}
    fit_and_save("fetch_teacher", fetched.network, course.normalised(own.mean, own.std), network, out_path, **facts)


def _wanted(course: Course, folder: Path) -> Wanted:
    known = course.dataset.class_names
    names = [known[class_id] for class_id in course.class_ids]
    return Wanted(course.title, names, known, course.dataset.channels, course.fitting.seed, folder)


def _student(course: Course, network: NetworkKnobs, path: Path) -> tuple[nn.Module, bool, Course]:
    """The network as its last stage has left it, whether its classifier is fresh, and the course that notes it."""
    weights, record = read_weights(path)
    _check_student(path, record, course, network)
    sizes = len(course.class_ids), course.dataset.channels
    fetched, is_fresh = take_over(network.model, weights, str(path), *sizes, course.fitting.seed)
    return fetched, is_fresh, replace(course, student_digest=record["weights_digest"])


def _check_student(path: Path, record: Mapping[str, Any], course: Course, network: NetworkKnobs) -> None:
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
        raise CorruptFileError(
            f"{record_path(path)}: not the record of a stage ({error!r}); make it again with `snakemake --force {path}`"
        ) from error
    wanted = {
        "step": "run_stage",
        "dataset": course.dataset.digest,
        "model": network.model,
        "seed": course.fitting.seed,
        "number of later stages": 0,
    }
    wrong = [name for name, value in wanted.items() if found[name] != value]
    if wrong:
        raise MismatchError(
            f"{path}: its {wrong[0]} is {found[wrong[0]]!r}, {course.title} needs {wanted[wrong[0]]!r}; make the "
            f"student again with `snakemake --force {path}`"
        )
