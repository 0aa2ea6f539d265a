"""Trains one teacher from scratch on the classes of its subset."""

from pathlib import Path

from edpipe.models.zoo import build_network
from edpipe.params.teacher import NetworkKnobs
from edpipe.steps.teaching import Course, fit_teacher, save_teacher


def train_teacher(course: Course, network: NetworkKnobs, out_path: Path) -> None:
    """Writes the teacher's weights and their record, with its top1 on its own classes.

    Raises:
        NetworkError: unknown model.
        TrainingError: the loss is no longer a finite number.
    """
    built = build_network(network.model, len(course.class_ids), course.dataset.channels, course.fitting.seed)
    course = course.normalised(course.dataset.mean, course.dataset.std)
    final_loss = fit_teacher(built, course)
    save_teacher("train_teacher", built, course, network, out_path, final_loss=final_loss)
