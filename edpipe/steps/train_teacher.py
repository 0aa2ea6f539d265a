"""Trains one teacher from scratch on the classes of its subset."""

from pathlib import Path

from edpipe.models.zoo import build_network
from edpipe.params.teacher import NetworkKnobs
from edpipe.steps.teaching import Course, fit_and_save


def train_teacher(course: Course, network: NetworkKnobs, out_path: Path) -> None:
    """Writes the teacher's weights and their record, with its top1 on its own classes.

    Raises:
        NetworkError: unknown model.
        TrainingError: the loss is no longer a finite number, or much too large.
        Interrupted: SIGTERM or Ctrl-C came; the same call goes on where it was.
    """
    built = build_network(network.model, len(course.class_ids), course.dataset.channels, course.fitting.seed)
    course = course.normalised(course.dataset.mean, course.dataset.std)
    fit_and_save("train_teacher", built, course, network, out_path)
