"""Fetches one teacher's weights and, where asked, fine-tunes them to the classes of its subset."""

from pathlib import Path

from edpipe.errors import TeacherError
from edpipe.models.fetch import Normalisation, fetch_weights
from edpipe.params.teacher import NetworkKnobs
from edpipe.steps.teaching import Course, fit_and_save


def fetch_teacher(course: Course, network: NetworkKnobs, out_path: Path) -> None:
    """Writes the teacher's weights and their record, with its top1 on its own classes.

    Raises:
        TeacherError: the weights cannot be had, are not those declared, or have other classes and are not fine-tuned.
    """
    fetched, info = fetch_weights(network, len(course.class_ids), course.dataset.channels, course.fitting.seed)
    if info["fresh_classifier"] and course.fitting.epochs == 0:
        raise TeacherError(
            f"{course.title}: the fetched '{network.model}' does not have {len(course.class_ids)} classes, so its "
            f"classifier is untrained; set fitting.epochs above 0 to fine-tune it"
        )
    own = info["normalisation"] or Normalisation(course.dataset.mean, course.dataset.std)
    course = course.normalised(own.mean, own.std)
    fit_and_save("fetch_teacher", fetched, course, network, out_path, fresh_classifier=info["fresh_classifier"])
